"""Measures of hierarchy against loops over quadruples and pairs."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import to_tree
from scipy.spatial.distance import pdist, squareform

from benchmarks.hierarchy import (
    cophenetic_correlation,
    dendrogram,
    dendrogram_purity,
    gromov_delta,
)

# Between the leaves of a tree with three branches on three levels
DIGITS = np.array(list(itertools.product(range(3), repeat=3)))
SHARED = np.cumprod(DIGITS[:, None] == DIGITS, axis=2).sum(2)
TERNARY = 2.0 * (3 - SHARED)


def some_distances(n):
    """Between points of Euclidean space."""
    return squareform(pdist(np.random.default_rng(0).normal(size=(n, 3))))


def test_delta_is_that_of_all_quadruples():
    distances = some_distances(11)
    deltas = []
    for a, b, c, d in itertools.combinations(range(11), 4):
        sums = sorted(
            distances[i][j] + distances[k][m]
            for i, j, k, m in ((a, b, c, d), (a, c, b, d), (a, d, b, c))
        )
        deltas.append((sums[2] - sums[1]) / 2)
    expected = [2 * f(deltas) / distances.max() for f in (np.max, np.mean)]
    assert gromov_delta(distances) == pytest.approx(expected)
    assert 0 < gromov_delta(distances, max_points=9)[0] < 1
    assert gromov_delta(TERNARY) == pytest.approx((0, 0), abs=1e-12)


def test_cophenetic_correlation_is_that_of_the_heights():
    distances = some_distances(15)
    joined = np.zeros((15, 15))
    for node in to_tree(dendrogram(distances), rd=True)[1][15:]:
        pairs = np.ix_(node.left.pre_order(), node.right.pre_order())
        joined[pairs] = distances[pairs].mean()
    upper = np.triu_indices(15, 1)
    expected = np.corrcoef(distances[upper], (joined + joined.T)[upper])[0, 1]
    assert cophenetic_correlation(distances) == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
def test_dendrogram_purity_is_that_of_all_pairs(ties):
    """The definition, from the leaves of each subtree, by size."""
    linkage = dendrogram(TERNARY if ties else some_distances(27))
    nodes = to_tree(linkage, rd=True)[1]
    subtrees = [node.pre_order() for node in nodes]
    if ties:  # merges at one height are one subtree
        parts = [np.split(np.arange(27), n) for n in (9, 3, 1)]
        subtrees = [part.tolist() for split in parts for part in split]
    labels = np.random.default_rng(1).integers(3, size=27)
    shares = []
    for i, j in itertools.combinations(range(27), 2):
        if labels[i] == labels[j]:
            holding = [s for s in subtrees if i in s and j in s]
            shares.append(np.mean(labels[min(holding, key=len)] == labels[i]))
    assert dendrogram_purity(linkage, labels) == pytest.approx(np.mean(shares))
