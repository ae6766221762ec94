"""A speaker model as two files that run no code: JSON and safetensors.

``config.json`` says which stock encoder it is, with what arguments, and what
was measured of it; ``model.safetensors`` holds the encoder's weights. A file
from a stranger can do no more than be refused: nothing in it is evaluated,
and no weights are allocated before their size is known. (What an encoder takes
while it embeds depends on its shape, which is not bounded so.)
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.lobes.models.ResNet import ResNet
from speechbrain.lobes.models.Xvector import Xvector
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError, shown
from speechbrain_hyperbolic.metrics import P_TARGETS, eer, error_rates
from speechbrain_hyperbolic.scoring.extraction import (
    SHORTEST,
    Encoder,
    weights_fingerprint,
)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = "speechbrain-hyperbolic 1"
SCORES = ("cosine", "hyperbolic")
FALSE_ACCEPTS = (0.1, 0.01, 0.001)
# Of so many false accepts the true number is, at 95 %, within a factor of two.
_FEWEST_FALSE_ACCEPTS = 10

_MAX_PARAMETERS = 10**9
_MAX_LIST = 64
_MAX_TEXT = 1000
_MAX_CONFIG_BYTES = 2**20
# Ranges of integers: of a layer's width, and of what multiplies layers or time.
_WIDTH = (1, 2**13)
_FEW = (1, 64)
# Encoder -> its class, its argument for the number of mel bands, and what else
# it takes: a range is of an integer, a list of one is of a list of those.
_ENCODERS: dict[str, tuple[type[torch.nn.Module], str, dict[str, Any]]] = {
    "ecapa": (
        ECAPA_TDNN,
        "input_size",
        {
            "lin_neurons": _WIDTH,
            "channels": [_WIDTH],
            "kernel_sizes": [_FEW],
            "dilations": [_FEW],
            "groups": [_WIDTH],
            "attention_channels": _WIDTH,
            "res2net_scale": _FEW,
            "se_channels": _WIDTH,
            "global_context": bool,
            "dropout": float,
        },
    ),
    "xvector": (
        Xvector,
        "in_channels",
        {
            "lin_neurons": _WIDTH,
            "tdnn_blocks": _FEW,
            "tdnn_channels": [_WIDTH],
            "tdnn_kernel_sizes": [_FEW],
            "tdnn_dilations": [_FEW],
        },
    ),
    "resnet": (
        ResNet,
        "input_size",
        {
            "lin_neurons": _WIDTH,
            "channels": [_WIDTH],
            "block_sizes": [_FEW],
            "strides": [_FEW],
        },
    ),
}
_COUNTS = ("n_target", "n_nontarget")
_RATES = ("eer", *(f"min_dcf_{p:g}" for p in P_TARGETS))
_INTERVALS = tuple(f"{rate}_interval" for rate in _RATES)
_MOMENTS = tuple(
    f"{kind}_{moment}"
    for kind in ("target", "nontarget")
    for moment in ("mean", "std")
)
# (dtype, shape) of tensors by their names
_Outline = dict[str, tuple[str, tuple[int, ...]]]
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


class Thresholds(NamedTuple):
    """Where a score is accepted: above a threshold, as measured on trials.

    Arguments
    ---------
    eer : float
        That at the equal error rate.
    false_accepts : dict
        False-accept rate, as text such as "0.01" -> the lowest threshold that
        keeps to it.
    """

    eer: float
    false_accepts: dict[str, float]


class Modules(TypedDict):
    """The modules of a model.

    Arguments
    ---------
    compute_features : torch.nn.Module
    mean_var_norm : torch.nn.Module
    embedding_model : torch.nn.Module
    """

    compute_features: torch.nn.Module
    mean_var_norm: torch.nn.Module
    embedding_model: torch.nn.Module


def measure_thresholds(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> Thresholds:
    """Thresholds at the equal error rate and at some false-accept rates.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape [T], finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape [U], finite.

    Returns
    -------
    thresholds : Thresholds
        At those rates of 0.1, 0.01 and 0.001 that come to ten false accepts or
        more: 0.001 takes 10,000 nontarget trials.

    Raises
    ------
    InputError
        If a class has no scores, or one is not finite.

    Example
    -------
    >>> measure_thresholds([50, 150], range(100))
    Thresholds(eer=50.0, false_accepts={'0.1': 89.0})
    """
    _, at_eer = eer(target_scores, nontarget_scores)
    thresholds, _, p_fa = error_rates(target_scores, nontarget_scores)
    n_nontarget = np.size(nontarget_scores)
    return Thresholds(
        at_eer,
        {
            f"{rate:g}": float(thresholds[(p_fa <= rate).argmax()])
            for rate in FALSE_ACCEPTS
            # 1e-9: 0.1 * 100 is not to fail by its rounding
            if rate * n_nontarget >= _FEWEST_FALSE_ACCEPTS - 1e-9
        },
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What ``config.json`` says of a model.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    n_mels : int
        Number of mel bands.
    encoder : str
        "ecapa", "xvector" or "resnet".
    encoder_arguments : dict
        Of the constructor of the stock class.
    score : str
        "cosine" or "hyperbolic".
    clip_c : float
        Of the clip of training, at least 1.
    thresholds : Thresholds
        None: not measured.
    trials : dict
        Where the thresholds are from, any of: "list" (its name), "n_target",
        "n_nontarget", "eer", "min_dcf_0.01", "min_dcf_0.05" (fractions), each
        of these with "_interval" ([low, high] or None), "target_mean",
        "target_std", "nontarget_mean", "nontarget_std" (of the scores).

    Raises
    ------
    InputError
        If a value is of the wrong type or out of range; it names the field.

    Example
    -------
    >>> config = ModelConfig(
    ...     16000, 80, "resnet", {"input_size": 80, "lin_neurons": 192}
    ... )
    >>> ModelConfig.from_json(config.to_json(), "config.json") == config
    True
    """

    sample_rate: int
    n_mels: int
    encoder: str
    encoder_arguments: dict[str, Any]
    score: str = "cosine"
    clip_c: float = 3.0
    thresholds: Thresholds | None = None
    trials: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_integer("sample_rate", self.sample_rate, (1000, 192000))
        _check_integer("n_mels", self.n_mels, (1, 512))
        _check_choice("encoder", self.encoder, _ENCODERS)
        _check_choice("score", self.score, SCORES)
        if not (_is_number(self.clip_c) and 1 <= self.clip_c <= 1e6):
            raise _wrong("clip_c", self.clip_c, "a number from 1 to 1000000")
        _check_encoder(self.encoder, self.encoder_arguments, self.n_mels)
        if self.thresholds is not None:
            _check_thresholds(self.thresholds)
        if self.trials is not None:
            _check_trials(self.trials)

    def to_json(self) -> str:
        """The text of ``config.json``.

        Returns
        -------
        text : str
        """
        fields = {"format": FORMAT, **dataclasses.asdict(self)}
        if self.thresholds is not None:
            fields["thresholds"] = self.thresholds._asdict()
        return json.dumps(fields, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str | pathlib.Path) -> "ModelConfig":
        """Reads what ``to_json`` gave.

        Arguments
        ---------
        text : str
        name : str or pathlib.Path
            Of the file, for the messages.

        Returns
        -------
        config : ModelConfig

        Raises
        ------
        InputError
            If it is no such JSON; it names the file and the field.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{name} is not JSON ({_one_line(error)}): export the model "
                "again"
            ) from error
        try:
            _check_fields(
                "the file",
                fields,
                ["format", *(f.name for f in dataclasses.fields(cls))],
                required=("format", "sample_rate", "n_mels", "encoder")
                + ("encoder_arguments",),
            )
            _check_choice("format", fields.pop("format"), [FORMAT])
            if fields.get("thresholds") is not None:
                names = Thresholds._fields
                _check_fields("thresholds", fields["thresholds"], names, names)
                fields["thresholds"] = Thresholds(**fields["thresholds"])
            return cls(**fields)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error


def build_modules(config: ModelConfig) -> Modules:
    """The stock modules of a model, with random weights.

    Arguments
    ---------
    config : ModelConfig

    Returns
    -------
    modules : Modules
        In evaluation mode.

    Raises
    ------
    InputError
        If the encoder can't be built, or has more than 1e9 parameters.

    Example
    -------
    >>> config = ModelConfig(16000, 80, "xvector", {"in_channels": 80})
    >>> build_modules(config)["embedding_model"].training
    False
    """
    _outline(config)
    return _modules(config, _build(config))


def save_model(
    folder: str | pathlib.Path,
    config: ModelConfig,
    state: dict[str, torch.Tensor],
) -> None:
    """Writes ``config.json`` and ``model.safetensors``.

    Arguments
    ---------
    folder : str or pathlib.Path
        Made where it is missing.
    config : ModelConfig
    state : dict
        Of the encoder, as its ``state_dict`` gives.

    Raises
    ------
    InputError
        If the weights are not those of the config's encoder, or the folder
        can't be written.

    Example
    -------
    >>> config = ModelConfig(16000, 80, "xvector", {"in_channels": 80})
    >>> encoder = build_modules(config)["embedding_model"]
    >>> folder = pathlib.Path(getfixture("tmpdir"))
    >>> save_model(folder, config, encoder.state_dict())
    >>> sorted(path.name for path in folder.iterdir())
    ['config.json', 'model.safetensors']
    """
    folder = pathlib.Path(folder)
    found = {
        name: (_DTYPES.get(value.dtype, str(value.dtype)), tuple(value.shape))
        for name, value in state.items()
    }
    _compare(f"the state for {folder}", found, _outline(config))
    # A copy: tensors that share memory are refused by safetensors.
    state = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in state.items()
    }
    _check_finite(f"the state for {folder}", state)
    try:
        # Both are written before one is renamed.
        with (
            atomic_path(folder / CONFIG) as config_path,
            atomic_path(folder / WEIGHTS) as weights_path,
        ):
            config_path.write_text(config.to_json(), encoding="utf-8")
            safetensors.torch.save_file(state, weights_path, {"format": "pt"})
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{folder} can't be written ({_one_line(error)}): make room there "
            "or pass another"
        ) from error


def fingerprint(config: ModelConfig, state: dict[str, torch.Tensor]) -> str:
    """Tells a model from all others, by what its two files say.

    Arguments
    ---------
    config : ModelConfig
    state : dict
        State dict of its encoder.

    Returns
    -------
    fingerprint : str
        sha256, in hexadecimal.
    """
    what = [config.sample_rate, config.n_mels, config.encoder]
    what += [config.encoder_arguments, weights_fingerprint(state)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def load_model(
    folder: str | pathlib.Path,
) -> tuple[ModelConfig, Modules]:
    """Reads a model from JSON and safetensors, whatever else the folder has.

    Arguments
    ---------
    folder : str or pathlib.Path

    Returns
    -------
    config : ModelConfig
    modules : Modules
        As ``build_modules`` gives, on the CPU, with the weights of the file.

    Raises
    ------
    InputError
        If a file is missing, corrupted or doesn't fit the other, the encoder
        has more than 1e9 parameters, or it can't embed 0.1 s of audio.
    """
    folder = pathlib.Path(folder)
    config = read_config(folder)
    path = folder / WEIGHTS
    with _naming(folder / CONFIG):
        outline = _outline(config)
    with open_tensors(path) as file:
        found = {}
        for name in file.keys():  # noqa: SIM118, it is no dict
            tensor = file.get_slice(name)
            found[name] = tensor.get_dtype(), tuple(tensor.get_shape())
        _compare(path, found, outline)
        # The file is mapped: a copy doesn't change, or vanish, with it.
        state = {name: file.get_tensor(name).clone() for name in found}
    _check_finite(path, state)
    encoder = _build(config, "meta")
    encoder.load_state_dict(state, assign=True)
    modules = _modules(config, encoder)
    with _naming(folder / CONFIG):
        _try_out(config, modules)
    return config, modules


def read_config(folder: str | pathlib.Path) -> ModelConfig:
    """Reads ``config.json`` alone.

    Arguments
    ---------
    folder : str or pathlib.Path

    Returns
    -------
    config : ModelConfig

    Raises
    ------
    InputError
        If it is missing, or not such a file.
    """
    path = pathlib.Path(folder) / CONFIG
    try:
        if not path.is_file():
            raise InputError(
                f"{path} is missing: {folder} is no exported model"
            )
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError(
                f"{path} is larger than {_MAX_CONFIG_BYTES} bytes: that is no "
                "config of a model"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} can't be read ({_one_line(error)}): export the model again"
        ) from error
    return ModelConfig.from_json(text, path)


@contextlib.contextmanager
def open_tensors(path: str | pathlib.Path) -> Iterator[safetensors.safe_open]:
    """Opens a safetensors file.

    Arguments
    ---------
    path : str or pathlib.Path

    Yields
    ------
    file : safetensors.safe_open

    Raises
    ------
    InputError
        If it is missing, truncated or corrupted; it names the file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is no whole safetensors file ({_one_line(error)}): get or "
            "make it again"
        ) from error


