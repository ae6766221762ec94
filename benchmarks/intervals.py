"""Do 95 % intervals hold the truth? Simulated trials whose truth is known.

> OMP_NUM_THREADS=1 python -m benchmarks.intervals [--data_sets 300]

Speakers differ in how well they are told from others, and pairs of speakers in
how alike they sound; scores are normal. Over all speakers, targets are N(m, v)
and nontargets N(0, w), which gives the true EER and minDCF. A row says how
often the interval is given, and how often a given one holds the truth.
"""

from statistics import NormalDist

import numpy as np

from benchmarks import read_options, table
from speechbrain_hyperbolic.evaluation.bootstrap import (
    bootstrap_intervals,
    metric_names,
)
from speechbrain_hyperbolic.evaluation.metrics import P_TARGETS, detection_cost

# Standard deviations of speakers in target and in nontarget trials, of pairs
TARGET, NONTARGET, PAIR = 0.7, 0.5, 0.5
V = 1 + TARGET**2
W = 1 + 2 * NONTARGET**2 + PAIR**2
# Speakers, EER, target trials of a speaker, nontarget trials of a pair
CASES = [
    (30, 0.07, 20, 24),
    (30, 0.02, 20, 24),
    (30, 0.005, 20, 6),
    (60, 0.07, 20, 6),
    (60, 0.02, 20, 1),
    (60, 0.02, 20, 6),
    (60, 0.005, 20, 6),
    (125, 0.07, 20, 2),
    (125, 0.02, 20, 2),
    (125, 0.005, 20, 1),
]


def mean_at(eer):
    """The mean of target scores that gives an EER."""
    return -NormalDist().inv_cdf(eer) * (V**0.5 + W**0.5)


def true_values(eer):
    """The EER and the minDCF at each prior, over all speakers."""
    normal, mean = NormalDist(), mean_at(eer)
    thresholds = np.linspace(-3, mean + 3, 2000)
    p_miss, p_fa = (
        np.array([normal.cdf(float(x)) for x in side])
        for side in ((thresholds - mean) / V**0.5, -thresholds / W**0.5)
    )
    costs = (detection_cost(p_miss, p_fa, p).min() for p in P_TARGETS)
    return [eer, *map(float, costs)]


def simulate(rng, n_speakers, eer, per_speaker, per_pair):
    """Scores, labels and both speakers of trials."""
    a, b = np.triu_indices(n_speakers, 1)
    alike = np.repeat(rng.normal(0, PAIR, a.size), per_pair)
    a, b = np.repeat(a, per_pair), np.repeat(b, per_pair)
    ease = rng.normal(size=n_speakers)
    own = np.repeat(np.arange(n_speakers), per_speaker)
    target = mean_at(eer) + rng.normal(size=own.size) + TARGET * ease[own]
    nontarget = rng.normal(size=a.size) + alike
    nontarget -= NONTARGET * (ease[a] + ease[b])
    labels = np.repeat([1, 0], [own.size, a.size])
    scores = np.concatenate([target, nontarget])
    return scores, labels, np.append(own, a), np.append(own, b)


def coverage(case, n_data_sets, replicates=400, seed=0):
    """Per metric: how often an interval is given, and holds the truth."""
    rng = np.random.default_rng(seed)
    truth = true_values(case[1])
    held = [[] for _ in truth]
    for number in range(n_data_sets):
        trials = simulate(rng, *case)
        found = bootstrap_intervals(*trials, replicates, number)
        for i, interval in enumerate(found.values()):
            if interval:
                held[i].append(interval[0] <= truth[i] <= interval[1])
    return [(len(h) / n_data_sets, np.mean(h) if h else np.nan) for h in held]


def main():
    data_sets = read_options(__doc__, data_sets=300).data_sets
    rows = []
    for seed, case in enumerate(CASES, 100):
        both = true_values(case[1]), coverage(case, data_sets, seed=seed)
        names = metric_names()
        for name, truth, (given, held) in zip(names, *both, strict=True):
            row = {"speakers": case[0], "metric": name, "truth": truth}
            rows.append(row | {"given": given, "holds the truth": held})
    print(table(rows))


if __name__ == "__main__":
    main()
