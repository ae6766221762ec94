"""What ``config.json`` says about a model, checked field by field."""

import dataclasses
import json
import pathlib
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from speechbrain_hyperbolic.errors import InputError, shown
from speechbrain_hyperbolic.evaluation.metrics import eer, error_rates
from speechbrain_hyperbolic.evaluation.scores import SCORES

CONFIG = "config.json"
FORMAT = "speechbrain-hyperbolic 2"
MODULES = ("compute_features", "mean_var_norm", "embedding_model")
FALSE_ACCEPTS = (0.1, 0.01, 0.001)
# With so many false accepts the true number is, at 95 %, within a factor of 2.
_FEWEST_FALSE_ACCEPTS = 10
_LARGEST = 200_000  # of a module's numbers: widths, rates in Hz, ...
_MOST_BYTES = 2**20
_MODULE = '{"class": "package.Class", argument: value, ...}'
_PLAIN = f"text, true, false, null, a list, or a number up to {_LARGEST}"
_CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def _is_number(value: object) -> bool:
    # False for NaN and infinity, and for integers that no float can hold
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < 1e300
    )


def _is_plain(value: object, depth: int = 3) -> bool:
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, (int, float)):
        return abs(value) <= _LARGEST
    return value is None or isinstance(value, str)


def _are_rates(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(rate, str)
        and re.fullmatch(r"0\.\d+", rate, re.ASCII)
        and _is_number(threshold)
        for rate, threshold in value.items()
    )


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Scores above a threshold are accepted; these were measured on trials.

    ``eer`` is the threshold at the equal error rate. ``false_accepts`` maps
    rates as text, such as "0.01", to the lowest threshold that keeps to them.
    """

    eer: float
    false_accepts: dict[str, float]

    def __post_init__(self) -> None:
        _check("eer", self.eer, _is_number(self.eer), "a finite number")
        rates = self.false_accepts
        expected = 'thresholds by rate, such as {"0.01": 0.5}'
        _check("false_accepts", rates, _are_rates(rates), expected)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What ``config.json`` says about a model.

    A module is a dict: the full name of its class under "class", and arguments
    by name, which are texts, numbers, booleans, None or lists of them. Only
    ``embedding_model`` has weights. ``clip_c`` is the c of the clip in
    training, for the hyperbolic score; ``trials`` is what to remember about the
    trials of the thresholds. A wrong value raises an InputError.

    >>> config = ModelConfig(
    ...     {"class": "speechbrain.lobes.features.Fbank", "n_mels": 80},
    ...     {"class": "speechbrain.processing.features.InputNormalization"},
    ...     {"class": "speechbrain.lobes.models.ResNet.ResNet"},
    ... )
    >>> ModelConfig.from_dict(config.to_dict()) == config
    True
    """

    compute_features: dict[str, Any]
    mean_var_norm: dict[str, Any]
    embedding_model: dict[str, Any]
    sample_rate: int = 16000  # Hz
    score: str = "cosine"  # or "hyperbolic"
    clip_c: float = 3.0
    thresholds: Thresholds | None = None  # None: not measured
    trials: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        rate, c = self.sample_rate, self.clip_c
        valid = type(rate) is int and 1000 <= rate <= 192_000
        _check("sample_rate", rate, valid, "an integer from 1000 to 192000")
        _check("score", self.score, self.score in SCORES, f"one of {SCORES}")
        valid = _is_number(c) and 1 <= c <= 1e6
        _check("clip_c", c, valid, "a number from 1 to 1000000")
        for name, kind in (("thresholds", Thresholds), ("trials", dict)):
            value = getattr(self, name)
            valid = value is None or isinstance(value, kind)
            _check(name, value, valid, "an object or null")
        for name in MODULES:
            module = getattr(self, name)
            class_name = isinstance(module, dict) and module.get("class")
            valid = bool(_CLASS_NAME.fullmatch(str(class_name)))
            _check(name, module, valid, _MODULE)
            for key, value in module.items():
                valid = key.isidentifier() and _is_plain(value)
                _check(f"{name}: {shorten(key)}", value, valid, _PLAIN)

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, fields: Any) -> "ModelConfig":
        """The config that ``to_dict`` described, or an InputError."""
        found = isinstance(fields, dict) and fields.get("format")
        if found != FORMAT:
            raise InputError(
                f"format is {shorten(found)}, expected {FORMAT!r}: export the "
                "model again with this version"
            )
        fields = {k: v for k, v in fields.items() if k != "format"}
        try:
            if isinstance(fields.get("thresholds"), dict):
                fields["thresholds"] = Thresholds(**fields["thresholds"])
            return cls(**fields)
        except TypeError as error:  # a field is missing, or has another name
            raise InputError(
                f"{one_line(error)}: export the model again with this version"
            ) from error


def measure_thresholds(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> Thresholds:
    """Thresholds at the equal error rate and at given false-accept rates.

    The rates are those of 0.1, 0.01 and 0.001 that amount to ten false accepts
    or more: 0.001 takes 10,000 nontarget trials.

    >>> measure_thresholds([50, 150], range(100))
    Thresholds(eer=50.0, false_accepts={'0.1': 89.0})
    """
    _, at_eer = eer(target_scores, nontarget_scores)
    thresholds, _, p_fa = error_rates(target_scores, nontarget_scores)
    n_nontarget = np.size(nontarget_scores)
    return Thresholds(
        float(at_eer),
        {
            f"{rate:g}": float(thresholds[(p_fa <= rate).argmax()])
            for rate in FALSE_ACCEPTS
            # 1e-9, since 0.1 * 100 must not fail by its rounding
            if rate * n_nontarget >= _FEWEST_FALSE_ACCEPTS - 1e-9
        },
    )


def read_config(folder: str | pathlib.Path) -> ModelConfig:
    """The config of a model folder, or an InputError that names the field."""
    path = pathlib.Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(
            f"{path} is missing: expected a model folder, as training and "
            "export make it"
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} can't be read as JSON ({one_line(error)}): export the "
            "model again"
        ) from error
    try:
        return ModelConfig.from_dict(fields)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check(name: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise InputError(f"{name} is {shorten(value)}, expected {expected}")


def shorten(value: object) -> str:
    """A stranger's value on one line, not at length."""
    try:
        return shown(ascii(value), most=60)
    except (RecursionError, ValueError):  # of integers with many digits
        return "too deep or too long to show"


def one_line(error: Exception) -> str:
    """A library's message on one line."""
    return shown(" ".join(str(error).split()), most=200)