def _build(config: ModelConfig, device: str = "cpu") -> torch.nn.Module:
    """The encoder; on "meta" it takes no memory."""
    encoder_class, _, _ = _ENCODERS[config.encoder]
    with torch.device(device):
        return encoder_class(**config.encoder_arguments)


def _outline(config: ModelConfig) -> _Outline:
    """The (dtype, shape) of each of the encoder's tensors, by its name."""
    try:
        state = _build(config, "meta").state_dict()
    # Arguments that don't fit together are met by assertions, by indices out
    # of range, and by whatever else the constructors come upon.
    except Exception as error:
        raise InputError(
            f"encoder_arguments build no {config.encoder} "
            f"({type(error).__name__}: {_one_line(error)}): expected the "
            "arguments of the stock class"
        ) from error
    n_parameters = sum(value.numel() for value in state.values())
    if n_parameters > _MAX_PARAMETERS:
        raise InputError(
            f"encoder_arguments ask for {n_parameters} parameters, expected "
            f"{_MAX_PARAMETERS} at most"
        )
    return {
        name: (_DTYPES[value.dtype], tuple(value.shape))
        for name, value in state.items()
    }


def _modules(config: ModelConfig, encoder: torch.nn.Module) -> Modules:
    return {
        "compute_features": Fbank(
            n_mels=config.n_mels, sample_rate=config.sample_rate
        ).eval(),
        "mean_var_norm": InputNormalization(
            norm_type="sentence", std_norm=False
        ).eval(),
        "embedding_model": encoder.eval(),
    }


