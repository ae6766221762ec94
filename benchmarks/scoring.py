"""Scoring of trials with AS-norm, against the loop of the stock script.

> OMP_NUM_THREADS=2 SPEECHBRAIN_CLONE=/path/to/speechbrain \
      python -m benchmarks.scoring [--trials 6000]

The embeddings are random: their values do not change the time. The stock loop
is timed on a sample of the trials.
"""

import tempfile
import time

import numpy as np
import torch

from benchmarks import read_options, stock_clone, stock_module, table
from speechbrain_hyperbolic.evaluation.normalization import (
    cohort_statistics,
    normalize,
)
from speechbrain_hyperbolic.evaluation.scores import make_score

TOP_K = 300
SAMPLE = 100


def score_trials(views, cohort, rows):
    """From embeddings to normalized scores."""
    score = make_score("cosine")
    utterances, others = score.prepare(views), score.prepare(cohort)
    statistics = cohort_statistics(score, utterances, others, TOP_K)
    scores = score.trials(utterances, utterances, *rows)
    return normalize("as-norm", scores, *rows, statistics, statistics)


def score_by_stock(views, cohort, rows):
    """The scores of the stock script."""
    stock = stock_module("speaker_verification_cosine")
    # What its main part leaves in its globals
    stock.train_dict = {str(i): cohort[i] for i in range(len(cohort))}
    stock.enrol_dict = {str(i): views[i] for i in rows[0]}
    stock.test_dict = {str(i): views[i] for i in rows[1]}
    # All are labeled as targets, so that the scores keep their order.
    lines = [f"1 {e}.wav {t}.wav" for e, t in zip(*rows, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        stock.params = {
            "output_folder": folder,
            "score_norm": "s-norm",
            "cohort_size": TOP_K,
        }
        scores, _ = stock.get_verification_scores(lines)
    return torch.cat(scores).numpy()


def main():
    n_trials = read_options(__doc__, trials=600_000).trials
    utterances = n_trials // 4
    torch.manual_seed(0)
    views, cohort = torch.randn(utterances, 1, 192), torch.randn(6000, 1, 192)
    rows = np.random.default_rng(0).integers(utterances, size=(2, n_trials))
    systems = {"ours": (score_trials, rows)}
    if stock_clone():
        systems["stock loop"] = score_by_stock, rows[:, :SAMPLE]
    found, printed = [], []
    for name, (system, its_rows) in systems.items():
        start, trials = time.perf_counter(), its_rows.shape[1]
        found.append(system(views, cohort, its_rows))
        seconds = time.perf_counter() - start
        row = {"system": name, "trials": trials, "s": seconds}
        printed.append(row | {"microseconds a trial": 1e6 * seconds / trials})
    few = len(found[-1])
    np.testing.assert_allclose(found[0][:few], found[-1], 1e-4, 1e-4)
    print(table(printed))


if __name__ == "__main__":
    main()
