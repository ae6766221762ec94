"""From scores to log likelihood ratios, by logistic regression.

Besides the score it may look at the quality of the two sides of a trial: how
long they are, and how long their embeddings.
"""

import json
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError, is_finite

# "radius" is the Euclidean norm of the embedding of the whole utterance
# before the clip: all may be on the cap, where the hyperbolic radius is the
# same for all.
QUALITY = ("duration", "radius")
# On the weights of standardised features: it moves one by some 1e-7 of itself,
# and keeps the weights finite where the classes are separable.
L2 = 1e-8


def check_quality(names: Iterable[str]) -> None:
    """Checks the names of quality measures.

    Arguments
    ---------
    names : iterable of str

    Raises
    ------
    InputError
        If there is no such measure, or one is given twice.

    Example
    -------
    >>> check_quality(["duration"])
    """
    if isinstance(names, str):
        raise InputError(f"quality measures are {names!r}, expected a list")
    names = list(names or ())
    for name in names:
        if name not in QUALITY:
            raise InputError(
                f"quality measure is {name!r}, expected some of {QUALITY}"
            )
    if len(set(names)) < len(names):
        raise InputError(f"quality measures are {names}: give each once")


def quality_measures(sides: dict) -> np.ndarray:
    """Features of trials that say how good their two sides are.

    They do not depend on which side is the enrolment: of each measure the log
    of the smaller and of the larger of both.

    Arguments
    ---------
    sides : dict
        Name of each measure -> (enrol, test), its values in each trial, of
        shape [N], above 0. "duration": in seconds; of a model of several
        utterances, their sum. "radius": Euclidean norm of the embedding of
        the whole utterance before the clip.

    Returns
    -------
    features : np.ndarray
        float64, shape [N, 2 * measures], in the order of sides.

    Raises
    ------
    InputError
        As ``check_quality``; also if a value is not finite and above 0.

    Example
    -------
    >>> quality_measures({"duration": ([1.0, 4.0], [2.0, 1.0])}).round(2)
    array([[0.  , 0.69],
           [0.  , 1.39]])
    """
    check_quality(sides)
    columns = []
    for name, values in sides.items():
        both = np.array(values, float)
        wrong = np.argwhere(~((both > 0) & (both < np.inf)))
        if len(wrong):
            side, trial = wrong[0]
            raise InputError(
                f"the {name} of {('enrol', 'test')[side]} is "
                f"{both[side, trial]} in trial {trial + 1}, expected a finite "
                "value above 0: check that utterance"
            )
        columns += [np.log(both.min(0)), np.log(both.max(0))]
    return np.stack(columns, axis=1)


