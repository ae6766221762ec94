"""How tree-like speakers are, from the distances between them.

Distances are a matrix [N, N] in any unit, between Euclidean, spherical or
hyperbolic points. In many dimensions, random points are nearly equidistant:
that is a star, and a star is a tree. So compare each figure with that of
points without a hierarchy, or of shuffled labels
(``scipy.stats.permutation_test``).
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import bootstrap, spearmanr

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.bootstrap import MIN_SPEAKERS, p_value


def _pairs(distances: npt.ArrayLike) -> np.ndarray:
    """Distances of the N (N - 1) / 2 pairs, of a symmetric matrix."""
    pairs = squareform(np.asarray(distances, np.float64))
    if not (pairs.min(initial=0) >= 0 and pairs.any()):
        raise InputError("the distances are all 0, or some are negative")
    return pairs


class GromovDelta(NamedTuple):
    """Twice delta over the diameter: 0 in a tree, at most 1 in a metric."""

    worst: float
    mean: float


def gromov_delta(
    distances: npt.ArrayLike, max_points: int = 256, seed: int = 0
) -> GromovDelta:
    """How far distances are from a tree's, by Gromov's four-point condition.

    Four points have three sums of two opposite distances. Their delta is half
    the difference of the two largest, which is 0 in a tree. ``worst`` is the
    largest delta (Khrulkov et al., "Hyperbolic Image Embeddings", CVPR 2020);
    ``mean`` is the mean delta, which hardly depends on a single point. The
    cost is O(N^4), so of more than ``max_points`` points a random subset of
    that size is used. Both figures grow with N: compare sets of one size.
    """
    square = squareform(_pairs(distances))
    n = len(square)
    if n < 4:
        raise InputError(f"there are {n} points, expected 4 or more")
    if n > max_points:
        subset = np.random.default_rng(seed).choice(n, max_points, False)
        square, n = square[np.ix_(subset, subset)], max_points
    worst = total = 0.0
    for last in range(3, n):
        # But for a sign and a constant, Gromov products are the sums of
        # distances: delta is the middle one of three less the smallest.
        from_last = square[last, :last]
        products = from_last[:, None] + from_last - square[:last, :last]
        products /= 2
        np.fill_diagonal(products, np.inf)  # y = z: delta is 0
        for x in range(last - 2):
            y = products[x, x + 1 :]
            z = y[:, None]
            middle = np.minimum(np.maximum(y, z), products[x + 1 :, x + 1 :])
            delta = abs(middle - np.minimum(y, z))
            worst = max(worst, delta.max())
            total += delta.sum() / 2
    scale = 2 / square.max()
    mean = total / math.comb(n, 4)
    return GromovDelta(float(scale * worst), float(scale * mean))


def dendrogram(distances: npt.ArrayLike) -> np.ndarray:
    """Average linkage of the points, in the form of ``scipy.cluster``."""
    return hierarchy.linkage(_pairs(distances), "average")


def cophenetic_correlation(distances: npt.ArrayLike) -> float:
    """Correlation of distances with the heights at which points join.

    It is 1 for an ultrametric, whose dendrogram keeps every distance.
    """
    linkage = dendrogram(distances)
    return float(hierarchy.cophenet(linkage, _pairs(distances))[0])


def dendrogram_purity(linkage: np.ndarray, labels: npt.ArrayLike) -> float:
    """How pure the subtrees are that join points of one label.

    It is the mean, over all pairs of points with one label, of that label's
    share in the smallest subtree that holds both (Heller and Ghahramani,
    "Bayesian hierarchical clustering", ICML 2005). Merges at the same height
    are one subtree. 1: each label has a subtree of its own.
    """
    names = np.asarray(labels)
    heights = squareform(hierarchy.cophenet(linkage))
    shares = []
    for index, row in enumerate(heights):
        same = np.flatnonzero(names == names[index])
        joined = row[same[same != index]] * (1 + 1e-9)
        inside = np.searchsorted(np.sort(row[same]), joined, side="right")
        shares += list(inside / np.searchsorted(np.sort(row), joined, "right"))
    return float(np.mean(shares))


class RankCorrelation(NamedTuple):
    """Spearman's rho, its 95 % interval, and the two-sided p-value of 0."""

    rho: float
    interval: tuple[float, float]
    p_value: float


def rank_correlation(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    groups: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman's rank correlation, with a bootstrap over groups.

    Utterances of a speaker are not independent: with speakers as groups, each
    replicate draws speakers with replacement, and all utterances of each. With
    few groups (some tens) the percentile interval is optimistic: it covers the
    true value less often than 95 % of the time, and the p-value is too small.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < MIN_SPEAKERS:
        raise InputError(
            f"there are {len(names)} groups, expected {MIN_SPEAKERS} or more"
        )
    rows = [np.flatnonzero(members == group) for group in range(len(names))]

    def rho(drawn: np.ndarray) -> float:
        these = np.concatenate([rows[group] for group in drawn])
        return spearmanr(x[these], y[these]).statistic

    every = np.arange(len(names))
    found = bootstrap(
        (every,),
        rho,
        vectorized=False,
        n_resamples=replicates,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    # Rounded, since a correlation of 0 is off in the last digits
    p = p_value(np.round(found.bootstrap_distribution, 12))
    return RankCorrelation(float(rho(every)), (float(low), float(high)), p)
