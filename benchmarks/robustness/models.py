"""Trained encoders and their maps, from the output folders of the recipe.

Their YAML is read, not evaluated.
"""

import json
import pathlib
from typing import NamedTuple

from speechbrain_hyperbolic.checkpoints import (
    AveragedPretrainer,
    average_epochs,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import read_nodes, tag_of
from speechbrain_hyperbolic.inference.model_folder import (
    ModelConfig,
    build_modules,
)
from speechbrain_hyperbolic.lobes.similarity import (
    ClippedDistance,
    ExactDistance,
    HyperbolicSimilarity,
    SmoothDistance,
)

_ENCODERS = {"ECAPA_TDNN": "ecapa", "Xvector": "xvector", "ResNet": "resnet"}
_NORMALISATION = {"norm_type": "sentence", "std_norm": False}
_MAPS = {
    kind.__name__: kind
    for kind in (ClippedDistance, ExactDistance, SmoothDistance)
}


class Model(NamedTuple):
    """A trained encoder.

    Arguments
    ---------
    name : str
        Of the output folder.
    loss : str
        The name without its seed.
    seed : int
        None where the name has none.
    front_end : tuple of int
        Sample rate and number of mel bands.
    modules : dict
        As ``inference.model_folder.build_modules`` gives.
    """

    name: str
    loss: str
    seed: int | None
    front_end: tuple
    modules: dict


def load_model(folder):
    """Loads the encoder of a training run.

    Arguments
    ---------
    folder : str or pathlib.Path
        An output folder of train_speaker_embeddings.py, named LOSS.SEED.

    Returns
    -------
    model : Model

    Raises
    ------
    InputError
        If a file is missing, or the model is not of the stock's encoders and
        features.
    """
    folder = pathlib.Path(folder)
    path = folder / "model" / "hyperparams.yaml"
    if not path.is_file():
        raise InputError(
            f"{path} is missing: expected the output folder of "
            "train_speaker_embeddings.py, after its end"
        )
    nodes = read_nodes(path)
    features = _arguments(path, nodes, "compute_features", ["Fbank"])
    normalisation = _arguments(
        path, nodes, "mean_var_norm", ["InputNormalization"]
    )
    if normalisation != _NORMALISATION or not features.keys() <= {
        "n_mels",
        "sample_rate",
    }:
        raise InputError(
            f"{path} has the features {features} and {normalisation}, expected "
            f"n_mels and sample_rate alone, and {_NORMALISATION}"
        )
    arguments = _arguments(path, nodes, "embedding_model", _ENCODERS)
    kind = _class(nodes["embedding_model"])
    config = ModelConfig(
        # The stock's defaults
        features.get("sample_rate", 16000),
        features.get("n_mels", 40),
        _ENCODERS[kind],
        arguments,
    )
    modules = build_modules(config)
    AveragedPretrainer(
        folder / "model",
        loadables={"embedding_model": modules["embedding_model"]},
    ).load_collected()
    name = folder.resolve().name
    return Model(
        name,
        *loss_and_seed(name),
        (config.sample_rate, config.n_mels),
        modules,
    )


def load_map(folder):
    """The map from embeddings to hyperbolic space with which a run trained.

    Arguments
    ---------
    folder : str or pathlib.Path
        As ``load_model``.

    Returns
    -------
    similarity : HyperbolicSimilarity
        With what it learnt; that of the first hyperbolic head. None: the run
        has none.

    Raises
    ------
    InputError
        If the head has layers of its own before the map.
    """
    folder = pathlib.Path(folder)
    path = folder / "hyperparams.yaml"
    found = _find_map(read_nodes(path).get("classifier"))
    if found is None:
        return None
    head, similarity = found
    if head.get("lin_blocks"):
        raise InputError(
            f"{path}: the classifier has lin_blocks, expected none: its map is "
            "of what they make of an embedding"
        )
    if similarity.state_dict():
        count = read_nodes(path).get("epochs_to_average", 5)
        state = average_epochs(folder / "save", count, "classifier")
        similarity.load_state_dict(
            {
                key.rpartition("similarity.")[2]: value
                for key, value in state.items()
                if "similarity." in key
            }
        )
    return similarity.eval()


def loss_and_seed(name):
    """Of the name of an output folder, LOSS.SEED; None: it has no seed."""
    loss, dot, seed = name.rpartition(".")
    return (loss, int(seed)) if dot and seed.isdecimal() else (name, None)


def _class(node):
    return tag_of(node).rpartition(".")[2]


def _arguments(path, nodes, key, classes):
    """Those of a class, as JSON has them."""
    node = nodes.get(key)
    if _class(node) not in classes or not isinstance(node, dict):
        raise InputError(
            f"{path}: {key} is {tag_of(node) or node}, expected "
            f"{' or '.join(classes)} with arguments by name"
        )
    return json.loads(json.dumps(node))


def _find_map(node):
    """The node of the first hyperbolic head, and its similarity."""
    if isinstance(node, list):
        return next(filter(None, map(_find_map, node)), None)
    if not isinstance(node, dict):
        return None
    if _class(node) == "HyperbolicClassifier":
        return node, ClippedDistance(float(node.get("c", 3.0)))
    inner = node.get("similarity")
    if _class(inner) in _MAPS:
        return node, _build(inner)
    return next(filter(None, map(_find_map, node.values())), None)


def _build(node) -> HyperbolicSimilarity:
    arguments = json.loads(json.dumps(node))
    kind = _MAPS[_class(node)]
    if isinstance(arguments, dict):
        return kind(**arguments)
    return kind(*arguments)