class Calibration:
    """A natural log likelihood ratio that is affine in the features of a trial.

    Arguments
    ---------
    weights : sequence of float
        Of the score, and of two features for each quality measure.
    offset : float
    quality : sequence of str
        The names of the quality measures, in the order of the features.
    p_target : float
        The prior that it was fitted for.

    Raises
    ------
    InputError
        If a value is not finite or of the wrong number.

    Example
    -------
    >>> Calibration([10.0], offset=-5.0)([0.25, 0.75])
    array([-2.5,  2.5])
    """

    def __init__(
        self,
        weights: Sequence[float],
        offset: float,
        quality: Sequence[str] = (),
        p_target: float = 0.01,
    ) -> None:
        check_quality(quality)
        self.weights = np.array(weights, float)
        self.offset = float(offset)
        self.quality = tuple(quality)
        self.p_target = float(p_target)
        if self.weights.shape != (_n_features(quality),):
            raise InputError(
                f"weights has shape {self.weights.shape}, expected "
                f"{_n_features(quality)}: of the score, and two of each of "
                f"{len(quality)} quality measures"
            )
        if not np.isfinite([*self.weights, self.offset]).all():
            raise InputError("a weight or the offset is NaN or infinite")
        _check_prior(p_target)

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        quality: Sequence[str] = (),
        p_target: float = 0.01,
    ) -> "Calibration":
        """Fits it to trials whose labels are known.

        With llr the calibrated score, it minimises

            p / T * sum over targets of log(1 + exp(-llr - logit p))
            + (1 - p) / N * sum over nontargets of log(1 + exp(llr + logit p))

        so that the numbers T and N of trials don't matter. Source: Brummer
        and du Preez, "Application-independent evaluation of speaker
        detection", Computer Speech & Language 20(2-3), 2006.

        Arguments
        ---------
        features : array_like
            Shape [N, F]: the score, then what ``quality_measures`` gives; or
            the score alone, shape [N].
        labels : array_like
            Shape [N]: 1 for a target trial, 0 for a nontarget trial.
        quality : sequence of str
            The names of the quality measures in the features, in their order.
        p_target : float
            p: where the calibration is to be best, inside (0, 1).

        Returns
        -------
        calibration : Calibration

        Raises
        ------
        InputError
            If a class has no trials, a feature is NaN or infinite, a label is
            neither 0 nor 1, or a shape is wrong.

        Example
        -------
        >>> scores = np.array([-1.0, 0.0, 1.0, 0.0, 1.0, 2.0])
        >>> fitted = Calibration.fit(scores, [0, 0, 0, 1, 1, 1], p_target=0.5)
        >>> bool(abs(fitted([0.5])) < 1e-6)
        True
        """
        check_quality(quality)
        _check_prior(p_target)
        features = _features(features, _n_features(quality))
        labels = np.asarray(labels)
        if labels.shape != (len(features),):
            raise InputError(
                f"labels has shape {labels.shape}, expected one for each of "
                f"{len(features)} trials"
            )
        if not np.isin(labels, (0, 1)).all():
            raise InputError("a label is neither 0 (nontarget) nor 1 (target)")
        n_target, n_nontarget = (labels == 1).sum(), (labels == 0).sum()
        if not (n_target and n_nontarget):
            raise InputError(
                f"there are {n_target} target and {n_nontarget} nontarget "
                "trials to calibrate on, expected some of both: check the "
                "trial list"
            )
        mean, scale = features.mean(0), features.std(0)
        # Of a feature that is constant, but for rounding, no weight comes.
        scale[scale <= 1e-12 * np.abs(mean)] = np.inf
        standard = (features - mean) / scale
        x = np.column_stack([standard, np.ones(len(features))])
        sign = np.where(labels == 1, 1.0, -1.0)
        share = np.where(
            labels == 1, p_target / n_target, (1 - p_target) / n_nontarget
        )
        # For the L2 and the tolerance to mean the same at each prior.
        share /= min(p_target, 1 - p_target)
        found = _minimise(x, sign, share, math.log(p_target / (1 - p_target)))
        weights = found[:-1] / scale
        return cls(weights, found[-1] - mean @ weights, quality, p_target)

    def __call__(self, features: npt.ArrayLike) -> np.ndarray:
        """The log likelihood ratios of trials.

        Arguments
        ---------
        features : array_like
            As ``fit`` takes them.

        Returns
        -------
        llr : np.ndarray
            float64, shape [N], natural logarithm.

        Raises
        ------
        InputError
            If a feature is NaN or infinite, or their number is wrong.
        """
        features = _features(features, len(self.weights))
        return features @ self.weights + self.offset

    def save(self, path: str | pathlib.Path) -> None:
        """Writes it as JSON.

        Arguments
        ---------
        path : str or pathlib.Path
        """
        fields = {
            "weights": self.weights.tolist(),
            "offset": self.offset,
            "quality": list(self.quality),
            "p_target": self.p_target,
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(fields, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Calibration":
        """Reads what ``save`` wrote.

        Arguments
        ---------
        path : str or pathlib.Path

        Returns
        -------
        calibration : Calibration

        Raises
        ------
        InputError
            If it is not such a file.
        """
        try:
            fields = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"calibration {path} cannot be read: {error}"
            ) from error
        expected = {"weights", "offset", "quality", "p_target"}
        if not isinstance(fields, dict) or set(fields) != expected:
            raise InputError(
                f"calibration {path} has {_keys(fields)}, expected the fields "
                f"{sorted(expected)}: fit it anew"
            )
        try:
            for name in ("weights", "quality"):
                if not isinstance(fields[name], list):
                    raise InputError(f"{name} is not a list")
            numbers = [*fields["weights"], fields["offset"], fields["p_target"]]
            if not all(map(is_finite, numbers)):
                raise InputError("a value is not a finite number")
            return cls(**fields)
        except InputError as error:
            raise InputError(f"calibration {path}: {error}") from error


def _minimise(
    x: np.ndarray, sign: np.ndarray, share: np.ndarray, log_odds: float
) -> np.ndarray:
    """The weights of the columns of x; the last, an offset, is free of L2."""
    ridge = np.full(x.shape[1], L2)
    ridge[-1] = 0

    def loss(w: np.ndarray) -> float:
        wrong = -sign * (x @ w + log_odds)
        return share @ np.logaddexp(0, wrong) + ridge @ w**2 / 2

    def gradient(w: np.ndarray) -> np.ndarray:
        wrong = expit(-sign * (x @ w + log_odds))
        return x.T @ (-sign * share * wrong) + ridge * w

    def hessian(w: np.ndarray) -> np.ndarray:
        p = expit(x @ w + log_odds)
        return (x.T * (share * p * (1 - p))) @ x + np.diag(ridge)

    start = np.zeros(x.shape[1])
    return minimize(
        loss,
        start,
        jac=gradient,
        hess=hessian,
        method="trust-exact",
        options={"gtol": 1e-9},
    ).x


def _features(features: npt.ArrayLike, expected: int) -> np.ndarray:
    """As float64 [N, F], checked."""
    features = np.asarray(features, float)
    if features.ndim == 1:
        features = features[:, None]
    if features.ndim != 2 or features.shape[1] != expected:
        raise InputError(
            f"features has shape {features.shape}, expected [trials, "
            f"{expected}]: the score, and two of each quality measure"
        )
    wrong = np.argwhere(~np.isfinite(features))
    if len(wrong):
        trial, column = wrong[0]
        what = "score" if column == 0 else f"feature {column}"
        raise InputError(
            f"the {what} of trial {trial + 1} is {features[trial, column]}, "
            "expected a finite value: check the embeddings of that trial"
        )
    return features


def _n_features(quality: Sequence[str]) -> int:
    return 1 + 2 * len(quality)


def _check_prior(p_target: float) -> None:
    if not (is_finite(p_target) and 0 < p_target < 1):
        raise InputError(
            f"p_target is {p_target}, expected a number above 0 and below 1"
        )


def _keys(fields: object) -> object:
    return sorted(fields) if isinstance(fields, dict) else "no fields"
