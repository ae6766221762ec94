"""What an EER would be for other speakers and other seeds."""

import numpy as np

from speechbrain_hyperbolic.evaluation import bootstrap

REPLICATES = 1000


def draw_eers(scores, a, b):
    """EERs over draws of the trials' speakers, the same for every system.

    ``a`` and ``b`` are the speakers of each trial, equal in a target trial.
    With few speakers it is None.
    """
    count, sides = bootstrap._speaker_sides(a, b, len(scores))
    if count < bootstrap.MIN_SPEAKERS:
        return None
    system = bootstrap._System(scores, a == b, sides, p_targets=())
    return bootstrap._bootstrap([system], count, REPLICATES, seed=0)[0, :, 0]


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
    return np.percentile(drawn, [2.5, 97.5])


def difference(base, other, base_drawn, other_drawn):
    """How far an EER is above another: change in %, its interval, and p.

    The EERs are those of the same seeds, the draws [seeds, replicates]. Without
    draws, and with a single seed, there is neither interval nor p.
    """
    change = 100 * (np.mean(other) / np.mean(base) - 1) if any(base) else np.nan
    if base_drawn is None or other_drawn is None or len(base) < 2:
        return change, None, None
    drawn_base, drawn_other = over_seeds(base_drawn, other_drawn)
    if not drawn_base.all():
        return change, None, None
    drawn = 100 * (drawn_other / drawn_base - 1)
    return change, interval(drawn), bootstrap.p_value(np.round(drawn, 9))


def in_words(change, bounds, p):
    """A difference as a cell of a table."""
    text = f"{change:+.1f} %"
    if bounds is None:
        return f"{text} (no interval)"
    return f"{text} ({bounds[0]:+.1f} to {bounds[1]:+.1f}), p {p:.3f}"
