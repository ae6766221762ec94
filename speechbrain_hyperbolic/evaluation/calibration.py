"""From scores to log-likelihood ratios, by logistic regression.

Besides the score, a calibration may use measures of the quality of the two
sides of a trial: their durations, and the norms of their embeddings.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.evaluation.metrics import check_prior, split_trials

# "radius" is the Euclidean norm of the embedding of the whole utterance before
# the clip: after it, all utterances may have the same hyperbolic radius.
QUALITY = ("duration", "radius")


def check_quality(names: Iterable[str] | None) -> tuple[str, ...]:
    """Checks a list of quality measures; None is an empty one."""
    if isinstance(names, str) or not set(names or ()) <= set(QUALITY):
        raise InputError(
            f"quality measures are {names!r}, expected a list of some of "
            f"{QUALITY}"
        )
    return tuple(names or ())


def quality_measures(sides: dict) -> np.ndarray:
    """Features [N, 2 * measures] of trials from the quality of their sides.

    ``sides`` maps each measure to (enroll, test), its positive values in each
    trial. The features are the logs of the smaller and of the larger value, so
    that they do not depend on which side is the enrollment.
    """
    check_quality(sides)
    columns = []
    for name, values in sides.items():
        both = np.array(values, float)
        wrong = np.argwhere(~((both > 0) & (both < np.inf)))
        if len(wrong):
            side, trial = wrong[0]
            raise InputError(
                f"the {name} of {('enroll', 'test')[side]} is "
                f"{both[side, trial]} in trial {trial + 1}, expected a finite "
                "value above 0: check that utterance"
            )
        columns += [np.log(both.min(0)), np.log(both.max(0))]
    return np.stack(columns, axis=1)


@dataclasses.dataclass
class Calibration:
    """A natural log-likelihood ratio that is affine in a trial's features.

    ``weights`` has one entry for the score and two for each measure in
    ``quality``; ``p_target`` is the prior that it was fitted for.

    >>> Calibration([10.0], offset=-5.0)([0.25, 0.75])
    array([-2.5,  2.5])
    """

    weights: Sequence[float]
    offset: float
    quality: Sequence[str] = ()
    p_target: float = 0.01

    def __post_init__(self) -> None:
        self.quality = check_quality(self.quality)
        check_prior(self.p_target)
        expected = 1 + 2 * len(self.quality)
        numbers = [*self.weights, self.offset]
        if len(self.weights) != expected or not all(map(is_finite, numbers)):
            raise InputError(
                f"weights are {self.weights} and offset is {self.offset}, "
                f"expected finite numbers, {expected} weights: one for the "
                f"score, two for each measure of {list(self.quality)}"
            )

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        quality: Sequence[str] = (),
        p_target: float = 0.01,
    ) -> "Calibration":
        """Fits trials with known labels, best at the prior p = ``p_target``.

        ``features`` has shape [N, F], the score and what ``quality_measures``
        gives, or is the score alone. With T target and U nontarget trials, it
        minimizes

            p / T * sum over targets of log(1 + exp(-llr - logit p))
            + (1 - p) / U * sum over nontargets of log(1 + exp(llr + logit p))

        Source: Brummer and du Preez, "Application-independent evaluation of
        speaker detection", Computer Speech & Language 20(2-3), 2006.
        """
        unfitted = cls([1.0] * (1 + 2 * len(quality)), 0.0, quality, p_target)
        features = unfitted._columns(features)
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
        return self._columns(features) @ np.asarray(self.weights) + self.offset

    def _columns(self, features: npt.ArrayLike) -> np.ndarray:
        features = np.asarray(features, float)
        if features.ndim == 1:
            features = features[:, None]
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise InputError(
                f"features has shape {features.shape}, expected [trials, "
                f"{len(self.weights)}]: the score, and two columns for each "
                f"measure of {list(self.quality)}"
            )
        return features

    def save(self, path: StrPath) -> None:
        """Writes it as JSON."""
        with atomic_path(path) as temporary:
            text = json.dumps(dataclasses.asdict(self), indent=2)
            temporary.write_text(text + "\n")

    @classmethod
    def load(cls, path: StrPath) -> "Calibration":
        """Reads what ``save`` wrote."""
        try:
            return cls(**json.loads(pathlib.Path(path).read_text("utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise InputError(
                f"calibration {path} cannot be read ({error}): fit it again"
            ) from error
