"""Error rates of a speaker-verification system.

A trial is a score and a label: target (one speaker) or nontarget (two). It is
accepted when its score is above the threshold, as in
``speechbrain.utils.metric_stats``. All rates are fractions, not per cent.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.special import logit

from speechbrain_hyperbolic.errors import InputError

P_TARGETS = (0.01, 0.05)

Rate = TypeVar("Rate", float, np.ndarray)


def error_rates(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Miss and false-alarm rates at every operating point.

    There are K + 1 points for K distinct scores: accept everything (threshold
    -inf), then one per distinct score. The last one rejects everything. Costs
    O(N log N) for N trials.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape (T,), finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape (U,), finite.

    Returns
    -------
    thresholds : np.ndarray
        Increasing, shape (K + 1,), the first is -inf.
    p_miss : np.ndarray
        Fraction of target scores <= threshold, from 0 up to 1.
    p_fa : np.ndarray
        Fraction of nontarget scores > threshold, from 1 down to 0.

    Raises
    ------
    InputError
        If either class is empty, not one-dimensional, or holds a score that is
        NaN or infinite.

    Example
    -------
    >>> thresholds, p_miss, p_fa = error_rates([2, 3], [1, 2])
    >>> thresholds.tolist()
    [-inf, 1.0, 2.0, 3.0]
    >>> p_miss.tolist(), p_fa.tolist()
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    target, nontarget = _classes(target_scores, nontarget_scores)
    thresholds, n_missed, n_rejected = operating_points(
        np.sort(target), np.sort(nontarget)
    )
    p_miss = n_missed / target.size
    p_fa = (nontarget.size - n_rejected) / nontarget.size
    return thresholds, p_miss, p_fa


def operating_points(
    target: np.ndarray, nontarget: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The thresholds of `error_rates`, and the trials that each rejects.

    Arguments
    ---------
    target : np.ndarray
        Sorted scores of the target trials, shape (T,).
    nontarget : np.ndarray
        Sorted scores of the nontarget trials, shape (U,).

    Returns
    -------
    thresholds : np.ndarray
        Increasing, shape (K + 1,), the first is -inf.
    n_missed : np.ndarray
        How many target scores are <= threshold.
    n_rejected : np.ndarray
        How many nontarget scores are <= threshold.

    Example
    -------
    >>> _, n_missed, n_rejected = operating_points(
    ...     np.array([2, 3]), np.array([1, 2])
    ... )
    >>> n_missed.tolist(), n_rejected.tolist()
    ([0, 0, 1, 2], [0, 1, 2, 2])
    """
    scores = np.unique(np.concatenate([target, nontarget]))
    thresholds = np.append(-np.inf, scores)
    n_missed = np.searchsorted(target, thresholds, side="right")
    n_rejected = np.searchsorted(nontarget, thresholds, side="right")
    return thresholds, n_missed, n_rejected


