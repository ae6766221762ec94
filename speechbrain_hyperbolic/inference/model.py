"""A speaker model as two files that run no code: JSON and safetensors.

``config.json`` names the classes of the model's three modules with plain
arguments, and the measured thresholds; ``model.safetensors`` holds the weights
of its encoder. Loading builds only classes that are trusted, so a stranger's
model can fail to load but cannot do anything else. The stock
``SpeakerRecognition.from_hparams`` loads the folder without this package from
``hyperparams.yaml`` and ``embedding_model.ckpt``, which are never read here.
"""

import contextlib
import hashlib
import importlib
import json
import pathlib
from collections.abc import Iterable

import safetensors
import safetensors.torch
import torch

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path, existing
from speechbrain_hyperbolic.errors import InputError, message_of
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
    read_config,
    shorten,
)

WEIGHTS = "model.safetensors"
STOCK_YAML = "hyperparams.yaml"
STOCK_WEIGHTS = "embedding_model.ckpt"
# The classes that a model may name: they take plain arguments, and neither read
# nor write files, but that WavLMEncoder reads one of Microsoft's models or a
# folder. ``trusted=[...]`` adds others.
TRUSTED = (
    "torch.nn.Identity",
    "speechbrain.lobes.features.Fbank",
    "speechbrain.lobes.features.MFCC",
    "speechbrain.processing.features.InputNormalization",
    "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
    "speechbrain.lobes.models.Xvector.Xvector",
    "speechbrain.lobes.models.ResNet.ResNet",
    "speechbrain_hyperbolic.WavLMEncoder",
)
_STOCK = """\
# For SpeakerRecognition.from_hparams of stock SpeechBrain
{modules}
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: false
# The stock class's own is for 16 kHz.
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: {sample_rate}
# Ignored by the stock class; ours takes score and thresholds from it.
model_config: {config}

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
    """The three modules by name, in evaluation mode, with random weights."""
    allowed = (*TRUSTED, *trusted)
    return {name: _build(config, name, allowed).eval() for name in MODULES}


def save_model(
    folder: StrPath, config: ModelConfig, state: dict[str, torch.Tensor]
) -> None:
    """Writes a model folder from a config and the encoder's state dict.

    All classes of the caller's config are trusted. If the model can't embed
    audio, an InputError is raised and nothing is written.
    """
    folder = pathlib.Path(folder)
    # Copies, since safetensors refuses tensors that share memory
    state = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in state.items()
    }
    _assemble(config, state, config.classes)
    # All files are complete before the first takes its name.
    with contextlib.ExitStack() as stack:
        config_path, weights_path, yaml_path, checkpoint_path = (
            stack.enter_context(atomic_path(folder / name))
            for name in (CONFIG, WEIGHTS, STOCK_YAML, STOCK_WEIGHTS)
        )
        text = json.dumps(config.to_dict(), indent=2) + "\n"
        config_path.write_text(text, encoding="utf-8")
        # Its own writer raises no OSError.
        weights = safetensors.torch.save(state, {"format": "pt"})
        weights_path.write_bytes(weights)
        yaml_path.write_text(_stock_yaml(config), encoding="utf-8")
        torch.save(state, checkpoint_path)


def load_model(
    folder: StrPath, trusted: Iterable[str] = ()
) -> tuple[ModelConfig, dict[str, torch.nn.Module]]:
    """The config and the modules of a model folder, on the CPU.

    Only ``config.json`` and ``model.safetensors`` are read, and only classes in
    ``TRUSTED`` and ``trusted`` are built, with the arguments that the model
    gives. Files that are missing, damaged or do not match raise an InputError.
    """
    folder = pathlib.Path(folder)
    config = read_config(folder)
    state, _ = read_tensors(folder / WEIGHTS)
    try:
        return config, _assemble(config, state, (*TRUSTED, *trusted))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def pretrained_module(
    folder: StrPath, name: str, trusted: Iterable[str] = ()
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

    Example
    -------
    >>> pretrained_module("results/model", "embedding_model")
    Traceback (most recent call last):
    speechbrain_hyperbolic.errors.InputError: results/model/config.json is \
missing: expected a model folder, of a run or an export
    """
    _, modules = load_model(folder, trusted)
    return modules[name]


def read_tensors(
    path: StrPath,
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    path = existing(path, "file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Copies, since the file is memory-mapped and might change
            tensors = {
                name: file.get_tensor(name).clone()
                for name in file.keys()  # noqa: SIM118, it is no dict
            }
            return tensors, file.metadata() or {}
    except Exception as error:  # a damaged file can raise almost anything
        raise InputError(
            f"{path} is not a complete safetensors file ({message_of(error)}): "
            "download or make it again"
        ) from error


def check_device(name: str | None) -> str:
    """The type of a device that PyTorch can use (None: a GPU, if any)."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise RuntimeError("it finds no GPU")
        torch.zeros(1, device=name).cpu()  # "meta" has no values
        return torch.device(name).type
    except (AssertionError, RuntimeError) as error:
        raise InputError(
            f"device is {name}, which PyTorch can't use ({message_of(error)}): "
            "leave it out, or pass --device=cpu"
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
    modules = {name: _build(config, name, allowed) for name in MODULES[:2]}
    for name, module in modules.items():
        if list(module.parameters()):
            raise InputError(
                f"{name} has weights, expected only embedding_model to have any"
            )
    # Huge layers take no memory on "meta", but a user's own class may compute
    # with its weights when it is made.
    is_stock = config.embedding_model["class"] in TRUSTED
    device = "meta" if is_stock else "cpu"
    encoder = _build(config, "embedding_model", allowed, device)
    modules["embedding_model"] = encoder
    try:
        encoder.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"{WEIGHTS} does not fit the embedding_model of {CONFIG} "
            f"({message_of(error)}): export the model again"
        ) from error
    encoder.float()
    samples = int(SHORTEST * config.sample_rate)
    noise = torch.linspace(0, 1000, samples).sin()[None] / 10
    try:  # modules that can be built may still not work together
        embedding = Encoder(**modules)(noise)  # type: ignore[arg-type]
    except Exception as error:
        raise InputError(
            f"the model can't embed {SHORTEST} s of audio "
            f"({type(error).__name__}: {message_of(error)}): check sample_rate "
            f"and the modules' arguments in {CONFIG}"
        ) from error
    if not embedding.isfinite().all():
        raise InputError(
            "the model's embeddings are not finite: its training has diverged"
        )
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
    # Wrong arguments make constructors raise anything, even AssertionError.
    except Exception as error:
        raise InputError(
            f"{name}: {short_name} can't be built from {shorten(arguments)} "
            f"({type(error).__name__}: {message_of(error)}): expected the "
            "arguments of that class"
        ) from error


def _stock_yaml(config: ModelConfig) -> str:
    """The file that the stock class loads; JSON values are also YAML."""
    modules = ""
    for name in MODULES:
        arguments = dict(getattr(config, name))
        modules += f"{name}: !new:{arguments.pop('class')}\n"
        for key, value in arguments.items():
            value = json.dumps(value, ensure_ascii=False)
            modules += f"    {key}: {value}\n"
    config_json = json.dumps(config.to_dict(), ensure_ascii=False)
    return _STOCK.format(
        modules=modules, sample_rate=config.sample_rate, config=config_json
    )
