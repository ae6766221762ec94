"""How tree-like speakers are, from the distances between them.

Distances are a matrix [N, N] in any unit, between Euclidean, spherical or
hyperbolic points. In many dimensions random points are nearly equidistant:
that is a star, and a star is a tree. So compare each figure with that of
points without a hierarchy, or of shuffled labels
(``scipy.stats.permutation_test``).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster import hierarchy
from scipy.optimize import minimize
from scipy.spatial.distance import squareform
from scipy.stats import permutation_test, rankdata, spearmanr, zscore
from sklearn.manifold import smacof
from sklearn.metrics import adjusted_rand_score

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.bootstrap import MIN_SPEAKERS, p_value
from speechbrain_hyperbolic.geometry import (
    exponential_map,
    pairwise_distance,
    to_ball,
)


def check_distances(distances: npt.ArrayLike, least: int = 2) -> np.ndarray:
    """Distances in float64, made symmetric to the last bit."""
    distances = np.array(distances, dtype=np.float64)
    n = len(distances)
    if distances.shape != (n, n) or n < least:
        raise InputError(
            f"the distances have shape {distances.shape}, expected (N, N) of "
            f"{least} points or more"
        )
    symmetric = (distances + distances.T) / 2
    np.fill_diagonal(symmetric, 0)
    # In float32, distances of close points are off by as much.
    off = abs(distances - symmetric).max() > 1e-2 * distances.max()
    if off or not np.isfinite(distances).all() or symmetric.min() < 0:
        raise InputError(
            "the distances are not finite, >= 0, and symmetric with zeros on "
            "the diagonal: are they similarities?"
        )
    if not symmetric.any():
        raise InputError("the distances are all 0: the points coincide")
    return symmetric


class GromovDelta(NamedTuple):
    """Twice delta over the diameter: 0 in a tree, at most 1 in a metric."""

    worst: float
    mean: float


def gromov_delta(
    distances: npt.ArrayLike, most_points: int = 256, seed: int = 0
) -> GromovDelta:
    """How far distances are from a tree's, by Gromov's four-point condition.

    Four points have three sums of two opposite distances. Their delta is half
    the difference of the two largest, which is 0 in a tree. ``worst`` is the
    largest delta (Khrulkov et al., "Hyperbolic Image Embeddings", CVPR 2020),
    ``mean`` the mean one, which hardly depends on a single point. All
    quadruples of N points count, O(N^4); of more points than ``most_points``,
    as many are drawn. Both figures grow with N: compare sets of one size.
    """
    distances = check_distances(distances, least=4)
    n = len(distances)
    if n > most_points:
        drawn = np.random.default_rng(seed).choice(n, most_points, False)
        distances, n = distances[np.ix_(drawn, drawn)], most_points
    worst = total = 0.0
    for last in range(3, n):
        # But for a sign and a constant, Gromov products are the sums of
        # distances: delta is the middle one of three less the smallest.
        out = distances[last, :last]
        products = (out[:, None] + out - distances[:last, :last]) / 2
        np.fill_diagonal(products, np.inf)  # y = z: delta is 0
        for x in range(last - 2):
            y = products[x, x + 1 :]
            z = y[:, None]
            middle = np.minimum(np.maximum(y, z), products[x + 1 :, x + 1 :])
            delta = abs(middle - np.minimum(y, z))
            worst = max(worst, delta.max())
            total += delta.sum() / 2
    scale = 2 / distances.max()
    mean = total / math.comb(n, 4)
    return GromovDelta(float(scale * worst), float(scale * mean))


def dendrogram(distances: npt.ArrayLike) -> np.ndarray:
    """Average linkage of the points, in the form of ``scipy.cluster``."""
    return hierarchy.linkage(squareform(check_distances(distances)), "average")


def cophenetic_correlation(distances: npt.ArrayLike) -> float:
    """Correlation of distances with the heights at which points join.

    It is 1 for an ultrametric, whose dendrogram keeps every distance.
    """
    pairs = squareform(check_distances(distances))
    return float(hierarchy.cophenet(dendrogram(distances), pairs)[0])


def adjusted_rand(linkage: np.ndarray, labels: Sequence) -> float:
    """Adjusted Rand index of labels and as many clusters as labels."""
    clusters = hierarchy.fcluster(linkage, len(set(labels)), "maxclust")
    return float(adjusted_rand_score(labels, clusters))


def dendrogram_purity(linkage: np.ndarray, labels: Sequence) -> float:
    """How pure the subtrees are that join points of one label.

    It is the mean, over all pairs of points with one label, of that label's
    share in the smallest subtree that holds both (Heller and Ghahramani,
    "Bayesian hierarchical clustering", ICML 2005). Merges at the same height
    are one subtree. 1: each label has a subtree of its own.
    """
    kinds = np.asarray(labels)
    heights = squareform(hierarchy.cophenet(linkage))
    shares = []
    for index, row in enumerate(heights):
        alike = np.flatnonzero(kinds == kinds[index])
        joined = row[alike[alike != index]] * (1 + 1e-9)
        inside = np.searchsorted(np.sort(row[alike]), joined, side="right")
        shares += list(inside / np.searchsorted(np.sort(row), joined, "right"))
    return float(np.mean(shares))


def tree_distances(paths: Sequence[Sequence]) -> np.ndarray:
    """Edges between the leaves of a known tree, [N, N].

    A path holds the names from below the root down to the leaf, as many for
    each leaf. A name counts below its parent: (rp, f) and (us, f) are apart.

    >>> tree_distances([("rp", "f"), ("rp", "m"), ("us", "f")])
    array([[0, 2, 4],
           [2, 0, 4],
           [4, 4, 0]])
    """
    levels = [np.array(names) for names in zip(*paths, strict=True)]
    shared = np.cumprod([level[:, None] == level for level in levels], axis=0)
    return 2 * (len(levels) - shared.sum(0))


def tree_correlation(
    distances: npt.ArrayLike,
    tree: npt.ArrayLike,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Spearman's rho of distances with a known tree's, and its p-value.

    Pairs of points are not independent, so the one-sided p-value is that of
    Mantel's test, which shuffles the points of the tree.
    """
    near, known = (
        zscore(rankdata(squareform(check_distances(given))))
        for given in (distances, tree)
    )
    square = squareform(known)

    def rho(order: np.ndarray) -> float:
        shuffled = square[np.ix_(order, order)]
        return near @ squareform(shuffled, checks=False) / near.size

    found = permutation_test(
        (np.arange(len(square)),),
        rho,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=draws,
        random_state=seed,
    )
    return float(found.statistic), float(found.pvalue)