def eer(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> tuple[float, float]:
    """Equal error rate: where the miss and false-alarm rates cross.

    See `equal_error` for how it lies between two operating points.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape (T,), finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape (U,), finite.

    Returns
    -------
    eer : float
        The equal error rate, a fraction.
    threshold : float
        That of the nearer operating point, always finite.

    Raises
    ------
    InputError
        As `error_rates`.

    Example
    -------
    >>> eer([2, 3, 4, 5], [0, 1, 2, 3])
    (0.25, 2.0)
    """
    thresholds, p_miss, p_fa = error_rates(target_scores, nontarget_scores)
    value, index = equal_error(p_miss, p_fa)
    return value, float(thresholds[index])


def equal_error(p_miss: np.ndarray, p_fa: np.ndarray) -> tuple[float, int]:
    """Where error rates cross.

    Let (m0, f0) and (m1, f1) be the (p_miss, p_fa) of the two neighbouring
    operating points with m0 < f0 and m1 >= f1. The straight line between them
    meets p_miss = p_fa at

        eer = m0 + (m1 - m0) * (f0 - m0) / ((m1 - m0) + (f0 - f1))

    Arguments
    ---------
    p_miss : np.ndarray
        From 0 up to 1, shape (K,).
    p_fa : np.ndarray
        From 1 down to 0, shape (K,).

    Returns
    -------
    eer : float
    index : int
        Of whichever of the two points has the smaller |p_miss - p_fa|; on a
        tie the upper one, so it is never the first point.

    Example
    -------
    >>> equal_error(np.array([0, 0.5, 1]), np.array([1, 0.25, 0]))
    (0.4, 1)
    """
    after = int(np.argmax(p_miss >= p_fa))
    before = after - 1
    m0, f0 = p_miss[before], p_fa[before]
    m1, f1 = p_miss[after], p_fa[after]
    value = m0 + (m1 - m0) * (f0 - m0) / ((m1 - m0) + (f0 - f1))
    return float(value), after if m1 - f1 <= f0 - m0 else before


def detection_cost(
    p_miss: Rate,
    p_fa: Rate,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> Rate:
    """Normalised detection cost.

    The cost is that of the NIST speaker recognition evaluations,

        c_miss * p_target * p_miss + c_fa * (1 - p_target) * p_fa

    divided by that of the better system that ignores the speech,
    min(c_miss * p_target, c_fa * (1 - p_target)).
    ``speechbrain.utils.metric_stats.minDCF`` does not divide.

    Arguments
    ---------
    p_miss : float or np.ndarray
        Miss rates.
    p_fa : float or np.ndarray
        False-alarm rates.
    p_target : float
        Prior probability of a target trial, inside (0, 1).
    c_miss : float
        Cost of a miss, above 0.
    c_fa : float
        Cost of a false alarm, above 0.

    Returns
    -------
    cost : float or np.ndarray

    Raises
    ------
    InputError
        For a prior or a cost out of range.

    Example
    -------
    >>> detection_cost(0.5, 0.25, p_target=0.5)
    0.75
    """
    miss, fa = _prior_costs(p_target, c_miss, c_fa)
    blind = min(miss, fa)
    return miss / blind * p_miss + fa / blind * p_fa


def min_dcf(
    target_scores: npt.ArrayLike,
    nontarget_scores: npt.ArrayLike,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> tuple[float, float]:
    """Minimum of the normalised detection cost over all thresholds.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape (T,), finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape (U,), finite.
    p_target : float
        As `detection_cost`.
    c_miss : float
        As `detection_cost`.
    c_fa : float
        As `detection_cost`.

    Returns
    -------
    min_dcf : float
        The minimum, in [0, 1].
    threshold : float
        The lowest threshold that reaches it; -inf if that is to accept
        everything.

    Raises
    ------
    InputError
        As `error_rates` and `detection_cost`.

    Example
    -------
    >>> min_dcf([2, 3, 4, 5], [0, 1, 2, 3], p_target=0.5)
    (0.5, 1.0)
    """
    thresholds, p_miss, p_fa = error_rates(target_scores, nontarget_scores)
    cost = detection_cost(p_miss, p_fa, p_target, c_miss, c_fa)
    index = cost.argmin()
    return float(cost[index]), float(thresholds[index])


def act_dcf(
    target_llrs: npt.ArrayLike,
    nontarget_llrs: npt.ArrayLike,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
    """Normalised detection cost where Bayes' rule puts the threshold.

    Scores that are log-likelihood ratios are to be accepted above

        log(c_fa * (1 - p_target) / (c_miss * p_target))

    What the cost there is above `min_dcf` is lost by poor calibration.

    Arguments
    ---------
    target_llrs : array_like
        Natural log-likelihood ratios of the target trials, shape (T,), finite.
    nontarget_llrs : array_like
        Those of the nontarget trials, shape (U,), finite.
    p_target : float
        As `detection_cost`.
    c_miss : float
        As `detection_cost`.
    c_fa : float
        As `detection_cost`.

    Returns
    -------
    act_dcf : float
        0 or more; above 1 it is worse than to ignore the speech.

    Raises
    ------
    InputError
        As `error_rates` and `detection_cost`.

    Example
    -------
    >>> act_dcf([-1, 1, 2, 3], [-3, -2, -1, 1], p_target=0.5)
    0.5
    """
    target, nontarget = _classes(target_llrs, nontarget_llrs)
    miss, fa = _prior_costs(p_target, c_miss, c_fa)
    threshold = np.log(fa / miss)
    p_miss = np.mean(target <= threshold)
    p_fa = np.mean(nontarget > threshold)
    return float(detection_cost(p_miss, p_fa, p_target, c_miss, c_fa))


def cllr(target_llrs: npt.ArrayLike, nontarget_llrs: npt.ArrayLike) -> float:
    """Cost of log-likelihood ratios, over all priors and costs.

    With the mean over the llrs s of each class,

        (mean_target log2(1 + e^-s) + mean_nontarget log2(1 + e^s)) / 2

    Source: Brummer and du Preez, "Application-independent evaluation of
    speaker detection", Computer Speech & Language 20(2-3), 2006.

    Arguments
    ---------
    target_llrs : array_like
        Natural log-likelihood ratios of the target trials, shape (T,), finite.
    nontarget_llrs : array_like
        Those of the nontarget trials, shape (U,), finite.

    Returns
    -------
    cllr : float
        In bits: 0 is perfect, 1 is what llrs of 0 get.

    Raises
    ------
    InputError
        As `error_rates`.

    Example
    -------
    >>> cllr([0, 0], [0])
    1.0
    """
    target, nontarget = _classes(target_llrs, nontarget_llrs)
    nats = np.logaddexp(0, -target).mean() + np.logaddexp(0, nontarget).mean()
    return float(nats / (2 * np.log(2)))


def min_cllr(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> float:
    """The least `cllr` of any increasing function of the scores.

    That function is found by the pool-adjacent-violators algorithm, see the
    source of `cllr`. What `cllr` is above it is lost by poor calibration.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape (T,), finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape (U,), finite.

    Returns
    -------
    min_cllr : float
        In bits, in [0, 1].

    Raises
    ------
    InputError
        As `error_rates`.

    Example
    -------
    >>> min_cllr([1, 2], [-2, -1]), min_cllr([1], [1])
    (0.0, 1.0)
    """
    target, nontarget = _classes(target_scores, nontarget_scores)
    _, n_missed, n_rejected = operating_points(
        np.sort(target), np.sort(nontarget)
    )
    # How many trials of each class have each distinct score.
    targets, nontargets = np.diff(n_missed), np.diff(n_rejected)
    trials = targets + nontargets
    posterior = isotonic_regression(targets / trials, weights=trials).x
    llrs = logit(posterior) - logit(target.size / trials.sum())
    # A score that a class lacks may have an infinite llr there.
    nats = sum(
        np.average(np.logaddexp(0, sign * llrs[n > 0]), weights=n[n > 0])
        for sign, n in ((-1, targets), (1, nontargets))
    )
    return float(nats / (2 * np.log(2)))


def split_trials(
    scores: npt.ArrayLike, labels: npt.ArrayLike, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
    """Checks scores and labels.

    Arguments
    ---------
    scores : array_like
        Shape (N,), finite.
    labels : array_like
        Shape (N,): 1 (or True) for a target trial, 0 for a nontarget trial.
    name : str
        Of the scores, for the messages.

    Returns
    -------
    scores : np.ndarray
        float64, shape (N,).
    is_target : np.ndarray
        bool, shape (N,).

    Raises
    ------
    InputError
        If a class has no trials, a score is NaN or infinite, a label is
        neither 0 nor 1, or lengths differ.

    Example
    -------
    >>> split_trials([0.5, 1], [0, 1])[1].tolist()
    [False, True]
    """
    scores = trial_column(name, scores)
    labels = trial_column("labels", labels, scores.size)
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        raise InputError(
            f"{wrong.size} labels are neither 0 nor 1, the first at index "
            f"{wrong[0]}: use 1 for target trials and 0 for nontarget trials."
        )
    is_target = labels == 1
    for kind, mask in (("target", is_target), ("nontarget", ~is_target)):
        _check_any(kind, mask.any())
    return _finite(name, scores), is_target


def class_scores(name: str, scores: npt.ArrayLike) -> np.ndarray:
    """Checks the scores of one class.

    Arguments
    ---------
    name : str
        "target" or "nontarget", for the messages.
    scores : array_like
        Shape (T,), finite.

    Returns
    -------
    scores : np.ndarray
        float64, shape (T,).

    Raises
    ------
    InputError
        If there are none, or they are not one-dimensional and finite.

    Example
    -------
    >>> class_scores("target", [1, 2])
    array([1., 2.])
    """
    scores = trial_column(f"{name} scores", scores)
    _check_any(name, scores.size)
    return _finite(f"{name} scores", scores)


def trial_column(
    name: str,
    values: npt.ArrayLike,
    n_trials: int | None = None,
    dtype: type | None = np.float64,
) -> np.ndarray:
    """Checks that there is one value per trial.

    Arguments
    ---------
    name : str
        Of the values, for the messages.
    values : array_like
        Shape (N,).
    n_trials : int, optional
        N, where it is known.
    dtype : type, optional
        Of the array; None leaves it to numpy.

    Returns
    -------
    values : np.ndarray
        Shape (N,).

    Raises
    ------
    InputError
        If they have another shape, or are not of this type.

    Example
    -------
    >>> trial_column("speakers", ["a", "b"], 2, dtype=None).tolist()
    ['a', 'b']
    """
    try:
        values = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} cannot be read as one value per trial: {error}"
        ) from error
    if values.ndim != 1:
        raise InputError(
            f"{name} has shape {values.shape}: give one dimension, with one "
            "entry per trial."
        )
    if n_trials not in (None, values.size):
        raise InputError(
            f"{name} has {values.size} entries but there are {n_trials} "
            "scores: give one entry per trial, in the same order."
        )
    return values


def _classes(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    return (
        class_scores("target", target_scores),
        class_scores("nontarget", nontarget_scores),
    )


def _check_any(name: str, there_are: object) -> None:
    if not there_are:
        raise InputError(
            f"there are no {name} trials: error rates need trials of both "
            "classes, so check the labels and the trial list."
        )


def _finite(name: str, scores: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise InputError(
            f"{name}: {wrong.size} of {scores.size} are NaN or infinite, the "
            f"first at index {wrong[0]}: check the embeddings of that trial."
        )
    return scores


def _prior_costs(
    p_target: float, c_miss: float, c_fa: float
) -> tuple[float, float]:
    """What missing, and accepting, everything would cost."""
    if not 0 < p_target < 1:
        raise InputError(
            f"p_target is {p_target}: give a fraction above 0 and below 1."
        )
    for name, cost in (("c_miss", c_miss), ("c_fa", c_fa)):
        if not 0 < cost < np.inf:
            raise InputError(f"{name} is {cost}: give a cost above 0.")
    return c_miss * p_target, c_fa * (1 - p_target)
