"""Measures of hierarchy against loops, permutations and known shapes."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import to_tree
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from speechbrain_hyperbolic.analysis.measures import (
    cophenetic_correlation,
    dendrogram,
    dendrogram_purity,
    gromov_delta,
    rank_correlation,
)

# Between the leaves of a tree with three branches on three levels
DIGITS = np.array(list(itertools.product(range(3), repeat=3)))
SHARED = np.cumprod(DIGITS[:, None] == DIGITS, axis=2).sum(2)
TERNARY = 2.0 * (3 - SHARED)


def some_distances(n, dimensions=3):
    """Between points of Euclidean space."""
    points = np.random.default_rng(0).normal(size=(n, dimensions))
    return squareform(pdist(points))


def test_delta_is_that_of_all_quadruples():
    distances = some_distances(11)
    deltas = []
    for a, b, c, d in itertools.combinations(range(11), 4):
        sums = sorted(
            distances[i][j] + distances[k][m]
            for i, j, k, m in ((a, b, c, d), (a, c, b, d), (a, d, b, c))
        )
        deltas.append((sums[2] - sums[1]) / 2)
    assert gromov_delta(distances) == pytest.approx(
        [2 * f(deltas) / distances.max() for f in (np.max, np.mean)]
    )
    assert 0 < gromov_delta(distances, max_points=9).worst < 1


def test_known_deltas():
    for tree in (TERNARY, 1 - np.eye(6)):
        assert gromov_delta(tree) == pytest.approx((0, 0), abs=1e-12)
    cycle = [[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]
    assert gromov_delta(cycle).worst == 1


def test_cophenetic_correlation_is_that_of_the_heights():
    distances = some_distances(15)
    joined = np.zeros((15, 15))
    for node in to_tree(dendrogram(distances), rd=True)[1][15:]:
        pairs = np.ix_(node.left.pre_order(), node.right.pre_order())
        joined[pairs] = distances[pairs].mean()
    upper = np.triu_indices(15, 1)
    expected = np.corrcoef(distances[upper], (joined + joined.T)[upper])[0, 1]
    assert cophenetic_correlation(distances) == pytest.approx(expected)
    assert cophenetic_correlation(TERNARY) == pytest.approx(1)


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


def test_rank_correlation_is_scipys_with_an_interval_of_draws():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(list("zyxwvutsrqpo"), 3))
    x, y = rng.normal(size=(2, 36))
    y += 0.3 * x
    found = rank_correlation(x, y, groups, replicates=200, seed=4)
    assert found.rho == pytest.approx(spearmanr(x, y).statistic)

    rng = np.random.default_rng(4)
    names, drawn = np.unique(groups), []
    for _ in range(200):
        chosen = names[rng.integers(12, size=12)]
        rows = [i for name in chosen for i in np.flatnonzero(groups == name)]
        drawn.append(spearmanr(x[rows], y[rows]).statistic)
    assert found.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    below = sum(rho <= 0 for rho in drawn)
    p_value = 2 * (1 + min(below, 200 - below)) / 201
    assert found.p_value == pytest.approx(p_value)
