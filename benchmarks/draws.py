"""EERs for other speakers and other seeds."""

import statistics

import numpy as np

from speechbrain_hyperbolic.evaluation.bootstrap import (
    MIN_SPEAKERS,
    System,
    draw_rates,
    p_value,
)


def draw_eers(scores, a, b):
    """EERs over draws of the trials' speakers, the same for every system.

    ``a`` and ``b`` are the speakers of each trial, equal in a target trial.
    With few speakers the result is None.
    """
    system = System(scores, a == b, a, b, p_targets=())
    if system.n_speakers < MIN_SPEAKERS:
        return None
    return draw_rates([system], replicates=1000, seed=0)[0, :, 0]


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


def difference(base, other):
    """How far an EER is above another: change in %, its interval, and p.

    Each side is the EERs of the same seeds and their draws, a list of arrays.
    Without draws there is no interval; with one seed it is over speakers only,
    and there is no p.
    """
    (rates, drawn), (other_rates, other_drawn) = base, other
    mean = np.mean(rates)
    change = 100 * (np.mean(other_rates) / mean - 1) if mean else np.nan
    if any(of is None for of in [*drawn, *other_drawn]):
        return change, None, None
    a, b = over_seeds(np.array(drawn), np.array(other_drawn))
    if not a.all():
        return change, None, None
    drawn = 100 * (b / a - 1)
    p = p_value(np.round(drawn, 9)) if len(rates) > 1 else None
    return change, interval(drawn), p


def in_words(change, bounds, p):
    """A difference as a cell of a table."""
    text = f"{change:+.1f} %"
    if bounds is None:
        return f"{text} (no interval)"
    text += f" ({bounds[0]:+.1f} to {bounds[1]:+.1f})"
    return f"{text}, one seed" if p is None else f"{text}, p {p:.3f}"


def mean_text(values, digits=2):
    """The mean and, of several values, the standard deviation."""
    text = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text
