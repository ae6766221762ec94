"""EER and minDCF against SpeechBrain's, and the bootstrap over speakers."""

import numpy as np
import torch
from speechbrain.utils import metric_stats

from benchmarks.measure import ratio, row, times, title
from speechbrain_hyperbolic.metrics import eer, min_dcf
from speechbrain_hyperbolic.significance import (
    bootstrap_intervals,
    compare_systems,
)

# Of the size of VoxCeleb1-O and of VoxCeleb1-E, half of them target trials.
SIZES = {37720: 40, 600000: 1251}  # trials: speakers
WITH_STOCK = 37720  # beyond it the stock minDCF takes hundreds of gigabytes
P_TARGET = 0.01
TOLERANCE = 1e-4
REPLICATES = 1000
OURS = "this package"
STOCK = "SpeechBrain"


def trials(count, speakers):
    """Normal scores with an EER of 2.3 %, their labels and speakers."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2 == 1
    enrol = rng.integers(speakers, size=count)
    other = (enrol + rng.integers(1, speakers, size=count)) % speakers
    scores = rng.normal(size=count) + 4 * labels
    # To float32, which is what the stock functions get.
    scores = scores.astype(np.float32).astype(np.float64)
    return scores, labels, enrol, np.where(labels, enrol, other)


def ours(target, nontarget):
    equal, _ = eer(target, nontarget)
    cost, _ = min_dcf(target, nontarget, P_TARGET)
    return equal, cost


def stock(target, nontarget):
    equal, _ = metric_stats.EER(target, nontarget)
    cost, _ = metric_stats.minDCF(target, nontarget, p_target=P_TARGET)
    return equal, cost / P_TARGET


def compare(count, scores, labels, rounds):
    """Rows of the table of error rates."""
    classes = scores[labels], scores[~labels]
    tensors = [torch.from_numpy(of).float() for of in classes]
    found = {}
    cases = {OURS: lambda: found.update({OURS: ours(*classes)})}
    if count <= WITH_STOCK:
        cases[STOCK] = lambda: found.update({STOCK: stock(*tensors)})
    seconds = times(cases, rounds, slow=(STOCK,))
    for values in found.values():
        difference = np.abs(np.subtract(values, found[OURS])).max()
        assert difference < TOLERANCE, found
    for name, of in seconds.items():
        target = "≤ 1/1000" if name == STOCK else ""
        row(count, name, f"{of:.4f}", ratio(seconds[OURS], of), target)


def main(quick):
    rounds = 1 if quick else 10
    sizes = {500: 20} if quick else SIZES
    data = {count: trials(count, of) for count, of in sizes.items()}
    title(
        f"EER and minDCF({P_TARGET}) of normal scores, {rounds} rounds",
        *("trials", "system", "s", "ours / it", "target"),
    )
    for count, (scores, labels, *_) in data.items():
        compare(count, scores, labels, rounds)

    title(
        f"Bootstrap, {REPLICATES} draws of speakers",
        *("trials", "speakers", "what", "s"),
    )
    noise = np.random.default_rng(1)
    for count, (scores, *of) in data.items():
        other = scores + noise.normal(0, 0.3, count)
        cases = {
            "intervals": lambda a=scores, of=of: bootstrap_intervals(a, *of),
            "comparison of two systems": lambda a=scores, b=other, of=of: (
                compare_systems(a, b, *of)
            ),
        }
        for name, seconds in times(cases, 1).items():
            row(count, sizes[count], name, f"{seconds:.2f}")
