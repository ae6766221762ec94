"""Scoring of trials with AS-norm, against the loop of the stock script and
against WeSpeaker.

> OMP_NUM_THREADS=1 SPEECHBRAIN_CLONE=/path/to/speechbrain \
      WESPEAKER_CLONE=/path/to/wespeaker python -m benchmarks.scoring

The embeddings are random: their values do not change the time. The stock loop
has a sample of the trials; WeSpeaker's statistics are of both sides, as in its
main part, without its files.
"""

import functools
import os
import runpy
import statistics
import sys
import tempfile
import time
from unittest import mock

import numpy as np
import torch

from benchmarks import in_turns, read_options, stock_clone, stock_module, table
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
    moments = cohort_statistics(score, utterances, others, TOP_K)
    scores = score.trials(utterances, utterances, *rows)
    return normalize("as-norm", scores, *rows, moments, moments)


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


def score_by_wespeaker(views, cohort, rows):
    """The mean of both sides' scores, by WeSpeaker's statistics."""
    names = "fire kaldiio wespeaker wespeaker.utils wespeaker.utils.file_utils"
    # They read files, and may be missing.
    unused = dict.fromkeys(names.split(), mock.Mock())
    path = f"{os.environ['WESPEAKER_CLONE']}/wespeaker/bin/score_norm.py"
    with mock.patch.dict(sys.modules, unused):
        get_mean_std = runpy.run_path(path)["get_mean_std"]
    score = make_score("cosine")
    utterances, total = score.prepare(views), 0
    scores = score.trials(utterances, utterances, *rows)
    for side in rows:
        used, inverse = np.unique(side, return_inverse=True)
        of_cohort = views[used, 0].numpy(), cohort[:, 0].numpy()
        mean, std = get_mean_std(*of_cohort, TOP_K)
        total = total + (scores - mean[inverse]) / std[inverse]
    return total / 2 * (1 - 1 / TOP_K) ** 0.5  # ours are unbiased


def main():
    options = read_options(__doc__, trials=50_000, rounds=5)
    n_trials = options.trials
    utterances = n_trials // 4
    torch.manual_seed(0)
    views, cohort = torch.randn(utterances, 1, 192), torch.randn(6000, 1, 192)
    rows = np.random.default_rng(0).integers(utterances, size=(2, n_trials))
    systems = {"ours": (score_trials, rows)}
    if stock_clone():
        systems["stock loop"] = score_by_stock, rows[:, :SAMPLE]
    if "WESPEAKER_CLONE" in os.environ:
        systems["WeSpeaker"] = score_by_wespeaker, rows
    found = {}

    def run(name):
        system, its_rows = systems[name]
        found[name] = system(views, cohort, its_rows)

    cases = {name: functools.partial(run, name) for name in systems}
    seconds = in_turns(cases, options.rounds, 1, time.process_time)
    printed = []
    for name, (_, its_rows) in systems.items():
        few, median = its_rows.shape[1], statistics.median(seconds[name])
        np.testing.assert_allclose(found["ours"][:few], found[name], 1e-4, 1e-4)
        printed.append({"system": name, "trials": few, "s": median})
    print(table(printed))


if __name__ == "__main__":
    main()
