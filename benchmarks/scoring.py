"""Scoring of trials with AS-norm, against the loop of the stock script.

> OMP_NUM_THREADS=2 SPEECHBRAIN_CLONE=/path/to/speechbrain \
      python -m benchmarks.scoring [--trials 6000]

The embeddings are random: their values do not change the time. The stock loop
is timed on a sample of the trials. "first version" is this package's own way
with its earlier blocks and torch.topk; "full sort" is what WeSpeaker's
score_norm.py computes with NumPy: it sorts all cohort scores of an utterance.
"""

import argparse
import functools
import importlib.util
import os
import pathlib
import tempfile
import time
from unittest import mock

import numpy as np
import torch

from speechbrain_hyperbolic.evaluation import normalization
from speechbrain_hyperbolic.evaluation.normalization import (
    Statistics,
    cohort_statistics,
    normalize,
)
from speechbrain_hyperbolic.evaluation.scores import SCORES, make_score

TOP_K = 300
SAMPLE = 100


def score_trials(name, views, cohort, rows):
    """From embeddings to normalized scores."""
    score = make_score(name)
    table = score.prepare(views)
    statistics = cohort_statistics(score, table, score.prepare(cohort), TOP_K)
    scores = score.trials(table, table, *rows)
    return normalize("as-norm", scores, *rows, statistics, statistics)


def by_the_first_version(*arguments):
    """The same scores, by blocks of 2^18 cohort scores and torch.topk."""

    def topk(scores, k):
        return scores.topk(k, dim=1, sorted=False).values

    with (
        mock.patch.object(normalization, "BLOCK_ELEMENTS", 2**18),
        mock.patch.object(normalization, "_highest", topk),
    ):
        return score_trials("cosine", *arguments)


def by_a_full_sort(views, cohort, rows):
    """The same scores, as WeSpeaker's score_norm.py makes them."""
    unit, others = (
        x / np.sqrt((x**2).sum(1, keepdims=True))
        for x in (views[:, 0].numpy(), cohort[:, 0].numpy())
    )
    parts = []
    for start in range(0, len(unit), 10_000):  # for less memory than WeSpeaker
        scores = unit[start : start + 10_000] @ others.T
        highest = np.sort(scores, axis=1)[:, ::-1][:, :TOP_K]
        parts.append((highest.mean(1), highest.std(1, ddof=1)))
    statistics = Statistics(*map(np.concatenate, zip(*parts, strict=True)))
    scores = (unit[rows[0]] * unit[rows[1]]).sum(1)
    return normalize("as-norm", scores, *rows, statistics, statistics)


def score_by_stock(clone, views, cohort, rows):
    """The scores of the stock script, and its seconds."""
    recipe = pathlib.Path(clone, "recipes/VoxCeleb/SpeakerRec")
    spec = importlib.util.spec_from_file_location(
        "stock", recipe / "speaker_verification_cosine.py"
    )
    stock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stock)
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
        start = time.perf_counter()
        scores, _ = stock.get_verification_scores(lines)
    return torch.cat(scores).numpy(), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=600_000)
    n_trials = parser.parse_args().trials
    utterances = n_trials // 4
    torch.manual_seed(0)
    views, cohort = torch.randn(utterances, 1, 192), torch.randn(6000, 1, 192)
    rows = np.random.default_rng(0).integers(utterances, size=(2, n_trials))
    print(
        f"{n_trials} trials of {utterances} utterances, AS-norm by the top "
        f"{TOP_K} of {len(cohort)}, {torch.get_num_threads()} threads\n"
    )
    print("| system | s | microseconds a trial |\n|---|---|---|")
    systems = {name: functools.partial(score_trials, name) for name in SCORES}
    systems["cosine, first version"] = by_the_first_version
    systems["cosine, full sort"] = by_a_full_sort
    found = {}
    for name, system in systems.items():
        start = time.perf_counter()
        found[name] = system(views, cohort, rows)
        seconds = time.perf_counter() - start
        each = 1e6 * seconds / n_trials
        print(f"| {name} | {seconds:.2f} | {each:.1f} |", flush=True)
        if name.startswith("cosine"):
            np.testing.assert_allclose(
                found[name], found["cosine"], rtol=1e-4, atol=1e-4
            )
    if clone := os.environ.get("SPEECHBRAIN_CLONE"):
        few = rows[:, :SAMPLE]
        expected, seconds = score_by_stock(clone, views, cohort, few)
        cosine = found["cosine"][:SAMPLE]
        np.testing.assert_allclose(cosine, expected, rtol=1e-4, atol=1e-4)
        each = 1e6 * seconds / SAMPLE
        print(f"| stock loop, {SAMPLE} trials | {seconds:.2f} | {each:.0f} |")


if __name__ == "__main__":
    main()