def _try_out(config: ModelConfig, modules: Modules) -> None:
    """Embeds the shortest audio: what fits in shape may still not run."""
    samples = int(SHORTEST * config.sample_rate)
    try:
        embedding = Encoder(**modules)(torch.zeros(1, samples))
    except Exception as error:
        raise InputError(
            f"the model can't embed {SHORTEST} s of audio "
            f"({type(error).__name__}: {_one_line(error)}): check sample_rate "
            "and encoder_arguments"
        ) from error
    if not embedding.isfinite().all():
        raise InputError(
            "the embedding of silence is not finite: the model's training has "
            "diverged"
        )


def _compare(
    name: str | pathlib.Path, found: _Outline, expected: _Outline
) -> None:
    """Refuses tensors of other names, dtypes or shapes."""
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            has, wanted = (
                "no such tensor" if kind is None else f"{kind[0]} {[*kind[1]]}"
                for kind in (found.get(key), expected.get(key))
            )
            raise InputError(
                f"{name} does not fit the encoder of {CONFIG}: {_shown(key)} "
                f"is {has}, expected {wanted}"
            )


def _check_finite(
    name: str | pathlib.Path, state: dict[str, torch.Tensor]
) -> None:
    for key, value in state.items():
        if not value.isfinite().all():
            raise InputError(
                f"{name}: {key} holds NaN or infinite weights: the model's "
                "training has diverged"
            )


