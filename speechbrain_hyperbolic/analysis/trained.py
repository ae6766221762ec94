"""Reads what a training run left: its centres, their speakers, its log."""

import csv
import io
import pathlib
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder

from speechbrain_hyperbolic.checkpoints import average_epochs
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import Points
from speechbrain_hyperbolic.hparams import HPARAMS, check_same_run, read_nodes
from speechbrain_hyperbolic.lobes.heads import JointClassifier
from speechbrain_hyperbolic.lobes.similarity import (
    Cosine,
    HyperbolicSimilarity,
)
from speechbrain_hyperbolic.scoring.extraction import Encoder, extract
from speechbrain_hyperbolic.training import LABELS, MAY_CHANGE

_ENCODER = ("compute_features", "mean_var_norm", "embedding_model")
_LOSS = ("classifier", "compute_cost")
# Of what has directions alone: the cap of the published clip at c = 3. All at
# one radius, distances rank as angles do, whatever the radius.
_ONE_RADIUS = 1.317


class Trained(NamedTuple):
    """What a training run left.

    Arguments
    ---------
    name : str
        For titles and legends.
    folder : pathlib.Path
    nodes : dict
        Its hyperparameters, as YAML nodes.
    head : torch.nn.Module
        With the mean of the last epochs. Of a joint head it's the first that
        is hyperbolic, or else the first.
    prefix : str
        Of the head's statistics in the log: "head1_" and so on, "" where
        there is one head.
    speakers : list of str
        Of each centre, shape [N]. Sub-centres are centres: those of a
        speaker follow each other.
    log : dict
        As ``read_log`` gives it.
    """

    name: str
    folder: pathlib.Path
    nodes: dict
    head: Any
    prefix: str
    speakers: list[str]
    log: dict

    @property
    def similarity(self) -> Any:
        """What the head computes. The stock head has cosines."""
        return getattr(self.head, "similarity", Cosine())

    @property
    def has_radius(self) -> bool:
        """Whether the head is hyperbolic. Others have directions alone."""
        return isinstance(self.similarity, HyperbolicSimilarity)

    @property
    def cap(self) -> float | None:
        """The largest radius that the map allows; None: there is no radius."""
        return self.similarity.cap if self.has_radius else None

    @property
    def centres(self) -> torch.Tensor:
        """The centres as vectors: float64, shape [N, D]."""
        return self.head.weight.detach().double()

    @property
    def points(self) -> Points:
        """The centres as points of the space of curvature -1.

        Without a radius, all are at the same one: then the distances rank as
        the angles do, and the radius says nothing.

        Returns
        -------
        points : geometry.Points
            float64, vectors [N, D].
        """
        with torch.no_grad():
            if self.has_radius:
                return self.similarity.points(self.centres)
        unit = torch.nn.functional.normalize(self.centres)
        radius = torch.full_like(unit[:, 0], _ONE_RADIUS)
        return Points(unit, radius.sinh(), radius)


def read_trained(
    folder: str | pathlib.Path, name: str | None = None
) -> Trained:
    """Reads a trained folder.

    Of its hyperparams.yaml the entry ``classifier`` is evaluated, which can
    run any code: read the folders of your own trainings alone. Weights are
    loaded by ``torch.load(weights_only=True)``.

    Arguments
    ---------
    folder : str or pathlib.Path
        The output folder of ``train_speaker_embeddings.py``. It may have been
        moved.
    name : str
        None: that of the folder.

    Returns
    -------
    trained : Trained

    Raises
    ------
    InputError
        If a file is missing, there is no checkpoint of a finished epoch, or
        the files are not of one run.
    """
    folder = pathlib.Path(folder).resolve()
    if not folder.is_dir():
        raise InputError(
            f"{folder} is no folder: expected the output_folder of a training"
        )
    nodes = read_nodes(folder / HPARAMS)
    classifier = _load(folder, nodes, ["classifier"])["classifier"]
    heads, prefixes = [classifier], [""]
    if isinstance(classifier, JointClassifier):
        heads = list(classifier.heads)
        prefixes = [f"head{number}_" for number in range(1, len(heads) + 1)]
    chosen = 0
    for index, head in enumerate(heads):
        if isinstance(getattr(head, "similarity", None), HyperbolicSimilarity):
            chosen = index
            break
    head = heads[chosen]
    if getattr(head, "weight", None) is None:
        raise InputError(
            f"{folder / HPARAMS}: the classifier is a {type(head).__name__}, "
            "expected one with centres in 'weight', e.g. CentreClassifier"
        )
    sub_centres = getattr(head, "sub_centres", 1)
    labels = _read_labels(folder / "save" / LABELS)
    if len(head.weight) != len(labels) * sub_centres:
        raise InputError(
            f"{folder / 'save' / LABELS} has {len(labels)} speakers, but the "
            f"head has {len(head.weight) // sub_centres}: it is of another run"
        )
    return Trained(
        name or folder.name,
        folder,
        nodes,
        head.eval(),
        prefixes[chosen],
        [label for label in labels for _ in range(sub_centres)],
        read_log(folder / "train_log.txt"),
    )


