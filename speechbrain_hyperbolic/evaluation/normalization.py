"""Scores normalized by an utterance's scores against a cohort of speakers."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import tqdm

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.scores import (
    Score,
    Table,
    check_choice,
    take,
)

NORMALIZATIONS = ("z-norm", "t-norm", "s-norm", "as-norm")
# Scores against the cohort that are held at a time: 32 MB of float32.
BLOCK_ELEMENTS = 2**23


class Statistics(NamedTuple):
    """Moments of the cohort scores of U utterances."""

    mean: np.ndarray  # float64 [U]
    std: np.ndarray  # float64 [U], unbiased


def check_normalization(kind: str, top_k: int | None = None) -> None:
    """Checks the name of a normalization, and top_k if it needs one."""
    check_choice("normalization", kind, NORMALIZATIONS)
    if kind == "as-norm" and not (isinstance(top_k, int) and top_k >= 2):
        raise InputError(
            f"top_k is {top_k!r}, but as-norm needs 2 or more, such as 300: "
            "how many of the highest cohort scores to use"
        )


@torch.no_grad()
def cohort_statistics(
    score: Score, table: Table, cohort: Table, top_k: int | None = None
) -> Statistics:
    """Statistics of each row's scores, or of its ``top_k`` highest ones."""
    n_rows, size = len(table[0]), len(cohort[0])
    block = max(1, BLOCK_ELEMENTS // size)
    mean, std = np.empty(n_rows), np.empty(n_rows)
    for start in tqdm.trange(0, n_rows, block, desc="Cohort", delay=5):
        some = slice(start, start + block)
        scores = score.matrix(take(table, some), cohort)
        if top_k is not None:
            scores = _highest(scores, top_k)
        block_std, block_mean = torch.std_mean(scores, dim=1)
        std[some], mean[some] = block_std.cpu(), block_mean.cpu()
    return Statistics(mean, std)


def _highest(scores: torch.Tensor, k: int) -> torch.Tensor:
    """The k highest scores of each row; reorders the rows."""
    if scores.device.type != "cpu":
        return scores.topk(k, dim=1, sorted=False).values
    # NumPy partitions faster than topk, and without the Python lock.
    parts = scores.chunk(torch.get_num_threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda part: part.numpy().partition(-k, axis=1), parts))
    return scores[:, -k:]


def normalize(
    kind: str,
    scores: np.ndarray,
    enroll_rows: np.ndarray,
    test_rows: np.ndarray,
    enroll_statistics: Statistics,
    test_statistics: Statistics,
) -> np.ndarray:
    """Normalized scores of trials, given by their rows in the statistics.

    as-norm is s-norm over each side's own highest scores: the first of the two
    adaptive ones in Matejka et al., "Analysis of score normalization in
    multilingual speaker recognition", Interspeech 2017.
    """
    by_enroll, by_test = (
        (scores - statistics.mean[rows]) / statistics.std[rows]
        for statistics, rows in (
            (enroll_statistics, enroll_rows),
            (test_statistics, test_rows),
        )
    )
    both = (by_enroll + by_test) / 2
    return {"z-norm": by_enroll, "t-norm": by_test}.get(kind, both)
