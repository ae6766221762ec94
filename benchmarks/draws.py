"""What error rates would be of other speakers and other seeds.

The draws of speakers are those of ``significance.bootstrap_intervals``: a
trial of speakers a and b counts w_a * w_b times, one of a alone w_a times. They
are the same for every system with as many speakers.
"""

from typing import NamedTuple

import numpy as np

from speechbrain_hyperbolic import significance
from speechbrain_hyperbolic.metrics import eer, min_dcf

P_TARGET = 0.01
REPLICATES = 1000
# Draws are kept as whole numbers of this
UNIT = 1e-5
LEVEL = 95
# Thresholds of the bootstrap: quantiles of either class
_QUANTILES = 1000


class Runs(NamedTuple):
    """A figure of the trainings of a system.

    Arguments
    ---------
    values : np.ndarray
        One for each training, shape [runs].
    draws : np.ndarray
        Over draws of speakers, shape [runs, replicates].
    """

    values: np.ndarray
    draws: np.ndarray


def measure(scores, a, b, n_speakers, subsets, cost_of="all"):
    """EER and minDCF of trials, and what they are over draws of speakers.

    The draws are taken at 2,000 thresholds, where each speaker pair's scores
    are counted once.

    Arguments
    ---------
    scores : np.ndarray
        Shape [trials].
    a, b : np.ndarray
        The numbers of their speakers, shape [trials]; the same: a target trial.
    n_speakers : int
    subsets : dict
        Name -> which trials, booleans of shape [trials]. One without both
        classes is left out.
    cost_of : str
        The subset whose minDCF is drawn too.

    Returns
    -------
    metrics : dict
        Subset -> {"eer", "min_dcf", "n_target", "n_nontarget"}.
    draws : dict
        Subset -> {"eer"}, of ``cost_of`` "min_dcf" too: a list each, in units
        of 1e-5; None for a draw without trials of both classes.
    """
    a, b = np.minimum(a, b), np.maximum(a, b)
    target = a == b
    thresholds = np.unique(
        [_quantiles(scores[target]), _quantiles(scores[~target])]
    )
    place = np.searchsorted(thresholds, scores, side="right")
    pair = a * n_speakers + b
    bins = len(thresholds) + 1
    weights = np.random.default_rng(0).multinomial(
        n_speakers, np.full(n_speakers, 1 / n_speakers), size=REPLICATES
    )
    metrics, draws = {}, {}
    for subset, kept in subsets.items():
        chosen = scores[kept & target], scores[kept & ~target]
        if not all(map(len, chosen)):
            continue
        metrics[subset] = {
            "eer": eer(*chosen)[0],
            "min_dcf": min_dcf(*chosen, P_TARGET)[0],
            "n_target": len(chosen[0]),
            "n_nontarget": len(chosen[1]),
        }
        rates = [
            _rates(pair[mask], place[mask], bins, weights)
            for mask in (kept & target, kept & ~target)
        ]
        # What is rejected of the targets, and accepted of the others
        p_miss, p_fa = rates[0], 1 - rates[1]
        draws[subset] = {"eer": _crossing(p_miss, p_fa)}
        if subset == cost_of:
            costs = p_miss + (1 / P_TARGET - 1) * p_fa
            draws[subset]["min_dcf"] = costs.min(axis=1).clip(max=1)
    for values in draws.values():
        for name, drawn in values.items():
            values[name] = [
                None if np.isnan(value) else round(value / UNIT)
                for value in drawn
            ]
    return metrics, draws


def in_one_group(labels, a, b):
    """Which trials are of two speakers of one known group.

    Arguments
    ---------
    labels : sequence of str
        Of each speaker; "" where it is not known.
    a, b : np.ndarray
        The numbers of the trials' speakers, shape [trials].

    Returns
    -------
    chosen : np.ndarray
        Booleans, shape [trials].
    """
    _, label = np.unique(labels, return_inverse=True)
    known = np.array([name != "" for name in labels])
    return (label[a] == label[b]) & known[a] & known[b]


def over_draws(*systems):
    """Means over draws of speakers and of seeds, the same for all systems.

    Of n seeds n - 1 are drawn, as the mean of n drawn ones has (n - 1) / n of
    the variance that it should have. One seed has none.

    Arguments
    ---------
    *systems : Runs
        Of the same seeds, in the same order.

    Returns
    -------
    means : list of np.ndarray
        Shape [replicates] each.
    """
    cells, replicates = systems[0].draws.shape
    size = (max(1, cells - 1), replicates)
    drawn = np.random.default_rng(1).integers(cells, size=size)
    columns = np.arange(replicates)
    return [of.draws[drawn, columns].mean(axis=0) for of in systems]


def interval(drawn):
    """The middle 95 % of draws."""
    tail = (100 - LEVEL) / 2
    return np.nanpercentile(drawn, [tail, 100 - tail])


def p_value(drawn):
    """Two-sided; draws without trials of both classes do not count."""
    return significance.p_value(np.round(drawn[~np.isnan(drawn)], 9))


def difference(base, other):
    """How much more one figure is than another, of the same trainings' seeds.

    Arguments
    ---------
    base, other : Runs
        Of the same seeds, in the same order.

    Returns
    -------
    text : str
        Relative, with its interval and p-value; in points where the base may
        be 0.
    """
    drawn_base, drawn_other = over_draws(base, other)
    # One seed says nothing of other trainings.
    p = p_value(drawn_other - drawn_base) if len(base.values) > 1 else None
    p = "one seed" if p is None else f"{p:.3f}"
    means = base.values.mean(), other.values.mean()
    if np.nanmin(drawn_base) <= 0:  # there is no relative difference to none
        return f"{means[1] - means[0]:+.2f} points, {p}"
    change = 100 * (means[1] / means[0] - 1)
    low, high = interval(100 * (drawn_other / drawn_base - 1))
    return f"{change:+.1f} % ({low:+.1f} to {high:+.1f}), {p}"


def _quantiles(scores):
    return np.quantile(scores, np.linspace(0, 1, _QUANTILES))


def _rates(pair, place, bins, weights):
    """The share below each threshold, for each draw of speakers."""
    pairs, row = np.unique(pair, return_inverse=True)
    counts = np.bincount(row * bins + place, minlength=len(pairs) * bins)
    counts = counts.reshape(len(pairs), bins).astype(np.float32)
    a, b = np.divmod(pairs, weights.shape[1])
    times = np.where(a == b, weights[:, a], weights[:, a] * weights[:, b])
    below = (times.astype(np.float32) @ counts).astype(np.float64)
    below = below.cumsum(axis=1)
    whole = below[:, -1:]
    return below[:, :-1] / np.where(whole > 0, whole, np.nan)


def _crossing(p_miss, p_fa):
    """Where the two rates meet, between thresholds by a line."""
    after = (p_miss >= p_fa).argmax(axis=1)
    row = np.arange(len(after))
    before = np.maximum(after - 1, 0)
    gap = (p_fa - p_miss)[row, before], (p_miss - p_fa)[row, after]
    share = np.divide(
        gap[0], gap[0] + gap[1], out=np.zeros(len(row)), where=sum(gap) > 0
    )
    low, high = p_miss[row, before], p_miss[row, after]
    crossing = low + share * (high - low)
    return np.where(np.isnan(p_miss + p_fa).any(axis=1), np.nan, crossing)
