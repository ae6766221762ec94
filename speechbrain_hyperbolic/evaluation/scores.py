"""Scores of pairs of utterances, higher for the same speaker.

An utterance, or a model enrolled from several, has views: row 0 of its V rows
is the embedding of the whole, the others, if any, are those of crops. With
crops a score is the mean of the score of the wholes and the mean score over all
pairs of crops, as published for Vox1-O (arXiv 2601.19709).

A score first prepares a table of utterances: a tuple of tensors, each with one
row per utterance. Pairs, matrices and trials are computed from these.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import tqdm
from torch.nn.functional import normalize

from speechbrain_hyperbolic import geometry
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import Points

SCORES = ("cosine", "hyperbolic")
ENROLLMENTS = ("mean", "midpoint")
# Gathered or multiplied at a time: 64 MB of float32.
BLOCK_ELEMENTS = 2**24

Table = tuple[torch.Tensor, ...]


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Checks the value of a key that has a few."""
    if value not in choices:
        raise InputError(f"{key} is {value!r}, expected one of {choices}")


def make_score(name: str, c: float = 3.0) -> "Score":
    """A score by its name; c is that of the clip."""
    check_choice("score", name, SCORES)
    return Cosine() if name == "cosine" else Hyperbolic(c)


def take(table: Table, rows: slice | torch.Tensor) -> Table:
    """Some rows of a prepared table."""
    return tuple(tensor[rows] for tensor in table)


class Score:
    """A way to compare utterances."""

    def prepare(self, views: torch.Tensor) -> Table:
        """A table of utterances, from their views [U, V, D]."""
        raise NotImplementedError

    def pairs(self, enroll: Table, test: Table) -> torch.Tensor:
        """Scores [N] of N rows with N rows."""
        raise NotImplementedError

    def matrix(self, enroll: Table, test: Table) -> torch.Tensor:
        """Scores [N, M] of all pairs of N and M rows, by matrix products."""
        raise NotImplementedError

    @torch.no_grad()
    def trials(
        self,
        enroll: Table,
        test: Table,
        enroll_rows: npt.ArrayLike,
        test_rows: npt.ArrayLike,
    ) -> np.ndarray:
        """float64 scores of trials, given by their rows, in blocks."""
        enroll_rows, test_rows = (
            torch.as_tensor(np.asarray(rows, np.int64), device=enroll[0].device)
            for rows in (enroll_rows, test_rows)
        )
        block = max(1, BLOCK_ELEMENTS // sum(t[:1].numel() for t in enroll))
        scores = np.empty(len(enroll_rows))
        for start in tqdm.trange(0, len(scores), block, desc="Trials", delay=5):
            some = slice(start, start + block)
            found = self.pairs(
                take(enroll, enroll_rows[some]), take(test, test_rows[some])
            )
            scores[some] = found.cpu().numpy()
        return scores


class Cosine(Score):
    """The inner product of length-normalized embeddings."""

    def prepare(self, views: torch.Tensor) -> Table:
        # The mean over all pairs of crops is the product of the mean crops.
        unit = normalize(views, dim=-1)
        if views.shape[1] == 1:
            return (unit[:, 0],)
        both = torch.cat([unit[:, 0], unit[:, 1:].mean(1)], dim=1)
        return (both / 2**0.5,)

    def pairs(self, enroll: Table, test: Table) -> torch.Tensor:
        return (enroll[0] * test[0]).sum(1)

    def matrix(self, enroll: Table, test: Table) -> torch.Tensor:
        return geometry.product(enroll[0], test[0])


class Hyperbolic(Score):
    """Minus the distance after the published clip."""

    def __init__(self, c: float = 3.0) -> None:
        self.c = geometry.check_c(c)

    def prepare(self, views: torch.Tensor) -> Table:
        return geometry.clip_to_ball(views, self.c)

    def pairs(self, enroll: Table, test: Table) -> torch.Tensor:
        return -_mean_over_views(geometry.paired_distance, enroll, test)

    def matrix(self, enroll: Table, test: Table) -> torch.Tensor:
        return -_mean_over_views(geometry.pairwise_distance, enroll, test)


def enroll(
    views: torch.Tensor,
    members: Sequence[Sequence[int] | np.ndarray],
    how: str = "mean",
    c: float = 3.0,
) -> torch.Tensor:
    """Models of speakers [M, V, D], each from utterances of views [U, V, D].

    "mean" is the mean of the length-normalized embeddings; "midpoint" the
    hyperbolic midpoint after the clip at c, in the Poincare ball, where the
    clip leaves it.
    """
    check_choice("enrollment", how, ENROLLMENTS)
    models = []
    for rows in members:
        own = views[torch.as_tensor(np.asarray(rows), device=views.device)]
        if len(own) == 1:
            models.append(own[0])
        elif how == "mean":
            models.append(normalize(own, dim=-1).mean(0))
        else:
            points = geometry.clip_to_ball(own.transpose(0, 1), c)
            models.append(geometry.to_ball(geometry.midpoint(points)))
    return torch.stack(models)


def _mean_over_views(
    distance: Callable[[Points, Points], torch.Tensor],
    enroll: Table,
    test: Table,
) -> torch.Tensor:
    n_enroll, n_test = enroll[0].shape[1], test[0].shape[1]

    def between(a: int, b: int) -> torch.Tensor:
        return distance(
            Points(*(tensor[:, a] for tensor in enroll)),
            Points(*(tensor[:, b] for tensor in test)),
        )

    whole = between(0, 0)
    if n_enroll == 1:
        return whole
    crops = torch.zeros_like(whole)
    for a in range(1, n_enroll):
        for b in range(1, n_test):
            crops += between(a, b)
    return (whole + crops / ((n_enroll - 1) * (n_test - 1))) / 2
