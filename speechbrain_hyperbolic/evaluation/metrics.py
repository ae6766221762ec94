"""Error rates of a speaker-verification system.

A trial is a score and a label: target (the same speaker) or nontarget
(different speakers). It is accepted when its score is above the threshold, as
in ``speechbrain.utils.metric_stats``. All rates are fractions, not percentages.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from speechbrain_hyperbolic.errors import InputError, is_finite

P_TARGETS = (0.01, 0.05)

Rate = TypeVar("Rate", float, np.ndarray)


def error_rates(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds (-inf, then the distinct scores), miss and false-alarm rates.

    >>> [rates.tolist() for rates in error_rates([2, 3], [1, 2])]
    [[-inf, 1.0, 2.0, 3.0], [0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0]]
    """
    thresholds, n_missed, n_rejected = operating_points(
        target_scores, nontarget_scores
    )
    # The highest threshold rejects everything.
    n_target, n_nontarget = n_missed[-1], n_rejected[-1]
    p_fa = (n_nontarget - n_rejected) / n_nontarget
    return thresholds, n_missed / n_target, p_fa


def operating_points(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, and how many scores of each class they reject."""
    target = np.sort(class_scores("target scores", target_scores))
    nontarget = np.sort(class_scores("nontarget scores", nontarget_scores))
    scores = np.unique(np.concatenate([target, nontarget]))
    thresholds = np.append(-np.inf, scores)
    n_missed = np.searchsorted(target, thresholds, side="right")
    n_rejected = np.searchsorted(nontarget, thresholds, side="right")
    return thresholds, n_missed, n_rejected


def eer(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> tuple[float, float]:
    """Equal error rate: where the miss and false-alarm rates cross.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape [T], finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape [U], finite.

    Returns
    -------
    eer : float
        The equal error rate, a fraction, on the straight line between the two
        operating points around the crossing.
    threshold : float
        That of the nearer operating point, always finite.

    Example
    -------
    >>> eer([2, 3, 4, 5], [0, 1, 2, 3])
    (0.25, 2.0)
    """
    thresholds, p_miss, p_fa = error_rates(target_scores, nontarget_scores)
    value, index = equal_error(p_miss, p_fa)
    return value, float(thresholds[index])


def equal_error(p_miss: np.ndarray, p_fa: np.ndarray) -> tuple[float, int]:
    """The equal error rate of an error curve, and its threshold's index."""
    # The rates cross between the neighboring points (m0, f0) and (m1, f1) with
    # m0 < f0 and m1 >= f1.
    after = int(np.argmax(p_miss >= p_fa))
    before = after - 1
    m0, f0 = p_miss[before], p_fa[before]
    m1, f1 = p_miss[after], p_fa[after]
    value = m0 + (m1 - m0) * (f0 - m0) / ((m1 - m0) + (f0 - f1))
    # On a tie the upper one, which is never the first point.
    return float(value), after if m1 - f1 <= f0 - m0 else before


def least_cost(
    p_miss: np.ndarray, p_fa: np.ndarray, p_target: float
) -> tuple[float, int]:
    """The least cost on an error curve, and the index of its threshold."""
    cost = detection_cost(p_miss, p_fa, p_target)
    index = int(cost.argmin())
    return float(cost[index]), index


def detection_cost(p_miss: Rate, p_fa: Rate, p_target: float) -> Rate:
    """The cost of NIST, over that of the better system that hears nothing."""
    check_prior(p_target)
    cost = p_target * p_miss + (1 - p_target) * p_fa
    return cost / min(p_target, 1 - p_target)


def min_dcf(
    target_scores: npt.ArrayLike,
    nontarget_scores: npt.ArrayLike,
    p_target: float = 0.01,
) -> tuple[float, float]:
    """Minimum of the normalized detection cost over all thresholds.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape [T], finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape [U], finite.
    p_target : float
        Prior probability of a target trial, inside (0, 1).

    Returns
    -------
    min_dcf : float
        The minimum, in [0, 1]. (SpeechBrain's is not normalized.)
    threshold : float
        The lowest threshold that reaches it; -inf if that is to accept
        everything.

    Example
    -------
    >>> min_dcf([2, 3, 4, 5], [0, 1, 2, 3], p_target=0.5)
    (0.5, 1.0)
    """
    thresholds, p_miss, p_fa = error_rates(target_scores, nontarget_scores)
    value, index = least_cost(p_miss, p_fa, p_target)
    return value, float(thresholds[index])


def act_dcf(
    target_llrs: npt.ArrayLike,
    nontarget_llrs: npt.ArrayLike,
    p_target: float = 0.01,
) -> float:
    """Detection cost of log-likelihood ratios at Bayes' threshold."""
    target = class_scores("target scores", target_llrs)
    nontarget = class_scores("nontarget scores", nontarget_llrs)
    threshold = -logit(p_target)
    p_miss = np.mean(target <= threshold)
    p_fa = np.mean(nontarget > threshold)
    return float(detection_cost(p_miss, p_fa, p_target))


def cllr(target_llrs: npt.ArrayLike, nontarget_llrs: npt.ArrayLike) -> float:
    """Cost of log-likelihood ratios over all priors and costs, in bits.

    Source: Brummer and du Preez, "Application-independent evaluation of speaker
    detection", Computer Speech & Language 20(2-3), 2006.
    """
    target = class_scores("target scores", target_llrs)
    nontarget = class_scores("nontarget scores", nontarget_llrs)
    nats = np.logaddexp(0, -target).mean() + np.logaddexp(0, nontarget).mean()
    return float(nats / (2 * np.log(2)))


def split_trials(
    scores: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Checks scores and labels, and returns both, the labels as a mask."""
    scores = class_scores("scores", scores)
    labels = np.asarray(labels)
    if labels.shape != scores.shape or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"there are {labels.size} labels for {scores.size} scores, "
            "expected as many: 1 for target and 0 for nontarget trials"
        )
    return scores, labels == 1


def class_scores(name: str, scores: npt.ArrayLike) -> np.ndarray:
    """Checks scores, named as in "target scores"."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1:
        raise InputError(
            f"{name}: the shape is {scores.shape}, expected one score per trial"
        )
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise InputError(
            f"{name}: {wrong.size} of {scores.size} are NaN or infinite, the "
            f"first at index {wrong[0]}: check the embeddings of that trial"
        )
    if not scores.size:
        raise InputError(
            f"there are no {name}: error rates need trials of both classes, so "
            "check the labels and the trial list"
        )
    return scores


def check_prior(p_target: float) -> None:
    """Checks the prior probability of a target trial."""
    if not (is_finite(p_target) and 0 < p_target < 1):
        raise InputError(
            f"p_target is {p_target}, expected a number above 0 and below 1"
        )


def check_priors(p_targets: Sequence[float]) -> None:
    """Checks a list of priors."""
    if not (isinstance(p_targets, Sequence) and p_targets):
        raise InputError(
            f"p_targets is {p_targets!r}, expected a list such as [0.01, 0.05]"
        )
    for p_target in p_targets:
        check_prior(p_target)


def metric_cell(
    name: str,
    value: float,
    interval: Sequence[float] | None = None,
    sign: str = "",
) -> tuple[str, str]:
    """The title and the text of a metric: "EER %", "1.23 [1.00, 2.00]"."""
    title, factor, digits = name.capitalize(), 1, 3
    if name == "eer":
        title, factor, digits = "EER %", 100, 2
    elif "_dcf_" in name:
        kind, p_target = name.split("_dcf_")
        title = f"{kind}DCF({p_target})"
    text, *bounds = (
        f"{factor * x:{sign}.{digits}f}" for x in (value, *(interval or ()))
    )
    return title, f"{text} [{', '.join(bounds)}]" if bounds else text


def markdown(rows: list[list[str]]) -> str:
    """An aligned Markdown table; the first row is its header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = (map(str.ljust, row, widths) for row in rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
