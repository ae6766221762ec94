"""What an EER would be for other speakers and other seeds.

Speakers are drawn as in ``evaluation.bootstrap``: a trial of speakers a and b
counts w_a * w_b times, one within a speaker w_a times. The draws are the same
for every system with the same trials.
"""

import numpy as np

from speechbrain_hyperbolic.evaluation.bootstrap import MIN_SPEAKERS, p_value

REPLICATES = 1000
_QUANTILES = 1000  # thresholds taken from each class


def draw_eers(scores, a, b, n_speakers):
    """EERs over draws of speakers, NaN where a draw lacks a class.

    They are taken at 2,000 thresholds, where the scores of each pair of
    speakers are counted once: exact ones would sort millions of scores in
    every draw.
    """
    a, b = np.minimum(a, b), np.maximum(a, b)
    target = a == b
    quantiles = np.linspace(0, 1, _QUANTILES)
    thresholds = np.unique(
        [np.quantile(scores[mask], quantiles) for mask in (target, ~target)]
    )
    place = np.searchsorted(thresholds, scores, side="right")
    weights = np.random.default_rng(0).multinomial(
        n_speakers, np.full(n_speakers, 1 / n_speakers), size=REPLICATES
    )
    below = [
        _below(a[mask], b[mask], place[mask], len(thresholds) + 1, weights)
        for mask in (target, ~target)
    ]
    return _crossing(below[0], 1 - below[1])


def _below(a, b, place, bins, weights):
    """The share of trials below each threshold, for each draw of speakers."""
    pairs, row = np.unique(a * weights.shape[1] + b, return_inverse=True)
    counts = np.bincount(row * bins + place, minlength=len(pairs) * bins)
    counts = counts.reshape(len(pairs), bins).astype(np.float32)
    a, b = np.divmod(pairs, weights.shape[1])
    times = np.where(a == b, weights[:, a], weights[:, a] * weights[:, b])
    below = (times.astype(np.float32) @ counts).astype(float).cumsum(axis=1)
    total = below[:, -1:]
    return below[:, :-1] / np.where(total > 0, total, np.nan)


def _crossing(p_miss, p_fa):
    """Where the two rates meet, by a straight line between thresholds."""
    after = (p_miss >= p_fa).argmax(axis=1)
    row, before = np.arange(len(after)), np.maximum(after - 1, 0)
    gaps = (p_fa - p_miss)[row, before], (p_miss - p_fa)[row, after]
    share = np.divide(
        gaps[0], sum(gaps), out=np.zeros(len(row)), where=sum(gaps) > 0
    )
    low, high = p_miss[row, before], p_miss[row, after]
    crossing = low + share * (high - low)
    return np.where(np.isnan(p_miss + p_fa).any(axis=1), np.nan, crossing)


def over_seeds(*systems):
    """Means over draws of seeds, the same seeds for all systems.

    Each is [seeds, replicates]. Of n seeds n - 1 are drawn: the mean of n drawn
    ones would have (n - 1) / n of the variance that it should have.
    """
    seeds, replicates = systems[0].shape
    size = (max(1, seeds - 1), replicates)
    drawn = np.random.default_rng(1).integers(seeds, size=size)
    columns = np.arange(replicates)
    return [of[drawn, columns].mean(axis=0) for of in systems]


def interval(drawn):
    """The middle 95 % of draws."""
    return np.nanpercentile(drawn, [2.5, 97.5])


def difference(base, other, base_drawn=None, other_drawn=None):
    """How far an EER is above another: change in %, its interval, and p.

    The EERs are those of the same seeds, the draws [seeds, replicates]. Without
    draws, and from a single seed, there is neither interval nor p.
    """
    change = 100 * (np.mean(other) / np.mean(base) - 1) if any(base) else np.nan
    if base_drawn is None or other_drawn is None or len(base) < 2:
        return change, None, None
    drawn_base, drawn_other = over_seeds(base_drawn, other_drawn)
    usable = drawn_base > 0
    if not usable.any():
        return change, None, None
    drawn = 100 * (drawn_other[usable] / drawn_base[usable] - 1)
    return change, interval(drawn), p_value(np.round(drawn, 9))


def enough_speakers(trials):
    """Whether draws of the speakers mean anything."""
    return trials.n_speakers >= MIN_SPEAKERS


def in_words(change, bounds, p):
    """A difference as a cell of a table."""
    text = f"{change:+.1f} %"
    if bounds is None:
        return f"{text} (no interval)"
    return f"{text} ({bounds[0]:+.1f} to {bounds[1]:+.1f}), p {p:.3f}"
