"""EER and minDCF against SpeechBrain's, and the bootstrap over speakers.

> OMP_NUM_THREADS=2 python -m benchmarks.metrics [--trials 600000]
"""

import argparse
import time

import numpy as np
import torch
from speechbrain.utils import metric_stats

from speechbrain_hyperbolic.evaluation.bootstrap import (
    bootstrap_intervals,
    compare_systems,
)
from speechbrain_hyperbolic.evaluation.metrics import eer, min_dcf

P_TARGET = 0.01
STOCK_LIMIT = 40_000  # beyond it the stock minDCF takes hundreds of gigabytes


def make_trials(count, speakers):
    """Normal scores with an EER of 2.3 %, their labels and speakers."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2 == 1
    enroll = rng.integers(speakers, size=count)
    other = (enroll + rng.integers(1, speakers, size=count)) % speakers
    scores = rng.normal(size=count) + 4 * labels
    # The stock functions get float32.
    scores = scores.astype(np.float32).astype(np.float64)
    return scores, labels, enroll, np.where(labels, enroll, other)


def timed(name, function, *args):
    start = time.perf_counter()
    result = function(*args)
    print(f"| {name} | {time.perf_counter() - start:.4f} |", flush=True)
    return result


def ours(target, nontarget):
    return eer(target, nontarget)[0], min_dcf(target, nontarget, P_TARGET)[0]


def stock(target, nontarget):
    equal, _ = metric_stats.EER(target, nontarget)
    cost, _ = metric_stats.minDCF(target, nontarget, p_target=P_TARGET)
    return equal, cost / P_TARGET


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=37_720)  # Vox1-O
    count = parser.parse_args().trials
    trials = make_trials(count, 1251 if count > STOCK_LIMIT else 40)
    scores, labels, *speakers = trials
    print(f"{count} trials\n\n| what | s |\n|---|---|")
    classes = scores[labels], scores[~labels]
    found = timed("EER and minDCF", ours, *classes)
    if count <= STOCK_LIMIT:
        tensors = [torch.from_numpy(s).float() for s in classes]
        expected = timed("EER and minDCF of SpeechBrain", stock, *tensors)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    timed("intervals, 1000 draws", bootstrap_intervals, *trials)
    noise = np.random.default_rng(1).normal(0, 0.3, count)
    pair = (scores, scores + noise, labels, *speakers)
    timed("comparison, 1000 draws", compare_systems, *pair)


if __name__ == "__main__":
    main()
