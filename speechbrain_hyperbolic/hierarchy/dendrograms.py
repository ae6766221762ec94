"""Clusters of clusters, and how well they keep distances and labels."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.special import comb

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hierarchy.checks import (
    check_number,
    checked_distances,
    varied,
)
from speechbrain_hyperbolic.hierarchy.correlation import pearson

METHODS = ("average", "complete", "single", "weighted")

_TIE = 1e-9


def dendrogram(distances: npt.ArrayLike, method: str = "average") -> np.ndarray:
    """Agglomerative clustering.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    method : str
        Distance of two clusters: "average", "complete", "single" or
        "weighted" (see ``scipy.cluster.hierarchy.linkage``, whose other
        methods are for Euclidean distances alone).

    Returns
    -------
    linkage : np.ndarray
        As scipy's, shape [N - 1, 4].

    Raises
    ------
    InputError
        If these are no distances, all points coincide, or the method is none
        of these.

    Example
    -------
    >>> dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])[:, 2]
    array([1., 5.])
    """
    if method not in METHODS:
        raise InputError(
            f"method is {method}, expected one of {', '.join(METHODS)}"
        )
    return hierarchy.linkage(squareform(checked_distances(distances)), method)


def cophenetic_correlation(
    distances: npt.ArrayLike, linkage: np.ndarray
) -> float:
    """How well a dendrogram keeps the distances.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    linkage : np.ndarray
        Of ``dendrogram``, of these points.

    Returns
    -------
    correlation : float
        Pearson's, over pairs, of the distances and the heights at which the
        two points join: 1 for an ultrametric.

    Raises
    ------
    InputError
        If these are no distances, the linkage is of other points, or either
        is all equal.

    Example
    -------
    >>> ultrametric = [[0, 1, 5], [1, 0, 5], [5, 5, 0]]
    >>> cophenetic_correlation(ultrametric, dendrogram(ultrametric))
    1.0
    """
    distances = checked_distances(distances)
    pairs = squareform(distances)
    joined = hierarchy.cophenet(linkage)
    if joined.size != pairs.size:
        raise InputError(
            f"the linkage is of {len(linkage) + 1} points, the distances of "
            f"{len(distances)}: give that of the same points"
        )
    return pearson(
        varied(pairs, "the distances"),
        varied(joined, "the heights of the dendrogram"),
    )


def purity(
    linkage: np.ndarray, labels: npt.ArrayLike, clusters: int | None = None
) -> float:
    """Share of the points that have the commonest label of their cluster.

    Where merges tie in height, scipy's order decides which are cut.

    Arguments
    ---------
    linkage : np.ndarray
        Of ``dendrogram``.
    labels : array_like
        Shape [N], of two kinds or more.
    clusters : int
        How many to cut the dendrogram into; None: as many as kinds of labels.

    Returns
    -------
    purity : float
        In (0, 1]; at least the share of the commonest label.

    Raises
    ------
    InputError
        If the labels are all the same or of another number than the points,
        or ``clusters`` is out of range.

    Example
    -------
    >>> linkage = dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])
    >>> purity(linkage, ["f", "f", "m"])
    1.0
    """
    counts = _cut(linkage, labels, clusters)
    return float(counts.max(1).sum() / counts.sum())


def adjusted_rand(
    linkage: np.ndarray, labels: npt.ArrayLike, clusters: int | None = None
) -> float:
    """Adjusted Rand index of the clusters and the labels.

    Source: Hubert and Arabie, "Comparing partitions", Journal of
    Classification 2, 1985.

    Arguments
    ---------
    linkage : np.ndarray
        As ``purity``.
    labels : array_like
        As ``purity``.
    clusters : int
        As ``purity``.

    Returns
    -------
    index : float
        1 where they are the same, 0 on average by chance.

    Raises
    ------
    InputError
        As ``purity``.

    Example
    -------
    >>> linkage = dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])
    >>> round(adjusted_rand(linkage, ["f", "m", "m"]), 3)
    -0.5
    """
    counts = _cut(linkage, labels, clusters)
    both = comb(counts, 2).sum()
    in_cluster, in_class = (comb(counts.sum(axis), 2).sum() for axis in (1, 0))
    expected = in_cluster * in_class / comb(counts.sum(), 2)
    most = (in_cluster + in_class) / 2
    if most == expected:
        return 1.0  # all points are alone, in the clusters and the classes
    return float((both - expected) / (most - expected))


def dendrogram_purity(linkage: np.ndarray, labels: npt.ArrayLike) -> float:
    """How pure the subtrees are that join points of one label.

    Over all pairs of two points with one label, the mean share of that label
    in the smallest subtree that holds both; exact, in O(N) per label. Merges
    of one subtree at the same height are taken as one.

    Source: Heller and Ghahramani, "Bayesian hierarchical clustering", ICML
    2005.

    Arguments
    ---------
    linkage : np.ndarray
        Of ``dendrogram``.
    labels : array_like
        Shape [N], of two kinds or more.

    Returns
    -------
    purity : float
        In (0, 1]: 1 where each label has a subtree of its own. See ``chance``
        for that of labels at random.

    Raises
    ------
    InputError
        As ``purity``; also if no two labels are the same.

    Example
    -------
    >>> linkage = dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])
    >>> round(dendrogram_purity(linkage, ["f", "m", "m"]), 3)
    0.667
    """
    linkage, counts = _class_counts(linkage, labels)
    n = len(linkage) + 1
    children, height = linkage[:, :2].astype(int), linkage[:, 2]
    pairs = counts[children[:, 0]] * counts[children[:, 1]]
    if not pairs.any():
        raise InputError("no two labels are the same: give labels of groups")
    whole = np.arange(2 * n - 1)
    for row in range(n - 2, -1, -1):
        for child in children[row]:
            if child >= n and height[row] <= height[child - n] * (1 + _TIE):
                whole[child] = whole[n + row]
    subtrees = counts[whole[n:]]
    shares = subtrees / subtrees.sum(1, keepdims=True)
    return float((pairs * shares).sum() / pairs.sum())


def _cut(
    linkage: npt.ArrayLike, labels: npt.ArrayLike, clusters: int | None
) -> np.ndarray:
    """Points by cluster and class, shape [clusters, classes]."""
    linkage, counts = _class_counts(linkage, labels)
    n, classes = len(linkage) + 1, counts.shape[1]
    if clusters is None:
        clusters = classes
    check_number("clusters", clusters, 1, n)
    merged = linkage[: n - clusters, :2].astype(int)
    return counts[np.setdiff1d(np.arange(2 * n - clusters), merged)]


def _class_counts(
    linkage: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """The linkage, and of each of its nodes how many points of each class.

    Nodes are numbered as in the linkage: shape [2 N - 1, classes].
    """
    linkage = np.asarray(linkage, dtype=np.float64)
    hierarchy.is_valid_linkage(linkage, throw=True)
    n = len(linkage) + 1
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise InputError(
            f"labels have shape {labels.shape}, the linkage is of {n} points: "
            "give one label a point, in the same order"
        )
    kinds, classes = np.unique(labels, return_inverse=True)
    if len(kinds) < 2:
        raise InputError(
            f"all labels are {kinds[0]}: it takes two kinds to tell clusters"
        )
    counts = np.zeros((2 * n - 1, len(kinds)), int)
    counts[np.arange(n), classes] = 1
    for node, (first, second) in enumerate(linkage[:, :2].astype(int), n):
        counts[node] = counts[first] + counts[second]
    return linkage, counts


class Chance(NamedTuple):
    """What labels at random give.

    Arguments
    ---------
    mean : float
    high : float
        The 95 % quantile.
    """

    mean: float
    high: float


def chance(
    function: Callable, labels: npt.ArrayLike, draws: int = 100, seed: int = 0
) -> Chance:
    """What a measure is of labels that are shuffled among the points.

    Arguments
    ---------
    function : callable
        Labels -> float.
    labels : array_like
        Shape [N].
    draws : int
        Number of shuffles, above 0.
    seed : int
        Of the shuffles.

    Returns
    -------
    chance : Chance

    Raises
    ------
    InputError
        If ``draws`` is out of range.

    Example
    -------
    >>> linkage = dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])
    >>> of_chance = chance(
    ...     lambda labels: dendrogram_purity(linkage, labels), ["f", "m", "m"]
    ... )
    >>> 2 / 3 < of_chance.mean < of_chance.high
    True
    """
    check_number("draws", draws, 1)
    rng = np.random.default_rng(seed)
    found = [function(rng.permutation(labels)) for _ in range(draws)]
    return Chance(float(np.mean(found)), float(np.quantile(found, 0.95)))
