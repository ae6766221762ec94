"""Scores of pairs of utterances, higher for the same speaker.

An utterance, or a model enrolled from several, has views: row 0 of its V rows
is the embedding of the whole, rows 1 to V - 1, if any, are those of crops.
With crops a score is the mean of that of the wholes and the mean over all
pairs of crops, as published for Vox1-O (arXiv 2601.19709).

A score first prepares a table of utterances, once; pairs, trials and matrices
are taken from prepared tables. A prepared table is a tuple of tensors, each
with a row an utterance. All is on the device and in the precision of the views.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import tqdm
from torch.nn.functional import normalize

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    Points,
    check_c,
    clip_to_ball,
    longest,
    midpoint,
    paired_distance,
    pairwise_distance,
    product,
    to_ball,
)

SCORES = ("cosine", "hyperbolic", "fused")
ENROLMENTS = ("mean", "midpoint")
# What is gathered or multiplied at one time: 64 MB of float32.
BLOCK_ELEMENTS = 2**24


def check_score(score: str) -> None:
    """Checks the name of a score.

    Arguments
    ---------
    score : str

    Raises
    ------
    InputError
        If there is no such score.

    Example
    -------
    >>> check_score("fused")
    """
    if score not in SCORES:
        raise InputError(f"score is {score!r}, expected one of {SCORES}")


def check_enrolment(how: str) -> None:
    """Checks the name of a way to enrol.

    Arguments
    ---------
    how : str

    Raises
    ------
    InputError
        If there is no such way.

    Example
    -------
    >>> check_enrolment("mean")
    """
    if how not in ENROLMENTS:
        raise InputError(f"enrolment is {how!r}, expected one of {ENROLMENTS}")


def make_score(name: str, c: float = 3.0) -> "Score":
    """A score by its name.

    Arguments
    ---------
    name : str
        "cosine"; "hyperbolic": minus the distance, after the clip of training;
        "fused": the mean of the cosine and of that distance brought to the
        cosine's range.
    c : float
        Of that clip.

    Returns
    -------
    score : Cosine, Hyperbolic or Fused

    Raises
    ------
    InputError
        If there is no such score, or c is out of range.

    Example
    -------
    >>> score = make_score("fused", c=4.0)
    >>> table = score.prepare(torch.tensor([[[2.0, 0.0]], [[-3.0, 0.0]]]))
    >>> score.trials(table, table, [0, 0], [0, 1]).round(4).tolist()
    [1.0, -1.0]
    """
    check_score(name)
    if name == "cosine":
        return Cosine()
    return {"hyperbolic": Hyperbolic, "fused": Fused}[name](c)


def take(
    prepared: tuple[torch.Tensor, ...], rows: slice | torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Some rows of a prepared table.

    Arguments
    ---------
    prepared : tuple of torch.Tensor
    rows : slice or torch.Tensor

    Returns
    -------
    prepared : tuple of torch.Tensor

    Example
    -------
    >>> take((torch.arange(4),), slice(1, 3))
    (tensor([1, 2]),)
    """
    return tuple(tensor[rows] for tensor in prepared)