def _load(
    folder: pathlib.Path, nodes: dict[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Modules of the hparams, with the mean of the last epochs."""
    path = folder / HPARAMS
    for name in names:
        if name not in nodes:
            raise InputError(f"{path} has no {name}: it is of no training")
    # These entries alone: the others seed generators, and look for files
    # where they were when it trained.
    try:
        modules = load_hyperpyyaml(_text(nodes, names))
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        message = " ".join(str(error).split())
        raise InputError(
            f"{path}: {', '.join(names)} can't be made ({message}): use the "
            "package's version that trained it"
        ) from error
    count = nodes.get("epochs_to_average", 5)
    for name in {"classifier", "embedding_model"}.intersection(names):
        try:
            state = average_epochs(folder / "save", count, name)
            modules[name].load_state_dict(state)
        except FileNotFoundError as error:
            raise InputError(
                f"{error.filename} is missing: the checkpoint is incomplete, "
                "train on"
            ) from error
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{folder / 'save'}: a {name}.ckpt is damaged, or holds more "
                "than tensors: remove its checkpoint"
            ) from error
        except RuntimeError as error:  # of other shapes, or a damaged file
            message = " ".join(str(error).split())[:200]
            raise InputError(
                f"{folder / 'save'} has no {name} as {path} says: {message}"
            ) from error
        if not all(value.isfinite().all() for value in state.values()):
            raise InputError(
                f"{folder / 'save'} has values in {name} that are not finite: "
                "its training has diverged"
            )
    return modules


def _text(nodes: dict[str, Any], names: Sequence[str]) -> str:
    """Some entries as a file of their own."""
    text = io.StringIO()
    ruamel.yaml.YAML().dump({name: nodes.get(name) for name in names}, text)
    return text.getvalue()


def _read_labels(path: pathlib.Path) -> list[str]:
    """The speakers in the order of the outputs."""
    if not path.is_file():
        raise InputError(f"{path} is missing: it says whose the centres are")
    encoder = CategoricalEncoder()
    try:
        encoder.load(path)
        return [encoder.ind2lab[i] for i in range(len(encoder.ind2lab))]
    except (KeyError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{path} is no list of speakers as SpeechBrain writes it: copy it "
            "anew from where it trained"
        ) from error


def read_log(path: str | pathlib.Path) -> dict:
    """Reads the train log that SpeechBrain's FileTrainLogger writes.

    Arguments
    ---------
    path : str or pathlib.Path
        A line an epoch: ``epoch: 1, lr: 1.00e-03 - train loss: 9.64 - valid
        loss: 8.20, valid ErrorRate: 6.72e-01``. Other lines, and values that
        are no numbers, are passed over. Of an epoch that is there twice, as
        in a run that was killed and went on, the last one counts.

    Returns
    -------
    log : dict
        Name as in the file -> values, shape [epochs], float64; NaN where an
        epoch has none. "epoch" is among them.

    Raises
    ------
    InputError
        If the file is missing, or has no epoch.

    Example
    -------
    >>> path = getfixture("tmpdir") / "train_log.txt"
    >>> line = "epoch: 1, lr: 1.00e-03 - train loss: 9.64 - valid loss: 8.20"
    >>> path.write_text(line, encoding="utf-8")
    >>> {name: values.tolist() for name, values in read_log(path).items()}
    {'epoch': [1.0], 'lr': [0.001], 'train loss': [9.64], 'valid loss': [8.2]}
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no log of a training")
    epochs = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        values = {}
        for item in line.replace(" - ", ", ").split(", "):
            name, colon, value = item.rpartition(": ")
            try:
                values[name] = float(value)
            except ValueError:
                continue
        if line.startswith("epoch: ") and "epoch" in values:
            epochs[values["epoch"]] = values
    if not epochs:
        raise InputError(f"{path} has no line 'epoch: ...': train first")
    rows = [epochs[epoch] for epoch in sorted(epochs)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: np.array([row.get(name, np.nan) for row in rows])
        for name in names
    }


def differ_by_seed_only(first: Trained, second: Trained) -> bool:
    """Whether two runs are of the same settings and speakers.

    Arguments
    ---------
    first, second : Trained

    Returns
    -------
    same : bool
    """
    if sorted(first.speakers) != sorted(second.speakers):
        return False
    # The check of the settings takes classes by their names alone.
    if len({_text(run.nodes, _LOSS) for run in (first, second)}) > 1:
        return False
    try:
        check_same_run(
            first.folder / HPARAMS, {}, second.folder, MAY_CHANGE | {"seed"}
        )
    except InputError:
        return False
    return True


def embed_training(
    trained: Trained, data_folder: str | pathlib.Path, device: str = "cpu"
) -> tuple[Points, list[str]]:
    """Embeds the training utterances, or finds them embedded.

    The encoder's entries of hyperparams.yaml are evaluated, see
    ``read_trained``. Embeddings are kept in ``<folder>/embeddings``.

    Arguments
    ---------
    trained : Trained
        Of a hyperbolic head.
    data_folder : str or pathlib.Path
        Where the corpus is now.
    device : str

    Returns
    -------
    points : geometry.Points
        vectors [utterances, D].
    speakers : list of str
        Of each utterance.

    Raises
    ------
    InputError
        If a file is missing or can't be embedded.
    """
    table = trained.folder / "save" / "train.csv"
    if not table.is_file():
        raise InputError(
            f"{table} is missing: it lists the training utterances"
        )
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    data_folder = pathlib.Path(data_folder)
    before = pathlib.Path(str(trained.nodes.get("data_folder")))
    paths = {}
    for row in rows:
        path = pathlib.Path(row["wav"])
        if path.is_relative_to(before):
            path = data_folder / path.relative_to(before)
        paths[row["ID"]] = path
    modules = _load(trained.folder, trained.nodes, _ENCODER)
    encoder = Encoder(
        **{name: modules[name] for name in _ENCODER}, device=device
    )
    embeddings = extract(
        encoder,
        paths,
        trained.nodes.get("sample_rate", 16000),
        cache_folder=trained.folder / "embeddings",
    )
    with torch.no_grad():
        x = embeddings.views
        for block in trained.head.blocks:
            x = block(x)
        points = trained.similarity.points(x.squeeze(1), embeddings=True)
    return points, [row["spk_id"] for row in rows]
