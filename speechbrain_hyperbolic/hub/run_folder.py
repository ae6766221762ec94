"""What the files of a training run say: its modules, its loss, its data.

The YAML is read as nodes and never executed.
"""

import inspect
import io
import json
import pathlib
import pydoc
import re
from collections.abc import Iterator
from typing import Any

import ruamel.yaml

from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import tag_of
from speechbrain_hyperbolic.training.checks import TRAIN_LOG

_HYPERBOLIC = {"clip", "exponential", "smooth_cap"}
_AUGMENTATIONS = {
    "Augmenter": "",
    "SpeakerAugmenter": "reverberation, noise, music or babble",
}
# Outputs of the classifier, and margins other than 0
_LOSSES = {
    "distance": "H-Softmax",
    "distance AdditiveMargin": "HAM-Softmax",
    "cosine": "cosine softmax",
    "cosine AdditiveMargin": "AM-Softmax",
    "cosine AngularMargin": "AM-Softmax",  # SpeechBrain's name
    "cosine AdditiveAngularMargin": "AAM-Softmax",
    "cosine RealAdditiveMargin": "RAM-Softmax",
    "distance AngularMargin": "HAM-Softmax",
    "inner_product": "softmax",
    "inner_product AdditiveMargin": "AM-Softmax",
    "cosine distance": "E.H. Softmax",
    "cosine distance AdditiveMargin RealAdditiveMargin": "E.H. AM-Softmax",
}


def read_module(path: pathlib.Path, nodes: dict, key: str) -> dict[str, Any]:
    """A module as a ``ModelConfig`` has it: its class and plain arguments."""
    node: Any = nodes.get(key)
    if class_of(node).endswith(".MaskedNormalization"):
        node = node["normalization"]  # the masks are for training only
    name = class_of(node)
    built_by = pydoc.locate(name) if name else None
    if not isinstance(built_by, type) or isinstance(node, list):
        raise InputError(
            f"{path}: {key} is {tag_of(node) or node}, expected !new: with a "
            "class and named arguments: other models cannot be exported"
        )
    default = "global" if name.endswith(".InputNormalization") else None
    arguments = _arguments(node)
    if arguments.get("norm_type", default) == "global":
        raise InputError(
            f"{path}: {key} has norm_type global, expected sentence: the "
            "statistics of a run are not exported"
        )
    parameters = inspect.signature(built_by).parameters
    module: dict[str, Any] = {"class": name}
    for argument, value in arguments.items():
        # The stock x-vector files name a class that is the default anyway.
        kind, _, named = tag_of(value).partition(":")
        if kind == "!name" and argument in parameters:
            if pydoc.locate(named) is parameters[argument].default:
                continue
        module[str(argument)] = _plain(value, f"{path}: {argument} of {key}")
    return module


def _plain(node: Any, name: str) -> Any:
    """A YAML node as Python's own numbers, text and lists."""
    plain = str | int | float | list | None
    if any(tag_of(n) or not isinstance(n, plain) for n in _walk(node)):
        raise InputError(
            f"{name} is {tag_of(node) or node}, expected numbers, text or "
            "lists of them: other models cannot be exported"
        )
    return json.loads(json.dumps(node))


def save_folder(run_folder: pathlib.Path, nodes: dict) -> pathlib.Path:
    """The folder with the checkpoints, even if the run has moved since."""
    path = pathlib.Path(nodes.get("save_folder", run_folder / "save"))
    output = nodes.get("output_folder")
    if output and path.is_relative_to(output):
        return run_folder / path.relative_to(output)
    return path


def clip_c(nodes: dict) -> float | None:
    """The c of the loss, None if it has no clip."""
    for node in _walk(nodes.get("classifier")):
        if _map(node) == "clip":
            return float(_arguments(node).get("c", 3.0))
    return None


def describe_training(
    run_folder: pathlib.Path, nodes: dict
) -> tuple[dict[str, Any], set[str]]:
    """What the card says about the training, and the speakers' names."""
    log = run_folder / TRAIN_LOG
    text = log.read_text(encoding="utf-8")
    ended = re.findall(r"^epoch: (\d+)", text, re.MULTILINE)
    if not ended:
        raise InputError(f"{log} has no epochs, expected a finished run")
    path = save_folder(run_folder, nodes) / "train.csv"
    if not path.is_file():  # a table of the user's own
        path = pathlib.Path(nodes.get("train_annotation", path))
    rows = [row for _, row in read_table(path, ("spk_id", "duration"))]
    speakers = {row["spk_id"] for row in rows}
    maps = {_map(node) for node in _walk(nodes["classifier"])}
    built = [_short(n) for n in _walk(nodes.get("wav_augment")) if class_of(n)]
    augment = [_AUGMENTATIONS.get(name, name) for name in built]
    training = {
        "loss": loss_name(nodes["classifier"], nodes["compute_cost"]),
        "loss_yaml": _yaml(nodes, "classifier", "compute_cost"),
        "hyperbolic": bool(maps & _HYPERBOLIC),
        "clip_c": clip_c(nodes),
        "speakers": len(speakers),
        "utterances": len(rows),
        "hours": sum(float(row["duration"]) for row in rows) / 3600,
        "epochs": int(ended[-1]),
        "averaged": min(int(nodes.get("epochs_to_average", 1)), int(ended[-1])),
        "crop": float(nodes["sentence_len"]),
        "batch_size": int(nodes["batch_size"]),
        "augmentation": ", ".join(filter(None, dict.fromkeys(augment))),
        "fine_tuned": nodes.get("pretrain_path") is not None,
    }
    return training, speakers


def loss_name(classifier: Any, cost: Any) -> str:
    """The usual name of a loss, or that of its class."""
    maps = {_map(node) for node in _walk(classifier)} - {""}
    outputs = {"distance" if m in _HYPERBOLIC else m for m in maps}
    margins = set()
    for node in _walk(cost):
        if _short(node).endswith("Margin"):
            default = 0.0 if class_of(node).startswith("speechbrain.") else 0.2
            if _arguments(node).get("margin", default) != 0:
                margins.add(_short(node))
    name = " ".join([*sorted(outputs), *sorted(margins)])
    return _LOSSES.get(name, _short(cost))


def class_of(node: Any) -> str:
    """The class that a !new: node builds, "" for any other node."""
    kind, _, name = tag_of(node).partition(":")
    return name if kind == "!new" else ""


def _short(node: Any) -> str:
    return tag_of(node).rpartition(".")[2]


def _arguments(node: Any) -> dict:
    return node if isinstance(node, dict) else {}


def _walk(node: Any) -> Iterator[Any]:
    """A node and all nodes in it."""
    yield node
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _walk(child)


def _map(node: Any) -> str:
    """The map of a HyperbolicClassifier, or what a stock classifier has."""
    name = class_of(node)
    if name.endswith(".HyperbolicClassifier"):
        return _arguments(node).get("map", "clip")
    if name == "speechbrain.lobes.models.ECAPA_TDNN.Classifier":
        return "cosine"
    return "inner_product" if name.endswith("Xvector.Classifier") else ""


def _yaml(nodes: dict, *keys: str) -> str:
    """Some keys as they stood in the hparams file, resolved."""
    file = io.StringIO()
    for key in keys:
        if hasattr(nodes[key], "yaml_set_anchor"):
            nodes[key].yaml_set_anchor(None)
        ruamel.yaml.YAML().dump({key: nodes[key]}, file)
    lines = file.getvalue().splitlines()
    return "\n".join(x for x in lines if x.strip() and x.strip()[0] != "#")
