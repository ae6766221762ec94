"""Gromov's four-point condition: how far distances are from a tree's."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tqdm
from scipy.special import comb

from speechbrain_hyperbolic.hierarchy.checks import (
    check_number,
    checked_distances,
)

# Up to this many points ``gromov_delta`` is exact: N^4 / 24 quadruples.
EXACT_POINTS = 256


class GromovDelta(NamedTuple):
    """How far distances are from those of a tree, see ``gromov_delta``.

    Arguments
    ---------
    worst : float
        Of the worst quadruple: 0 for a tree, 1 at most for a metric.
    mean : float
        Over the quadruples, which a single point or error hardly moves.
    """

    worst: float
    mean: float


def gromov_delta(
    distances: npt.ArrayLike, samples: int | None = None, seed: int = 0
) -> GromovDelta:
    """Relative delta hyperbolicity, by Gromov's four-point condition.

    Four points have three sums of two opposite distances. Their delta is half
    of what the largest sum has over the second: none in a tree. It is given
    as 2 delta / diameter, which has no unit.

    With all base points it's exact, in O(N^4) time: 1 s for 250 points. With
    some, ``worst`` and ``mean`` are over the quadruples that hold one of
    those points, in O(N^3) each: 1 s a base point of 1000. ``worst`` is then
    at least half the exact one, of a metric. It grows with N: compare sets of
    one size.

    Source: Khrulkov et al., "Hyperbolic Image Embeddings", CVPR 2020, who
    take the maximum over one base point; Gromov, "Hyperbolic groups", 1987.

    Arguments
    ---------
    distances : array_like
        Shape [N, N], of 4 points or more. The triangle inequality is not
        checked.
    samples : int
        Number of base points, drawn at random; None: all up to 256 points, 4
        of more.
    seed : int
        Of the draw.

    Returns
    -------
    delta : GromovDelta

    Raises
    ------
    InputError
        If these are no distances of 4 points, all points coincide, or
        ``samples`` is out of range.

    Example
    -------
    >>> square = [[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]
    >>> gromov_delta(square)
    GromovDelta(worst=1.0, mean=1.0)
    """
    distances = checked_distances(distances, least=4)
    n = len(distances)
    if samples is None:
        samples = n if n <= EXACT_POINTS else 4
    check_number("samples", samples, 1, n)
    if samples == n:
        # Each quadruple once, at its last point.
        parts = [(base, np.arange(base)) for base in range(3, n)]
    else:
        drawn = np.random.default_rng(seed).choice(n, samples, replace=False)
        parts = [(base, np.delete(np.arange(n), base)) for base in drawn]
    found = [
        _delta_at(distances, *part)
        for part in tqdm.tqdm(parts, "Delta", delay=5, dynamic_ncols=True)
    ]
    worst, total = np.max(found, axis=0)[0], np.sum(found, axis=0)[1]
    quadruples = sum(comb(len(others), 3) for _, others in parts)
    factor = 2 / distances.max()
    return GromovDelta(
        float(factor * worst), float(factor * total / quadruples)
    )


def _delta_at(
    distances: np.ndarray, base: int, others: np.ndarray
) -> tuple[float, float]:
    """Largest delta, and the sum, over quadruples of a point and 3 others.

    By Gromov products at the base, which are the sums of distances but for a
    sign and a constant, delta is the middle one of three less the smallest.
    """
    out = distances[base, others]
    products = (out[:, None] + out - distances[np.ix_(others, others)]) / 2
    # So that y = z, which is no quadruple, has delta 0.
    np.fill_diagonal(products, np.inf)
    worst, total = 0.0, 0.0
    for x in range(len(others) - 2):
        of_x = products[x, x + 1 :]
        delta = np.maximum(of_x[:, None], of_x)
        np.minimum(delta, products[x + 1 :, x + 1 :], out=delta)
        delta -= np.minimum(of_x[:, None], of_x)
        np.abs(delta, out=delta)
        worst = max(worst, delta.max())
        total += delta.sum() / 2
    return worst, total