def _check_encoder(
    encoder: str, arguments: dict[str, Any], n_mels: int
) -> None:
    _, bands, kinds = _ENCODERS[encoder]
    _check_fields("encoder_arguments", arguments, [bands, *kinds], (bands,))
    for key, value in arguments.items():
        name = f"encoder_arguments: {key}"
        kind: Any = kinds.get(key)
        if key == bands:
            if type(value) is not int or value != n_mels:
                raise _wrong(name, value, f"n_mels, which is {n_mels}")
        elif kind is bool:
            if type(value) is not bool:
                raise _wrong(name, value, "true or false")
        elif kind is float:
            if not (_is_number(value) and 0 <= value < 1):
                raise _wrong(name, value, "a number from 0 to below 1")
        elif isinstance(kind, list):
            if type(value) is not list or not 1 <= len(value) <= _MAX_LIST:
                raise _wrong(name, value, f"a list of 1 to {_MAX_LIST}")
            for number in value:
                _check_integer(f"an entry of {name}", number, *kind)
        else:
            _check_integer(name, value, kind)


def _check_thresholds(thresholds: object) -> None:
    if not isinstance(thresholds, Thresholds):
        raise _wrong("thresholds", thresholds, "Thresholds")
    _check_numbers("thresholds", {"eer": thresholds.eer})
    rates = thresholds.false_accepts
    if type(rates) is not dict or len(rates) > _MAX_LIST:
        raise _wrong("false_accepts", rates, "an object of rates")
    _check_numbers("false_accepts", rates)
    for rate in rates:
        try:
            known = 0 < float(rate) < 1 and rate == f"{float(rate):g}"
        except (TypeError, ValueError):
            known = False
        if not known:
            raise _wrong("a rate of false_accepts", rate, 'one such as "0.01"')


