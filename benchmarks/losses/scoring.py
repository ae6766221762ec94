"""Error rates of a cell over all pairs of its trial utterances."""

import numpy as np

from speechbrain_hyperbolic.metrics import eer, min_dcf

P_TARGET = 0.01
# Nontarget trials of which speakers: a column of the speaker table
SUBSETS = {"all": None, "same_sex": "sex", "same_age_group": "age_group"}
REPLICATES = 1000
# Thresholds of the bootstrap: quantiles of either class
_QUANTILES = 1000
# Draws are kept as whole numbers of this
UNIT = 1e-5


def measure(embeddings, rows, speakers):
    """EER and minDCF by cosine, and what they are over draws of speakers.

    The draws are those of ``significance.bootstrap_intervals``: a trial of
    speakers a and b counts w_a * w_b times, one of a alone w_a times. They
    are the same for every system with these speakers. They are taken at 2,000
    thresholds, where each speaker pair's scores are counted once.

    Arguments
    ---------
    embeddings : np.ndarray
        Shape [N, D].
    rows : list of dict
        Of the embeddings, with "speaker".
    speakers : dict
        Speaker -> row of the speaker table.

    Returns
    -------
    metrics : dict
        Subset -> {"eer", "min_dcf", "n_target", "n_nontarget"}.
    draws : dict
        Subset -> {"eer"}, of all trials "min_dcf" too: a list each, in units
        of 1e-5; None for a draw without trials of both classes.
    """
    names, speaker = np.unique(
        [row["speaker"] for row in rows], return_inverse=True
    )
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    scores = (unit @ unit.T)[first, second]
    a, b = speaker[first], speaker[second]
    a, b = np.minimum(a, b), np.maximum(a, b)
    target = a == b
    thresholds = np.unique(
        [_quantiles(scores[target]), _quantiles(scores[~target])]
    )
    place = np.searchsorted(thresholds, scores, side="right")
    pair = a * len(names) + b
    bins = len(thresholds) + 1
    weights = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=REPLICATES
    )
    metrics, draws = {}, {}
    for subset, column in SUBSETS.items():
        kept = target.copy()
        if column is None:
            kept[:] = True
        else:
            labels = [speakers.get(n, {}).get(column) or "" for n in names]
            _, label = np.unique(labels, return_inverse=True)
            known = np.array([label != "" for label in labels])
            kept = (label[a] == label[b]) & known[a] & known[b]
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
        if column is None:
            costs = p_miss + (1 / P_TARGET - 1) * p_fa
            draws[subset]["min_dcf"] = costs.min(axis=1).clip(max=1)
    for values in draws.values():
        for name, drawn in values.items():
            values[name] = [
                None if np.isnan(value) else round(value / UNIT)
                for value in drawn
            ]
    return metrics, draws


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
