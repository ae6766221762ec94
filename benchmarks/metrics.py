"""EER and minDCF against SpeechBrain's.

> OMP_NUM_THREADS=2 python -m benchmarks.metrics [--trials 600000]
"""

import time

import numpy as np
import torch
from speechbrain.utils import metric_stats

from benchmarks import read_options, table
from speechbrain_hyperbolic.evaluation.metrics import eer, min_dcf

P_TARGET = 0.01
STOCK_LIMIT = 40_000  # beyond it the stock minDCF takes hundreds of gigabytes


def make_trials(count):
    """Normal scores of targets and of nontargets, with an EER of 2.3 %."""
    scores = np.random.default_rng(0).normal(size=(2, count // 2))
    scores[0] += 4
    return scores.astype(np.float32).astype(np.float64)  # as the stock has them


def ours(target, nontarget):
    return eer(target, nontarget)[0], min_dcf(target, nontarget, P_TARGET)[0]


def stock(target, nontarget):
    target, nontarget = (
        torch.from_numpy(s).float() for s in (target, nontarget)
    )
    equal, _ = metric_stats.EER(target, nontarget)
    cost, _ = metric_stats.minDCF(target, nontarget, p_target=P_TARGET)
    return equal, cost / P_TARGET


def main():
    count = read_options(__doc__, trials=37_720).trials  # of Vox1-O
    systems = {"ours": ours}
    if count <= STOCK_LIMIT:
        systems["SpeechBrain"] = stock
    rows, found = [], []
    for name, system in systems.items():
        begin = time.perf_counter()
        found.append(system(*make_trials(count)))
        rows.append({"system": name, "s": time.perf_counter() - begin})
    np.testing.assert_allclose(found[0], found[-1], atol=1e-4)
    print(table(rows))


if __name__ == "__main__":
    main()