def _check_trials(trials: dict[str, Any]) -> None:
    numbers = (*_RATES, *_MOMENTS)
    _check_fields("trials", trials, ("list", *_COUNTS, *numbers, *_INTERVALS))
    name = trials.get("list", "")
    if type(name) is not str or len(name) > _MAX_TEXT:
        raise _wrong("trials: list", name, "the name of a trial list")
    for key, value in trials.items():
        if key in _COUNTS:
            _check_integer(f"trials: {key}", value, (1, 10**12))
        elif key in numbers:
            _check_numbers("trials", {key: value})
        elif key in _INTERVALS and value is not None:
            if type(value) is not list or len(value) != 2:
                raise _wrong(f"trials: {key}", value, "[low, high] or null")
            _check_numbers(f"trials: {key}", dict(enumerate(value)))


def _check_fields(
    name: str,
    fields: object,
    known: Collection[str],
    required: Collection[str] = (),
) -> None:
    if type(fields) is not dict:
        raise _wrong(name, fields, "an object with named fields")
    for key in fields:
        if key not in known:
            raise InputError(
                f"{name} has the field {_shown(key)}, expected some of "
                f"{', '.join(known)}"
            )
    for key in required:
        if key not in fields:
            raise InputError(f"{name} has no field {key!r}, expected one")


def _check_integer(name: str, value: object, bounds: tuple[int, int]) -> None:
    low, high = bounds
    if type(value) is not int or not low <= value <= high:
        raise _wrong(name, value, f"an integer from {low} to {high}")


def _check_choice(name: str, value: object, choices: Collection[str]) -> None:
    if type(value) is not str or value not in choices:
        raise _wrong(name, value, f"one of {', '.join(choices)}")


def _check_numbers(name: str, values: Mapping[Any, object]) -> None:
    for key, value in values.items():
        if not _is_number(value):
            raise _wrong(f"{name}: {_shown(key)}", value, "a finite number")


def _is_number(value: object) -> bool:
    # Below infinity, and an integer may be too large for a float; a bool is an
    # integer, too. No comparison is true of NaN.
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < 1e300
    )


def _wrong(name: str, value: object, expected: str) -> InputError:
    return InputError(f"{name} is {_shown(value)}, expected {expected}")


def _shown(value: object) -> str:
    """What a stranger wrote, on one line and not at length."""
    try:
        text = ascii(value)
    except RecursionError:
        text = "nested too deep"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _one_line(error: Exception) -> str:
    return shown(" ".join(str(error).split()), most=200)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
