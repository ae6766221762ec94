"""What ``config.json`` says about a model, checked field by field."""

import dataclasses
import json
import pathlib
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.errors import (
    InputError,
    is_finite,
    message_of,
    shown,
)
from speechbrain_hyperbolic.evaluation.calibration import (
    Calibration,
    check_quality,
)
from speechbrain_hyperbolic.evaluation.metrics import eer, error_rates
from speechbrain_hyperbolic.evaluation.scores import SCORES

CONFIG = "config.json"
FORMAT = "speechbrain-hyperbolic 2"
MODULES = ("compute_features", "mean_var_norm", "embedding_model")
# Thresholds of other rates are interpolated.
_RATES = [d / power for power in (10, 100, 1000, 10000) for d in (5, 2, 1)]
# With so many false accepts the true number is, at 95 %, within a factor of 2.
_FEWEST_FALSE_ACCEPTS = 10
_LARGEST = 200_000  # so that a stranger's layers fit in memory
_PLAIN = f"text, true, false, null, a list, or a number up to {_LARGEST}"
_CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Scores above a threshold are accepted; these were measured on trials.

    ``eer`` is the threshold at the equal error rate. ``false_accepts`` maps
    rates as text, such as "0.01", to the lowest threshold that keeps to them.
    """

    eer: float
    false_accepts: dict[str, float]

    def __post_init__(self) -> None:
        _check("eer", self.eer, is_finite(self.eer), "a finite number")
        rates = self.false_accepts
        valid = isinstance(rates, dict) and all(
            re.fullmatch(r"0\.[0-9]+", str(rate)) and is_finite(threshold)
            for rate, threshold in rates.items()
        )
        expected = 'thresholds by rate, such as {"0.01": 0.5}'
        _check("false_accepts", rates, valid, expected)

    def at(self, false_accepts: float) -> float:
        """The threshold of a rate between those measured.

        It is interpolated over the normal quantile of the rate, in which the
        threshold of normal scores is linear. Other rates raise an InputError.
        """
        measured = {float(rate): x for rate, x in self.false_accepts.items()}
        rates = sorted(measured)
        if not rates or not rates[0] <= false_accepts <= rates[-1]:
            known = f"{rates[0]:g} to {rates[-1]:g}" if rates else "no rates"
            raise InputError(
                f"no threshold was measured at a false-accept rate of "
                f"{false_accepts:g}, expected {known}"
            )
        thresholds = [measured[rate] for rate in rates]
        return float(np.interp(ndtri(false_accepts), ndtri(rates), thresholds))


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What ``config.json`` says about a model.

    A module is a dict: the full name of its class under "class", and arguments
    by name, which are texts, numbers, booleans, None or lists of them. Only
    ``embedding_model`` has weights. A wrong value raises an InputError.
    """

    compute_features: dict[str, Any]
    mean_var_norm: dict[str, Any]
    embedding_model: dict[str, Any]
    sample_rate: int = 16000  # Hz
    score: str = "cosine"  # or "hyperbolic"
    clip_c: float = 3.0  # of the training, for the hyperbolic score
    thresholds: Thresholds | None = None  # None: not measured
    trials: dict[str, Any] | None = None  # on which they were measured
    # The fields of a Calibration of the score of two whole utterances
    calibration: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        rate, c = self.sample_rate, self.clip_c
        valid = type(rate) is int and 1000 <= rate <= 192_000
        _check("sample_rate", rate, valid, "an integer from 1000 to 192000")
        _check("score", self.score, self.score in SCORES, f"one of {SCORES}")
        _check("clip_c", c, is_finite(c) and c >= 1, "a number of 1 or more")
        valid = self.calibration is None or _is_calibration(self.calibration)
        expected = "what calibration.json of a verification has, or null"
        _check("calibration", self.calibration, valid, expected)
        for name in MODULES:
            module = getattr(self, name)
            class_name = isinstance(module, dict) and module.get("class")
            valid = bool(_CLASS_NAME.fullmatch(str(class_name)))
            expected = '{"class": "package.Class", argument: value, ...}'
            _check(name, module, valid, expected)
            for key, value in module.items():
                valid = key.isidentifier() and _is_plain(value)
                _check(f"{name}: {shorten(key)}", value, valid, _PLAIN)

    @property
    def classes(self) -> list[str]:
        """The full names of the modules' classes."""
        return [getattr(self, name)["class"] for name in MODULES]

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, fields: Any) -> "ModelConfig":
        """The config that ``to_dict`` described, or an InputError."""
        found = fields.get("format") if isinstance(fields, dict) else fields
        expected = f"{FORMAT!r}, as this version exports it"
        _check("format", found, found == FORMAT, expected)
        fields = {k: v for k, v in fields.items() if k != "format"}
        try:
            if fields.get("thresholds") is not None:
                fields["thresholds"] = Thresholds(**fields["thresholds"])
            return cls(**fields)
        except TypeError as error:  # fields are missing or unknown
            raise InputError(message_of(error)) from error


def measure_thresholds(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> Thresholds:
    """Thresholds at the equal error rate, and at rates of false accepts from
    0.5 down to one of ten false accepts: 0.001 takes 10,000 nontarget trials.
    """
    _, at_eer = eer(target_scores, nontarget_scores)
    thresholds, _, p_fa = error_rates(target_scores, nontarget_scores)
    n_nontarget = np.size(nontarget_scores)
    return Thresholds(
        float(at_eer),
        {
            f"{rate:g}": float(thresholds[(p_fa <= rate).argmax()])
            for rate in _RATES
            # 1e-9, since 0.1 * 100 must not fail by its rounding
            if rate * n_nontarget >= _FEWEST_FALSE_ACCEPTS - 1e-9
        },
    )


def read_config(folder: StrPath) -> ModelConfig:
    """The config of a model folder, or an InputError that names the field."""
    path = pathlib.Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(
            f"{path} is missing: expected a model folder, of a run or an export"
        )
    try:
        return ModelConfig.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path}: {error}; correct it, or export the model again"
        ) from error


def _is_plain(value: object, depth: int = 3) -> bool:
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, (int, float)):
        return abs(value) <= _LARGEST
    return value is None or isinstance(value, str)


def _is_calibration(fields: Any) -> bool:
    try:
        calibration = Calibration(**fields)
        check_quality(calibration.quality)
        size = 1 + 2 * len(calibration.quality)
        ratios = calibration(np.ones((1, size)))
        return ratios.shape == (1,) and is_finite(ratios[0])
    except (TypeError, ValueError):  # fields, names or weights are wrong
        return False


def _check(name: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise InputError(f"{name} is {shorten(value)}, expected {expected}")


def shorten(value: object) -> str:
    """A stranger's value on one short line."""
    return shown(ascii(value), most=60)
