"""Scores measured against those of a cohort of other speakers.

Mean and standard deviation of an utterance's scores against the cohort are
taken once for each utterance, not for each trial.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import tqdm
from torch.nn.functional import normalize

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.scoring.similarity import Score, take

NORMALISATIONS = ("z-norm", "t-norm", "s-norm", "as-norm")
# Scores against the cohort that are held at one time: 16 MB of float32.
BLOCK_ELEMENTS = 2**22


class Statistics(NamedTuple):
    """Of each utterance, its scores against the cohort.

    Arguments
    ---------
    mean : np.ndarray
        float64, shape [U].
    std : np.ndarray
        float64, shape [U], unbiased.
    top_k : int or None
        Over how many of the highest they were taken; None: over all.
    """

    mean: np.ndarray
    std: np.ndarray
    top_k: int | None


def check_normalisation(kind: str, top_k: int | None = None) -> None:
    """Checks the name of a normalisation, and that it has what it needs.

    Arguments
    ---------
    kind : str
    top_k : int or None

    Raises
    ------
    InputError
        If there is no such normalisation, or as-norm has no top_k.

    Example
    -------
    >>> check_normalisation("as-norm", top_k=300)
    """
    if kind not in NORMALISATIONS:
        raise InputError(
            f"normalisation is {kind!r}, expected one of {NORMALISATIONS}"
        )
    if kind == "as-norm" and not (isinstance(top_k, int) and top_k >= 2):
        raise InputError(
            f"top_k is {top_k!r}, but as-norm needs how many of the cohort's "
            "highest scores to take: give 2 or more, e.g. 300, or choose s-norm"
        )


def speaker_means(views: torch.Tensor, speakers: npt.ArrayLike) -> torch.Tensor:
    """A cohort of speakers: the mean of their length-normalised embeddings.

    Arguments
    ---------
    views : torch.Tensor
        Shape [U, V, D].
    speakers : array_like
        The speaker of each utterance, shape [U].

    Returns
    -------
    cohort : torch.Tensor
        Shape [S, V, D], by speaker in sorted order, view by view.

    Example
    -------
    >>> views = torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]], [[0.0, 5.0]]])
    >>> speaker_means(views, ["b", "a", "b"]).squeeze(1)
    tensor([[0.0000, 1.0000],
            [0.5000, 0.5000]])
    """
    found = np.unique(speakers, return_inverse=True, return_counts=True)
    of, counts = (torch.as_tensor(n, device=views.device) for n in found[1:])
    sums = views.new_zeros(len(counts), *views.shape[1:])
    sums.index_add_(0, of, normalize(views, dim=-1))
    return sums / counts.view(-1, 1, 1)


@torch.no_grad()
def cohort_statistics(
    score: Score,
    prepared: tuple[torch.Tensor, ...],
    cohort: tuple[torch.Tensor, ...],
    top_k: int | None = None,
    block: int | None = None,
) -> Statistics:
    """Mean and spread of the scores against a cohort, with a progress bar.

    Arguments
    ---------
    score : speechbrain_hyperbolic.scoring.similarity.Score
    prepared : tuple of torch.Tensor
        Of U utterances or models, from ``score.prepare``.
    cohort : tuple of torch.Tensor
        Of S utterances or speakers, from ``score.prepare``.
    top_k : int or None
        Take the highest scores only, at least 2; None: all.
    block : int or None
        Utterances at a time; None: what keeps some 16 MB of scores.

    Returns
    -------
    statistics : Statistics

    Raises
    ------
    InputError
        If the cohort is smaller than top_k or than 2, or an utterance has the
        same score against all of it.

    Example
    -------
    >>> from speechbrain_hyperbolic.scoring.similarity import make_score
    >>> score = make_score("cosine")
    >>> cohort = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]])
    >>> table = score.prepare(torch.tensor([[[1.0, 0.0]]]))
    >>> found = cohort_statistics(score, table, score.prepare(cohort), top_k=2)
    >>> found.mean.round(4).tolist(), found.std.round(4).tolist()
    ([0.5], [0.7071])
    """
    n_rows, size = len(prepared[0]), len(cohort[0])
    least = 2 if top_k is None else top_k
    if least < 2:
        raise InputError(f"top_k is {top_k}, expected 2 or more")
    if size < least:
        raise InputError(
            f"the cohort has {size} rows, expected at least {least}: enlarge "
            "it, or take a smaller top_k"
        )
    if block is None:
        block = max(1, BLOCK_ELEMENTS // size)
    mean, std = np.empty(n_rows), np.empty(n_rows)
    bar = tqdm.tqdm(
        desc="Cohort", total=n_rows, unit="utterance", dynamic_ncols=True
    )
    with bar:
        for start in range(0, n_rows, block):
            some = slice(start, start + block)
            scores = score.matrix(take(prepared, some), cohort)
            if top_k is not None:
                scores = scores.topk(top_k, dim=1, sorted=False).values
            of_std, of_mean = torch.std_mean(scores, dim=1)
            std[some], mean[some] = of_std.cpu(), of_mean.cpu()
            bar.update(len(scores))
    # Below that, it's the rounding of equal scores.
    flat = std <= 16 * torch.finfo(prepared[0].dtype).eps
    if flat.any():
        raise InputError(
            f"row {flat.argmax()} ({flat.sum()} of {n_rows}) has the same "
            f"score, {mean[flat.argmax()]:g}, against the whole cohort: is the "
            "cohort one utterance repeated, or an embedding zero?"
        )
    return Statistics(mean, std, top_k)


def normalise(
    kind: str,
    scores: np.ndarray,
    enrol_rows: npt.ArrayLike,
    test_rows: npt.ArrayLike,
    enrol_statistics: Statistics,
    test_statistics: Statistics,
) -> np.ndarray:
    """Normalised scores of trials.

    A side's normalised score is (score - mean) / std. z-norm is that of the
    enrolment side, t-norm that of the test side, s-norm the mean of both.
    as-norm is s-norm by the highest scores, of each side its own: the first
    of the two adaptive ones in Matejka et al., "Analysis of score
    normalization in multilingual speaker recognition", Interspeech 2017.
    By statistics with a top_k the others are adaptive too, as in the stock
    script.

    Arguments
    ---------
    kind : str
        One of ``NORMALISATIONS``.
    scores : np.ndarray
        Shape [N].
    enrol_rows : array_like
        The row of each trial in enrol_statistics, integers, shape [N].
    test_rows : array_like
        Likewise in test_statistics.
    enrol_statistics : Statistics
        Not used by t-norm.
    test_statistics : Statistics
        Not used by z-norm.

    Returns
    -------
    scores : np.ndarray
        float64, shape [N].

    Raises
    ------
    InputError
        As ``check_normalisation``.

    Example
    -------
    >>> sides = Statistics(np.array([0.1, 0.3]), np.array([0.1, 0.2]), None)
    >>> normalise("s-norm", np.array([0.5]), [0], [1], sides, sides).round(4)
    array([2.5])
    """
    sides = []
    if kind != "t-norm":
        sides.append((enrol_statistics, np.asarray(enrol_rows)))
    if kind != "z-norm":
        sides.append((test_statistics, np.asarray(test_rows)))
    for statistics, _ in sides:
        check_normalisation(kind, statistics.top_k)
    normalised = [
        (scores - statistics.mean[rows]) / statistics.std[rows]
        for statistics, rows in sides
    ]
    return np.mean(normalised, axis=0)