class Embedding(NamedTuple):
    """Points of a plane as complex numbers [N], and what distances lose there.

    The stress is the root of the squared errors' sum over that of the squared
    distances, in [0, 1].
    """

    points: np.ndarray
    stress: float


def embed_in_plane(distances: npt.ArrayLike, seed: int = 0) -> Embedding:
    """Points of the Euclidean plane that fit distances with least stress."""
    distances = check_distances(distances)
    places, squared_errors = smacof(
        distances, n_components=2, n_init=4, eps=1e-9, random_state=seed
    )
    stress = (2 * squared_errors) ** 0.5 / np.linalg.norm(distances)
    return Embedding(places @ [1, 1j], float(stress))


def embed_in_disk(
    distances: npt.ArrayLike, steps: int = 500, seed: int = 0
) -> Embedding:
    """Points of the Poincare disk that fit distances with least stress.

    They and the unit of the distances are fitted by L-BFGS, from three
    scales. At a small scale the disk is flat, so what tells is how much better
    than the plane it fits. The minimum is a local one: for trees, its stress
    varies up to twofold with the seed.
    """
    distances = check_distances(distances)
    n, diameter = len(distances), distances.max()
    target = torch.from_numpy(distances / diameter)
    apart = 1 - torch.eye(n, dtype=torch.float64)

    def stress(flat: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(flat, requires_grad=True)
        points = exponential_map(leaf[:-1].view(n, 2))
        found = pairwise_distance(points, points) * apart * (-leaf[-1]).exp()
        value = (found - target).square().sum() / target.square().sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.item(), gradient.numpy()

    # Classical scaling; without noise, points that coincide stay together.
    center = np.eye(n) - 1 / n
    values, axes = np.linalg.eigh(-center @ target.numpy() ** 2 @ center / 2)
    start = axes[:, -2:] * np.sqrt(values[-2:].clip(min=0))
    start += 0.03 * np.random.default_rng(seed).standard_normal((n, 2))
    fits = [
        minimize(
            stress,
            np.append(scale * start, np.log(scale)),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "ftol": 1e-10, "gtol": 1e-9},
        )
        for scale in (1, 5, 15)
    ]
    best = min(fits, key=lambda fit: fit.fun)
    vectors = torch.from_numpy(best.x[:-1].reshape(n, 2))
    ball = to_ball(exponential_map(vectors)).numpy()
    return Embedding(ball @ [1, 1j], float(best.fun**0.5))


class RankCorrelation(NamedTuple):
    """Spearman's rho, its 95 % interval, and the two-sided p-value of 0."""

    rho: float
    interval: tuple[float, float]
    p_value: float


def rank_correlation(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman's rank correlation, with a bootstrap over groups.

    Utterances of a speaker are not independent: with speakers as groups, each
    replicate draws speakers with replacement, and all utterances of each.
    None: each value is its own group. The interval is that of the percentiles.
    With few groups (some tens) it is optimistic: it covers the true value less
    often than 95 % of the time, and the p-value is too small.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    groups = np.arange(x.size) if groups is None else np.asarray(groups)
    names, members = np.unique(groups, return_inverse=True)
    if len(names) < MIN_SPEAKERS or not np.isfinite(x + y).all():
        raise InputError(
            f"there are {len(names)} groups: give {MIN_SPEAKERS} or more, and "
            "finite values"
        )
    rows = [np.flatnonzero(members == group) for group in range(len(names))]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(replicates):
        chosen = rng.integers(len(names), size=len(names))
        these = np.concatenate([rows[group] for group in chosen])
        if np.ptp(x[these]) > 0 and np.ptp(y[these]) > 0:
            drawn.append(spearmanr(x[these], y[these]).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975])
    # Rounded, since a correlation of 0 is off in the last digits
    p = p_value(np.round(drawn, 12))
    rho = spearmanr(x, y).statistic
    return RankCorrelation(float(rho), (float(low), float(high)), p)
