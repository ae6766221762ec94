"""Measures of hierarchy against loops over quadruples and pairs."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import pdist, squareform

from benchmarks.hierarchy import dendrogram_purity, gromov_delta

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
    expected = 2 * np.mean(deltas) / distances.max()
    assert gromov_delta(distances) == pytest.approx(expected, rel=0.01)
    assert gromov_delta(TERNARY) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_dendrogram_purity_is_that_of_all_pairs(ties):
    distances = TERNARY if ties else some_distances(27)
    joined = linkage(squareform(distances), "average")
    subtrees = [node.pre_order() for node in to_tree(joined, rd=True)[1]]
    if ties:  # merges at one height are one subtree
        parts = [np.split(np.arange(27), n) for n in (9, 3, 1)]
        subtrees = [part.tolist() for split in parts for part in split]
    labels = np.random.default_rng(1).integers(3, size=27)
    shares = []
    for i, j in itertools.combinations(range(27), 2):
        if labels[i] == labels[j]:
            holding = [s for s in subtrees if i in s and j in s]
            shares.append(np.mean(labels[min(holding, key=len)] == labels[i]))
    assert dendrogram_purity(joined, labels) == pytest.approx(np.mean(shares))
