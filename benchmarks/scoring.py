"""Scoring of trials with AS-norm, against the loop of the stock script.

The embeddings are random: what is timed does not look at their values.
"""

import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import peak, ratio, row, times, title
from speechbrain_hyperbolic.scoring.normalisation import (
    cohort_statistics,
    normalise,
)
from speechbrain_hyperbolic.scoring.similarity import SCORES, make_score

DIMENSION = 192
TOP_K = 300
TARGET = "≤ 1/100"


def ours(name, views, cohort, enrol_rows, test_rows):
    """From embeddings to normalised scores."""
    score = make_score(name)
    table = score.prepare(views)
    statistics = cohort_statistics(score, table, score.prepare(cohort), TOP_K)
    scores = score.trials(table, table, enrol_rows, test_rows)
    return normalise(
        "as-norm", scores, enrol_rows, test_rows, statistics, statistics
    )


def stock_loop(script, folder, views, cohort, enrol_rows, test_rows):
    """The stock get_verification_scores, and the trials it takes.

    It runs on what the script's main part leaves in its globals.
    """
    spec = importlib.util.spec_from_file_location("stock", script)
    stock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stock)
    stock.params = {
        "output_folder": folder,
        "score_norm": "s-norm",
        "cohort_size": TOP_K,
    }
    stock.train_dict = {str(i): cohort[i] for i in range(len(cohort))}
    stock.enrol_dict = {str(i): views[i] for i in enrol_rows}
    stock.test_dict = {str(i): views[i] for i in test_rows}
    # All labelled as targets, so that the scores come back in their order.
    lines = [
        f"1 {e}.wav {t}.wav" for e, t in zip(enrol_rows, test_rows, strict=True)
    ]
    return lambda: stock.get_verification_scores(lines)[0]


def main(quick):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    utterances, size, n_trials, sample, rounds = (
        (1500, 600, 6000, 20, 1) if quick else (150_000, 6000, 600_000, 200, 3)
    )
    views = torch.randn(utterances, 1, DIMENSION)
    cohort = torch.randn(size, 1, DIMENSION)
    rows = rng.integers(utterances, size=(2, n_trials))
    data = views, cohort, *rows
    cases = {name: lambda n=name: ours(n, *data) for name in SCORES}
    counts = dict.fromkeys(cases, n_trials)
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    stock = f"stock loop, cosine, a sample of {sample} trials"
    if clone is None:
        print("SPEECHBRAIN_CLONE is not set: the stock loop is not run")
    with tempfile.TemporaryDirectory() as folder:
        if clone is not None:
            recipe = Path(clone, "recipes/VoxCeleb/SpeakerRec")
            script = recipe / "speaker_verification_cosine.py"
            few = rows[:, :sample]
            cases[stock] = stock_loop(script, folder, views, cohort, *few)
            counts[stock] = sample
            expected = torch.cat(cases[stock]()).numpy()
            found = cases["cosine"]()[:sample]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        seconds = times(cases, rounds, slow=SCORES[1:])
        memory = {name: peak(case) for name, case in cases.items()}
    title(
        f"{n_trials} trials of {utterances} utterances, AS-norm by the top "
        f"{TOP_K} of {size}, {rounds} rounds, one of hyperbolic and fused",
        "system",
        "s",
        "microseconds a trial",
        "ours / stock",
        "target",
        "MB",
    )
    each = {name: seconds[name] / counts[name] for name in cases}
    for name in cases:
        row(
            name,
            f"{seconds[name]:.2f}",
            f"{1e6 * each[name]:.1f}",
            ratio(each[name], each[stock]) if stock in each else "",
            TARGET if name == "cosine" else "",
            f"{memory[name] / 1e6:.0f}",
        )