class Score:
    """What all scores can do."""

    def prepare(self, views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What a score needs of each utterance.

        Arguments
        ---------
        views : torch.Tensor
            Shape [U, V, D].

        Returns
        -------
        prepared : tuple of torch.Tensor
            Each of U rows.
        """
        raise NotImplementedError

    def pairs(
        self, enrol: tuple[torch.Tensor, ...], test: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Scores row by row.

        Arguments
        ---------
        enrol : tuple of torch.Tensor
            Prepared, of N rows.
        test : tuple of torch.Tensor
            Prepared, of N rows.

        Returns
        -------
        scores : torch.Tensor
            Shape [N].

        Raises
        ------
        InputError
            If one side has crops and the other none.
        """
        raise NotImplementedError

    def matrix(
        self, enrol: tuple[torch.Tensor, ...], test: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Scores of all pairs, by matrix products.

        Arguments
        ---------
        enrol : tuple of torch.Tensor
            Prepared, of N rows.
        test : tuple of torch.Tensor
            Prepared, of M rows.

        Returns
        -------
        scores : torch.Tensor
            Shape [N, M].

        Raises
        ------
        InputError
            As ``pairs``.
        """
        raise NotImplementedError

    @torch.no_grad()
    def trials(
        self,
        enrol: tuple[torch.Tensor, ...],
        test: tuple[torch.Tensor, ...],
        enrol_rows: npt.ArrayLike,
        test_rows: npt.ArrayLike,
    ) -> np.ndarray:
        """Scores of trials, in blocks, with a progress bar.

        Arguments
        ---------
        enrol : tuple of torch.Tensor
            Prepared.
        test : tuple of torch.Tensor
            Prepared; may be the same.
        enrol_rows : array_like
            The row of each trial in enrol, integers, shape [N].
        test_rows : array_like
            Likewise in test.

        Returns
        -------
        scores : np.ndarray
            float64, shape [N].
        """
        device = enrol[0].device
        enrol_rows, test_rows = (
            torch.as_tensor(np.asarray(rows, np.int64), device=device)
            for rows in (enrol_rows, test_rows)
        )
        block = max(1, BLOCK_ELEMENTS // sum(t[:1].numel() for t in enrol))
        scores = np.empty(len(enrol_rows))
        bar = tqdm.tqdm(
            desc="Trials", total=len(scores), unit="trial", dynamic_ncols=True
        )
        with bar:
            for start in range(0, len(scores), block):
                some = slice(start, start + block)
                of_block = self.pairs(
                    take(enrol, enrol_rows[some]), take(test, test_rows[some])
                )
                scores[some] = of_block.cpu().numpy()
                bar.update(len(of_block))
        return scores


class Cosine(Score):
    """The inner product of length-normalised embeddings.

    The mean over all pairs of crops of their inner products is the inner
    product of the mean crops: so one vector stands for all views, and crops
    cost nothing in a trial.

    Example
    -------
    >>> score = Cosine()
    >>> table = score.prepare(torch.tensor([[[3.0, 4.0]], [[2.0, 0.0]]]))
    >>> score.matrix(table, table)
    tensor([[1.0000, 0.6000],
            [0.6000, 1.0000]])
    """

    def prepare(self, views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As ``Score.prepare``: [U, D], or [U, 2 D] with crops."""
        unit = normalize(views, dim=-1)
        if views.shape[1] == 1:
            return (unit[:, 0],)
        both = torch.cat([unit[:, 0], unit[:, 1:].mean(1)], dim=1)
        return (both / 2**0.5,)

    def pairs(
        self, enrol: tuple[torch.Tensor, ...], test: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """As ``Score.pairs``."""
        _check_crops(enrol[0].shape[1], test[0].shape[1])
        return (enrol[0] * test[0]).sum(1)

    def matrix(
        self, enrol: tuple[torch.Tensor, ...], test: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """As ``Score.matrix``."""
        _check_crops(enrol[0].shape[1], test[0].shape[1])
        return product(enrol[0], test[0])


class Hyperbolic(Score):
    """Minus the distance after the published clip.

    With crops a trial costs as many distances as there are pairs of views.

    Arguments
    ---------
    c : float
        Of the clip of training, at least 1.

    Example
    -------
    >>> score = Hyperbolic(c=4.0)
    >>> table = score.prepare(torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]]))
    >>> score.pairs(take(table, slice(0, 1)), take(table, slice(1, 2)))
    tensor([-1.0986])
    """

    def __init__(self, c: float = 3.0) -> None:
        self.c = check_c(c)

    def prepare(self, views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As ``Score.prepare``: the fields of ``Points``, [U, V, ...]."""
        return tuple(clip_to_ball(views, self.c))

    def pairs(
        self, enrol: tuple[torch.Tensor, ...], test: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """As ``Score.pairs``."""
        return -_mean_over_views(paired_distance, enrol, test)

    def matrix(
        self, enrol: tuple[torch.Tensor, ...], test: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """As ``Score.matrix``; of close pairs less accurate than ``pairs``,
        see ``geometry.pairwise_distance``: at c below 1.1, give float64.
        """
        return -_mean_over_views(pairwise_distance, enrol, test)


class Fused(Score):
    """The mean of the cosine and of 1 - d / rho, where d is the distance.

    rho is the radius of the clip's cap, so 2 rho is the largest distance: as
    the cosine, the second term goes from 1 for points that coincide to -1 for
    opposite ones on the cap.

    Arguments
    ---------
    c : float
        Of the clip of training, at least 1.
    """

    def __init__(self, c: float = 3.0) -> None:
        self.cosine, self.hyperbolic = Cosine(), Hyperbolic(c)
        self.rho = 2 * math.atanh(longest(c))

    def prepare(self, views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As ``Score.prepare``: what the two others need."""
        return self.cosine.prepare(views) + self.hyperbolic.prepare(views)

    def pairs(
        self, enrol: tuple[torch.Tensor, ...], test: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """As ``Score.pairs``."""
        cosine = self.cosine.pairs(enrol[:1], test[:1])
        hyperbolic = self.hyperbolic.pairs(enrol[1:], test[1:])
        return (cosine + 1 + hyperbolic / self.rho) / 2

    def matrix(
        self, enrol: tuple[torch.Tensor, ...], test: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """As ``Score.matrix``."""
        cosine = self.cosine.matrix(enrol[:1], test[:1])
        hyperbolic = self.hyperbolic.matrix(enrol[1:], test[1:])
        return hyperbolic.div_(self.rho).add_(cosine).add_(1).div_(2)


def enrol(
    views: torch.Tensor,
    members: Sequence[Sequence[int] | np.ndarray],
    how: str = "mean",
    c: float = 3.0,
) -> torch.Tensor:
    """Models of speakers, each from one or more utterances, view by view.

    The model of one utterance is that utterance's embedding, unchanged.

    Arguments
    ---------
    views : torch.Tensor
        Shape [U, V, D].
    members : sequence of (sequence of int or np.ndarray)
        Of each model the rows of its utterances, integers.
    how : str
        "mean": of the length-normalised embeddings; it has no memory of
        their radii. "midpoint": the hyperbolic midpoint of the clipped
        points, given as its coordinates in the Poincare ball; these are
        within the cap, so the clip maps them to just that point and each
        score can take them.
    c : float
        Of that clip.

    Returns
    -------
    models : torch.Tensor
        Shape [M, V, D], to be prepared by a score.

    Raises
    ------
    InputError
        If there is no such way, or a model has no utterance.

    Example
    -------
    >>> views = torch.tensor([[[9.0, 0.0]], [[0.0, 9.0]]])
    >>> enrol(views, [[0, 1], [1]], how="mean").squeeze(1)
    tensor([[0.5000, 0.5000],
            [0.0000, 9.0000]])
    >>> enrol(views, [[0, 1]], how="midpoint", c=4.0).squeeze(1)
    tensor([[0.2192, 0.2192]])
    """
    check_enrolment(how)
    counts = np.array([len(rows) for rows in members])
    if not counts.all():
        raise InputError(
            f"model {counts.argmin()} of {len(members)} has no utterance: "
            "give one or more, or leave the model out"
        )
    models = views.new_empty(len(members), *views.shape[1:])
    # Models of as many utterances are made together.
    for count in np.unique(counts):
        numbers = np.flatnonzero(counts == count)
        rows = np.stack(
            [np.asarray(members[n], np.int64) for n in numbers.tolist()]
        )
        # A midpoint looks at all pairs of its points.
        elements = views[0].numel() * count**2
        block = max(1, int(BLOCK_ELEMENTS // elements))
        for start in range(0, len(numbers), block):
            some = slice(start, start + block)
            chosen = views[torch.as_tensor(rows[some], device=views.device)]
            model = torch.as_tensor(numbers[some], device=views.device)
            models[model] = _combine(chosen.transpose(1, 2), how, c)
    return models


def _combine(embeddings: torch.Tensor, how: str, c: float) -> torch.Tensor:
    """One embedding, [..., D], of several, [..., N, D]."""
    if embeddings.shape[-2] == 1:
        return embeddings.squeeze(-2)
    if how == "mean":
        return normalize(embeddings, dim=-1).mean(-2)
    return to_ball(midpoint(clip_to_ball(embeddings, c)))


def _mean_over_views(
    distance: Callable[[Points, Points], torch.Tensor],
    enrol: tuple[torch.Tensor, ...],
    test: tuple[torch.Tensor, ...],
) -> torch.Tensor:
    """Of the wholes, or the mean of that and of the mean over all crops."""
    n_enrol, n_test = enrol[0].shape[1], test[0].shape[1]
    _check_crops(n_enrol > 1, n_test > 1)

    def at(prepared: tuple[torch.Tensor, ...], view: int) -> Points:
        return Points(*(tensor[:, view] for tensor in prepared))

    whole = distance(at(enrol, 0), at(test, 0))
    if n_enrol == 1:
        return whole
    crops = torch.zeros_like(whole)
    for a in range(1, n_enrol):
        for b in range(1, n_test):
            crops += distance(at(enrol, a), at(test, b))
    return (whole + crops / ((n_enrol - 1) * (n_test - 1))) / 2


def _check_crops(enrol: int, test: int) -> None:
    if enrol != test:
        raise InputError(
            "one side of the trials has crops and the other none: embed both "
            "with crops or both without"
        )
