"""A speaker model as two files that run no code: JSON and safetensors.

``config.json`` names the classes of the model's three modules with plain
arguments, and the thresholds that were measured; ``model.safetensors`` holds
the weights of its encoder. Loading builds only classes that are trusted, so a
stranger's model can fail to load but cannot do anything else. Beside the two
files lie ``hyperparams.yaml`` and ``embedding_model.ckpt``, by which the stock
``SpeakerRecognition.from_hparams`` loads the folder without this package; they
are never read here.
"""

import contextlib
import hashlib
import importlib
import json
import pathlib
from collections.abc import Iterable, Iterator

import safetensors
import safetensors.torch
import torch

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import (
    SHORTEST,
    Encoder,
    weights_fingerprint,
)
from speechbrain_hyperbolic.inference.config import (
    CONFIG,
    MODULES,
    ModelConfig,
    Thresholds,  # noqa: F401, people look for it here
    measure_thresholds,  # noqa: F401
    one_line,
    read_config,
    shorten,
)

WEIGHTS = "model.safetensors"
STOCK_YAML = "hyperparams.yaml"
STOCK_WEIGHTS = "embedding_model.ckpt"
# The classes that a model may name. They take plain arguments only, and read
# and write no files. ``trusted=[...]`` adds others.
TRUSTED = (
    "speechbrain.lobes.features.Fbank",
    "speechbrain.lobes.features.MFCC",
    "speechbrain.processing.features.InputNormalization",
    "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
    "speechbrain.lobes.models.Xvector.Xvector",
    "speechbrain.lobes.models.ResNet.ResNet",
)
_STOCK_HEADER = """\
# ################################
# Speaker encoder, for stock SpeechBrain:
#   from speechbrain.inference.speaker import SpeakerRecognition
#   SpeakerRecognition.from_hparams(source="this folder")
# ################################
"""
_STOCK_FOOTER = """\
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


def build_modules(
    config: ModelConfig, trusted: Iterable[str] = ()
) -> dict[str, torch.nn.Module]:
    """The three modules by name, in evaluation mode, with random weights.

    A class that is neither in ``TRUSTED`` nor in ``trusted``, or that does not
    take the arguments, raises an InputError.
    """
    allowed = (*TRUSTED, *trusted)
    return {name: _build(config, name, allowed).eval() for name in MODULES}


def save_model(
    folder: str | pathlib.Path,
    config: ModelConfig,
    state: dict[str, torch.Tensor],
) -> None:
    """Writes a model folder: our two files and the two of the stock class.

    ``state`` is the state dict of the encoder. The classes that the caller's
    config names are trusted. An InputError is raised, and nothing is written,
    if the weights do not fit the config or are not finite, or if the model
    cannot embed audio.
    """
    folder = pathlib.Path(folder)
    # Copies, since safetensors refuses tensors that share memory
    state = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in state.items()
    }
    own = [getattr(config, name)["class"] for name in MODULES]
    with _naming(folder):
        _assemble(config, state, own)
    try:
        # All are complete before the first takes its name.
        with contextlib.ExitStack() as stack:
            config_path, weights_path, yaml_path, checkpoint_path = (
                stack.enter_context(atomic_path(folder / name))
                for name in (CONFIG, WEIGHTS, STOCK_YAML, STOCK_WEIGHTS)
            )
            config_path.write_text(
                json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8"
            )
            safetensors.torch.save_file(state, weights_path, {"format": "pt"})
            yaml_path.write_text(_stock_yaml(config), encoding="utf-8")
            torch.save(state, checkpoint_path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{folder} can't be written ({one_line(error)}): make room there "
            "or choose another folder"
        ) from error


def load_model(
    folder: str | pathlib.Path, trusted: Iterable[str] = ()
) -> tuple[ModelConfig, dict[str, torch.nn.Module]]:
    """The config and the modules of a model folder, on the CPU.

    Only ``config.json`` and ``model.safetensors`` are read. A stranger's model
    is safe to load, since only classes in ``TRUSTED`` are built. ``trusted``
    names others, such as "my_package.MyEncoder"; they receive the arguments
    that the model gives. Files that are missing, damaged or do not fit one
    another raise an InputError.
    """
    folder = pathlib.Path(folder)
    config = read_config(folder)
    state, _ = read_tensors(folder / WEIGHTS)
    with _naming(folder):
        return config, _assemble(config, state, (*TRUSTED, *trusted))


def pretrained_module(
    folder: str | pathlib.Path, name: str, trusted: Iterable[str] = ()
) -> torch.nn.Module:
    """One module of a model folder, for YAML files.

    Arguments
    ---------
    folder : str or pathlib.Path
        With config.json and model.safetensors.
    name : str
        "compute_features", "mean_var_norm" or "embedding_model".
    trusted : list of str
        Full names of classes that it may have besides the stock ones.

    Returns
    -------
    module : torch.nn.Module
        In evaluation mode, on the CPU, with the weights of the model.

    Raises
    ------
    InputError
        If the folder holds no valid model, or there is no such module.

    Example
    -------
    >>> pretrained_module("results/model", "embedding_model")
    Traceback (most recent call last):
    speechbrain_hyperbolic.errors.InputError: results/model/config.json is \
