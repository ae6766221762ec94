"""Reads what a training run left: its centers and their speakers."""

import io
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_hyperbolic.dataio.preparation import read_csv
from speechbrain_hyperbolic.errors import InputError, message_of
from speechbrain_hyperbolic.evaluation.extraction import Encoder, extract
from speechbrain_hyperbolic.geometry import Points
from speechbrain_hyperbolic.hparams import HPARAMS, check_keys, read_nodes
from speechbrain_hyperbolic.training.checkpoints import (
    average_epochs,
    load_weights,
    speakers_in,
)

_ENCODER = ("compute_features", "mean_var_norm", "embedding_model")
# Any radius would do for heads without one: at one radius, distances rank as
# angles do. This one is the cap of the published clip at c = 3.
_ONE_RADIUS = 1.317


class Run(NamedTuple):
    """What a training run left."""

    folder: pathlib.Path
    nodes: dict
    head: Any  # of a joint classifier the first hyperbolic one, or the first
    speakers: list[str]  # of each center, sub-centers included

    @torch.no_grad()
    def centers(self) -> Points:
        """The centers in float64, all at one radius if the head has none."""
        vectors = self.head.weight.double()
        if is_hyperbolic(self.head):
            return self.head.similarity.points(vectors)
        unit = torch.nn.functional.normalize(vectors)
        radius = torch.full_like(unit[:, 0], _ONE_RADIUS)
        return Points(unit, radius)


def is_hyperbolic(head: Any) -> bool:
    """Whether a head has radii; others have only directions."""
    return hasattr(getattr(head, "similarity", None), "points")


def read_run(folder: str | pathlib.Path) -> Run:
    """Reads the output folder of a training of your own: code in it is run."""
    folder = pathlib.Path(folder).resolve()
    nodes = read_nodes(folder / HPARAMS)
    classifier = _load(folder, nodes, ["classifier"])["classifier"]
    heads = list(getattr(classifier, "heads", [classifier]))
    head = next(filter(is_hyperbolic, heads), heads[0]).eval()
    sub_centers = getattr(head, "sub_centers", 1)
    speakers = np.repeat(speakers_in(folder / "save"), sub_centers).tolist()
    return Run(folder, nodes, head, speakers)


def _load(
    folder: pathlib.Path, nodes: dict, names: Sequence[str]
) -> dict[str, Any]:
    """Modules of the hparams, with the mean weights of the last epochs."""
    # Other entries seed generators, and look for files of the training.
    path, text = folder / HPARAMS, io.StringIO()
    check_keys(path, names, "a training run")
    ruamel.yaml.YAML().dump({name: nodes[name] for name in names}, text)
    try:
        modules = load_hyperpyyaml(text.getvalue())
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise InputError(
            f"{path}: {', '.join(names)} cannot be built "
            f"({message_of(error)}): use the version of the package that "
            "trained it"
        ) from error
    count = int(nodes.get("epochs_to_average", 1))
    for name in {"classifier", "embedding_model"}.intersection(names):
        state = average_epochs(folder / "save", count, name)
        load_weights(name, modules[name], state, folder / "save")
    return modules


@torch.no_grad()
def embed_training(run: Run, data_folder: pathlib.Path) -> Points:
    """Points of the training utterances; ``data_folder`` has them now."""
    before, paths = str(run.nodes.get("data_folder")), {}
    table = read_csv(run.folder / "save" / "train.csv", data_folder)
    for utterance, row in table.items():
        path = pathlib.Path(row["wav"])
        if path.is_relative_to(before):
            path = data_folder / path.relative_to(before)
        paths[utterance] = path
    encoder = Encoder(**_load(run.folder, run.nodes, _ENCODER))
    rate = run.nodes.get("sample_rate", 16000)
    cache = run.folder / "embeddings"
    x = extract(encoder, paths, rate, cache_folder=cache).views
    for block in run.head.blocks:
        x = block(x)
    return run.head.similarity.points(x.squeeze(1), embeddings=True)
