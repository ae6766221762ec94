"""From scores to log-likelihood ratios, by logistic regression."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.metrics import check_prior, split_trials

# "radius" is the Euclidean norm of the whole utterance's embedding before the
# clip, after which all utterances may have the same hyperbolic radius.
QUALITY = ("duration", "radius")


def check_quality(names: Sequence[str]) -> None:
    """Checks a list of quality measures."""
    if not set(names) <= set(QUALITY):
        raise InputError(
            f"quality measures are {names!r}, expected a list of some of "
            f"{QUALITY}"
        )


@dataclasses.dataclass
class Calibration:
    """A natural log-likelihood ratio that is affine in a trial's features.

    ``weights`` has one entry for the score and two for each measure in
    ``quality``.

    >>> Calibration([10.0], offset=-5.0)([[0.25], [0.75]])
    array([-2.5,  2.5])
    """

    weights: Sequence[float]
    offset: float
    quality: Sequence[str] = ()
    p_target: float = 0.01

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        quality: Sequence[str] = (),
        p_target: float = 0.01,
    ) -> "Calibration":
        """Fits trials with known labels, best at the prior ``p_target``.

        Source: Brummer and du Preez, as of ``metrics.cllr``.
        """
        # Imported here, since it takes a second: too long to verify two clips.
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        check_prior(p_target)
        features = np.asarray(features)
        _, is_target = split_trials(features[:, 0], labels)
        share = np.where(
            is_target,
            p_target / is_target.sum(),
            (1 - p_target) / (~is_target).sum(),
        )
        scaler = StandardScaler().fit(features)
        # The penalty is negligible, but keeps the weights of separable classes
        # finite. The shares are scaled for it to weigh as much at any prior.
        regression = LogisticRegression(
            C=1e8, solver="newton-cholesky", tol=1e-8, max_iter=1000
        ).fit(
            scaler.transform(features),
            is_target,
            sample_weight=share / min(p_target, 1 - p_target),
        )
        weights = regression.coef_[0] / scaler.scale_
        offset = regression.intercept_[0] - weights @ scaler.mean_
        offset -= logit(p_target)
        return cls(weights.tolist(), float(offset), quality, p_target)

    def __call__(self, features: npt.ArrayLike) -> np.ndarray:
        """The log-likelihood ratios of trials, float64 [N]."""
        return np.asarray(features) @ self.weights + self.offset


def features(
    scores: np.ndarray, sides: dict, quality: Sequence[str]
) -> np.ndarray:
    """What a calibration takes, [N, 1 + 2 * measures].

    These are the score, and the logs of the smaller and of the larger value of
    each measure: it does not matter which side is the enrollment.
    """
    columns = [scores]
    for name in quality:
        logs = np.log(sides[name])
        columns += [logs.min(0), logs.max(0)]
    return np.column_stack(columns)
