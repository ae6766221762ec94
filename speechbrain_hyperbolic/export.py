"""From a training run to a folder that the stock SpeakerRecognition loads."""

import pathlib
from typing import Any

import ruamel.yaml
import torch

from speechbrain_hyperbolic.checkpoints import average_epochs
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.hparams import resolve

_HEADER = """\
# ################################
# Speaker encoder. Load it with stock SpeechBrain:
#   from speechbrain.inference.speaker import SpeakerRecognition
#   SpeakerRecognition.from_hparams(source="this folder")
# ################################
"""

_MODULES = """\
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


def export_model(
    hparams_file: str | pathlib.Path,
    overrides: str,
    hparams: dict,
    folder: str | pathlib.Path,
) -> pathlib.Path:
    """Writes ``embedding_model.ckpt`` and ``hyperparams.yaml``.

    The encoder is the mean of the last epochs. The YAML names stock classes
    only, so that the folder loads without this package.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        The training file: of its keys ``compute_features``, ``input_norm``
        and the chosen one of ``encoders`` are taken.
    overrides : str
        As given to the training.
    hparams : dict
        The file as loaded, for ``save_folder`` and ``epochs_to_average``.
    folder : str or pathlib.Path

    Returns
    -------
    folder : pathlib.Path
    """
    folder = pathlib.Path(folder)
    state = average_epochs(hparams["save_folder"], hparams["epochs_to_average"])
    resolved = resolve(hparams_file, overrides)
    nodes = {
        "compute_features": resolved["compute_features"],
        "mean_var_norm": resolved["input_norm"],
        "embedding_model": _built(resolved),
    }
    with atomic_path(folder / "embedding_model.ckpt") as temporary:
        torch.save(state, temporary)
    write_hyperparams(nodes, folder / "hyperparams.yaml")
    return folder


def write_hyperparams(nodes: dict, path: str | pathlib.Path) -> None:
    """Writes the YAML file that the stock SpeakerRecognition loads.

    Arguments
    ---------
    nodes : dict
        "compute_features", "mean_var_norm", "embedding_model" and whatever
        else -> YAML nodes with !new: tags, such as ``stock_node`` gives.
    path : str or pathlib.Path
    """
    yaml = ruamel.yaml.YAML()
    with atomic_path(path) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(_HEADER)
            for key, node in nodes.items():
                node.yaml_set_anchor(None)
                yaml.dump({key: node}, file)
            file.write(_MODULES)


def stock_node(
    class_name: str, arguments: dict
) -> ruamel.yaml.comments.CommentedMap:
    """A YAML node that builds an object.

    Arguments
    ---------
    class_name : str
        With its module.
    arguments : dict
        By name, of what JSON can hold.

    Returns
    -------
    node : ruamel.yaml.comments.CommentedMap

    Example
    -------
    >>> node = stock_node("torch.nn.Linear", {"in_features": 80})
    >>> node.tag.value, dict(node)
    ('!new:torch.nn.Linear', {'in_features': 80})
    """
    node = ruamel.yaml.comments.CommentedMap()
    for key, value in arguments.items():
        if isinstance(value, list):
            value = ruamel.yaml.comments.CommentedSeq(value)
            value.fa.set_flow_style()
        node[key] = value
    node.yaml_set_ctag(ruamel.yaml.Tag(suffix=f"!new:{class_name}"))
    return node


def _built(resolved: dict[str, Any]) -> Any:
    """The node of the encoder as an object, which is a !name: among others."""
    node = resolved["encoders"][resolved["encoder"]]
    node.yaml_set_ctag(
        ruamel.yaml.Tag(suffix=node.tag.value.replace("!name:", "!new:", 1))
    )
    return node