missing: expected a model folder, as training and export make it
    """
    if name not in MODULES:
        raise InputError(f"module is {name!r}, expected one of {MODULES}")
    _, modules = load_model(folder, trusted)
    return modules[name]


def read_tensors(
    path: str | pathlib.Path,
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    if not pathlib.Path(path).is_file():
        raise InputError(f"{path} is missing: there is no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Copies: the file is mapped, and might change.
            tensors = {
                name: file.get_tensor(name).clone()
                for name in file.keys()  # noqa: SIM118, it is no dict
            }
            return tensors, file.metadata() or {}
    # Whatever a damaged or hostile file makes the parser raise
    except Exception as error:
        raise InputError(
            f"{path} is not a complete safetensors file ({one_line(error)}): "
            "download or make it again"
        ) from error


def fingerprint(config: ModelConfig, state: dict[str, torch.Tensor]) -> str:
    """A sha256 of all that decides a model's embeddings."""
    what = [getattr(config, name) for name in MODULES]
    what += [config.sample_rate, weights_fingerprint(state)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _assemble(
    config: ModelConfig, state: dict[str, torch.Tensor], allowed: Iterable[str]
) -> dict[str, torch.nn.Module]:
    """The modules with their weights, after they have embedded some audio."""
    name = config.embedding_model["class"]
    # Built without memory, the encoder takes that of the file's tensors. Other
    # classes may compute with their weights when they are made.
    device = "meta" if name in TRUSTED else "cpu"
    modules = {
        "compute_features": _build(config, "compute_features", allowed),
        "mean_var_norm": _build(config, "mean_var_norm", allowed),
        "embedding_model": _build(config, "embedding_model", allowed, device),
    }
    for key in MODULES[:2]:
        if list(modules[key].parameters()):
            raise InputError(
                f"{key} has weights, which are not kept: expected only "
                "embedding_model to be trained"
            )
    encoder = modules["embedding_model"]
    try:
        encoder.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"{WEIGHTS} does not fit the embedding_model of {CONFIG} "
            f"({one_line(error)}): export the model again"
        ) from error
    encoder.float()
    for key, value in encoder.state_dict().items():
        if not value.isfinite().all():
            raise InputError(
                f"{WEIGHTS}: {key} holds NaN or infinite weights: the model's "
                "training has diverged"
            )
    _embed_noise(config, modules)
    return modules


def _build(
    config: ModelConfig, name: str, allowed: Iterable[str], device: str = "cpu"
) -> torch.nn.Module:
    arguments = dict(getattr(config, name))
    class_name = arguments.pop("class")
    if class_name not in allowed:
        raise InputError(
            f"{name} is of the class {class_name}, expected one of "
            f"{', '.join(allowed)}: if you know and trust its code, pass "
            f"trusted=[{class_name!r}]"
        )
    package, _, short_name = class_name.rpartition(".")
    try:
        module_class = getattr(importlib.import_module(package), short_name)
        with torch.device(device):
            return module_class(**arguments)
    # Constructors meet wrong arguments by assertions, indices out of range, ...
    except Exception as error:
        raise InputError(
            f"{name}: {short_name} can't be built from {shorten(arguments)} "
            f"({type(error).__name__}: {one_line(error)}): expected the "
            "arguments of that class"
        ) from error


def _embed_noise(
    config: ModelConfig, modules: dict[str, torch.nn.Module]
) -> None:
    """Embeds the shortest audio: modules that build may still not work."""
    samples = int(SHORTEST * config.sample_rate)
    noise = torch.linspace(0, 1000, samples).sin()[None] / 10
    try:
        embedding = Encoder(**modules)(noise)  # type: ignore[arg-type]
    except Exception as error:
        raise InputError(
            f"the model can't embed {SHORTEST} s of audio "
            f"({type(error).__name__}: {one_line(error)}): check sample_rate "
            f"and the modules' arguments in {CONFIG}"
        ) from error
    if not embedding.isfinite().all():
        raise InputError(
            "the model's embeddings are not finite: its training has diverged"
        )


def _stock_yaml(config: ModelConfig) -> str:
    """The file that the stock class loads; JSON values are YAML, too."""
    nodes = {name: getattr(config, name) for name in MODULES}
    nodes["mean_var_norm_emb"] = {
        "class": "speechbrain.processing.features.InputNormalization",
        "norm_type": "global",
        "std_norm": False,
    }
    nodes["audio_normalizer"] = {  # the stock class's own is for 16 kHz
        "class": "speechbrain.dataio.preprocess.AudioNormalizer",
        "sample_rate": config.sample_rate,
    }
    text = _STOCK_HEADER
    for name, node in nodes.items():
        text += f"{name}: !new:{node['class']}\n"
        for key, value in node.items():
            if key != "class":
                value = json.dumps(value, ensure_ascii=False)
                text += f"    {key}: {value}\n"
    # Ignored by the stock class; ours takes score and thresholds from it.
    config_json = json.dumps(config.to_dict(), ensure_ascii=False)
    return f"{text}model_config: {config_json}\n\n{_STOCK_FOOTER}"


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
