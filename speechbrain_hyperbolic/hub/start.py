"""What a fine-tuning takes from the model that it starts from."""

import json
import os
import pathlib
from collections.abc import Collection
from typing import Any

from huggingface_hub import snapshot_download
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.errors import InputError, shown
from speechbrain_hyperbolic.hparams import HPARAMS, read_nodes
from speechbrain_hyperbolic.hub.run_folder import class_of, read_module
from speechbrain_hyperbolic.inference.download import explain_errors
from speechbrain_hyperbolic.inference.model import TRUSTED

logger = get_logger(__name__)

_ENCODER = ("compute_features", "embedding_model")
# The keys from which an hparams file makes these
_SIZES = ("n_mels", "emb_dim", "channels", "sample_rate")


def options_of_start(settings: dict[str, Any], given: Collection[str]) -> str:
    """Overrides in YAML: the encoder of ``pretrain_path``, unless given."""
    name = str(settings["pretrain_path"])
    path = _find(name)
    options = f"pretrain_path: {json.dumps(str(path))}"
    # Of a model, or of the run that a save folder or a checkpoint is in
    sources = [folder / HPARAMS for folder in (path, *path.parents[:2])]
    source = next(filter(pathlib.Path.is_file, sources), sources[0])
    if {*_ENCODER, *_SIZES}.intersection(given) or not source.is_file():
        return options
    nodes = read_nodes(source)
    classes = [class_of(nodes.get(key)) for key in _ENCODER]
    strange = [kind for kind in classes if kind and kind not in TRUSTED]
    if strange and not os.path.isdir(name):  # from the Hub
        raise InputError(
            f"pretrain_path {name} names {shown(strange[0])}, which may be any "
            f"code: look at its {HPARAMS}, and pass a downloaded folder"
        )
    try:
        features, encoder = (read_module(source, nodes, k) for k in _ENCODER)
    except InputError as error:
        logger.warning(f"{error}. The encoder is that of the hparams file.")
        return options
    sizes = {
        "n_mels": features.get("n_mels"),
        "sample_rate": features.get("sample_rate"),
        "emb_dim": encoder.get("lin_neurons"),
        "channels": (encoder.get("channels") or [None])[0],
    }
    for key, value in sizes.items():
        if key in settings and value is not None:
            options += f"\n{key}: {value}"
    for key, module in zip(_ENCODER, (features, encoder), strict=True):
        # JSON is also YAML.
        options += f"\n{key}: !new:{module.pop('class')} {json.dumps(module)}"
    logger.info(f"The encoder is that of {source}.")
    return options


def _find(name: str) -> pathlib.Path:
    """The folder with the weights."""
    if (path := pathlib.Path(name)).is_dir():
        return path / "save" if (path / "save").is_dir() else path
    if name.count("/") != 1 or name.startswith((".", "~", os.sep)):
        raise InputError(
            f"pretrain_path is {name}, which is no folder: expected a model "
            "folder, the output folder of a run, or user/model on the Hub"
        )
    with explain_errors(
        f"pretrain_path {name} is not a folder, and can't be downloaded"
    ):
        files = [HPARAMS, "*.ckpt"]
        return pathlib.Path(snapshot_download(name, allow_patterns=files))
