"""Measures of hierarchy against loops, permutations and known shapes."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import to_tree
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from speechbrain_hyperbolic.analysis.measures import (
    adjusted_rand,
    check_distances,
    cophenetic_correlation,
    dendrogram,
    dendrogram_purity,
    embed_in_disk,
    embed_in_plane,
    gromov_delta,
    rank_correlation,
    tree_correlation,
    tree_distances,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import exponential_map, pairwise_distance

TERNARY = tree_distances(list(itertools.product(*[range(3)] * 3)))


def some_distances(n, dimensions=3, seed=0):
    """Between points of Euclidean space."""
    points = np.random.default_rng(seed).normal(size=(n, dimensions))
    return squareform(pdist(points))


def random_tree(n, seed=0):
    """Between the leaves of a tree with edges of random length."""
    rng = np.random.default_rng(seed)
    distances, depth = np.zeros((n, n)), np.zeros(n)
    nodes = [[leaf] for leaf in range(n)]
    while len(nodes) > 1:
        a, b = (nodes.pop(rng.integers(len(nodes))) for _ in "ab")
        for leaves in (a, b):
            depth[leaves] += rng.random()
        distances[np.ix_(a, b)] = depth[a][:, None] + depth[b]
        distances[np.ix_(b, a)] = distances[np.ix_(a, b)].T
        nodes.append(a + b)
    return distances


def test_float32_distances_are_mended_and_others_refused():
    distances = some_distances(15)
    noise = np.random.default_rng(0).uniform(0, 1e-3, distances.shape)
    found = check_distances((distances + noise).astype(np.float32))
    np.testing.assert_allclose(found, distances, atol=1e-3)
    assert (found == found.T).all() and not found.diagonal().any()
    for wrong, message in (
        ([[0, 1]], r"shape \(1, 2\), expected \(N, N\)"),
        ([[0]], "expected .* 2 points"),
        (np.zeros((5, 5)), "the points coincide"),
        ([[0, math.nan], [math.nan, 0]], "not finite"),
        ([[0, -2], [-2, 0]], "not finite, >= 0"),
        (np.triu(TERNARY), "symmetric"),
        (9.0 - TERNARY, "are they similarities"),
    ):
        with pytest.raises(InputError, match=message):
            check_distances(wrong)


# Squared distances, whose triangle inequality fails, count as well.
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("n", [4, 5, 11])
def test_delta_is_that_of_all_quadruples(n, power):
    distances = some_distances(n) ** power
    deltas = []
    for a, b, c, d in itertools.combinations(range(n), 4):
        sums = sorted(
            distances[i][j] + distances[k][m]
            for i, j, k, m in ((a, b, c, d), (a, c, b, d), (a, d, b, c))
        )
        deltas.append((sums[2] - sums[1]) / 2)
    assert gromov_delta(distances) == pytest.approx(
        [2 * f(deltas) / distances.max() for f in (np.max, np.mean)]
    )


def test_known_deltas():
    for tree in (random_tree(40), TERNARY, 1 - np.eye(6)):
        assert gromov_delta(tree) == pytest.approx((0, 0), abs=1e-12)
    cycle = [[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]
    assert gromov_delta(cycle).worst == 1
    # The hyperbolic plane has delta log 2 (Nica and Spakula, "Strongly
    # hyperbolic spaces", 2016): four points far out on a cross reach it.
    cross = torch.tensor([[12.0, 0], [0, 12], [-12, 0], [0, -12]]).double()
    points = exponential_map(cross)
    distances = pairwise_distance(points, points).numpy()
    worst = gromov_delta(distances).worst * distances.max() / 2
    assert worst == pytest.approx(math.log(2), abs=1e-4)
    plane = some_distances(20, 2)
    some = [gromov_delta(plane, most_points=9, seed=s) for s in (1, 1, 2)]
    assert some[0] == some[1] != some[2]


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


def loop_purity(subtrees, labels):
    """The definition, from the leaves of each subtree, by size."""
    shares = []
    for i, j in itertools.combinations(range(len(labels)), 2):
        if labels[i] == labels[j]:
            leaves = next(s for s in subtrees if i in s and j in s)
            shares.append(np.mean([labels[k] == labels[i] for k in leaves]))
    return np.mean(shares)


@pytest.mark.parametrize("kinds", [2, 5])
def test_dendrogram_purity_is_that_of_all_pairs(kinds):
    linkage = dendrogram(some_distances(20))
    labels = np.random.default_rng(1).integers(kinds, size=20)
    nodes = to_tree(linkage, rd=True)[1]
    subtrees = sorted((node.pre_order() for node in nodes), key=len)
    assert dendrogram_purity(linkage, labels) == pytest.approx(
        loop_purity(subtrees, labels)
    )


def test_dendrogram_purity_takes_ties_as_one_subtree():
    labels = np.random.default_rng(1).integers(2, size=27)
    leaves = np.arange(27)
    subtrees = [
        leaves[leaves // size == part].tolist()
        for size in (3, 9, 27)
        for part in range(27 // size)
    ]
    assert dendrogram_purity(dendrogram(TERNARY), labels) == pytest.approx(
        loop_purity(subtrees, labels)
    )


def test_labels_of_the_tree_are_found():
    linkage = dendrogram(TERNARY)
    for size in (3, 9):
        labels = [f"group {leaf // size}" for leaf in range(27)]
        assert dendrogram_purity(linkage, labels) == 1
        assert adjusted_rand(linkage, labels) == 1
    shuffled = np.random.default_rng(0).permutation(labels)
    assert abs(adjusted_rand(linkage, shuffled)) < 0.2


def test_rho_and_mantel_p_are_those_of_all_permutations():
    distances = some_distances(6, seed=4)
    tree = tree_distances([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)])
    upper = np.triu_indices(6, 1)

    def rho(order):
        shuffled = tree[np.ix_(order, order)]
        return spearmanr(distances[upper], shuffled[upper]).statistic

    every = [rho(order) for order in itertools.permutations(range(6))]
    expected = np.mean(np.array(every) >= every[0] - 1e-9)
    assert 0.1 < expected < 0.9
    found, p = tree_correlation(distances, tree, draws=600)
    assert found == pytest.approx(every[0])
    assert p == pytest.approx(expected, abs=0.06)
    rho, p = tree_correlation(TERNARY + some_distances(27), TERNARY, draws=200)
    assert rho > 0.3 and p == pytest.approx(1 / 201)


def stress_of(distances, planar):
    """The least that any unit gives."""
    d, p = squareform(distances, checks=False), squareform(planar, checks=False)
    unit = (d @ p) / (p @ p)
    return np.linalg.norm(d - unit * p) / np.linalg.norm(d)


def test_embeddings_fit_what_fits():
    plane = some_distances(12, 2)
    found = embed_in_plane(plane)
    tree = random_tree(16)
    assert embed_in_disk(tree).stress < embed_in_plane(tree).stress / 3
    xy = np.stack([found.points.real, found.points.imag], 1)
    assert found.stress < 1e-2
    assert stress_of(plane, squareform(pdist(xy))) == pytest.approx(
        found.stress, abs=1e-6
    )
    vectors = np.random.default_rng(0).normal(0, 2, (12, 2))
    points = exponential_map(torch.from_numpy(vectors))
    hyperbolic = pairwise_distance(points, points).numpy()
    hyperbolic = 3 * hyperbolic * (1 - np.eye(12))  # in any unit
    found = embed_in_disk(hyperbolic)
    z = found.points
    gap = abs(z[:, None] - z) / abs(1 - np.conj(z[:, None]) * z)
    assert found.stress < 1e-2 < embed_in_plane(hyperbolic).stress
    assert stress_of(hyperbolic, 2 * np.arctanh(gap)) == pytest.approx(
        found.stress, abs=1e-6
    )


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_scipys_with_an_interval_of_draws(ties):
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(list("zyxwvutsrqpo"), 3))
    x, y = rng.normal(size=(2, 36))
    y += 0.3 * x
    if ties:
        x, y = x.round(), y.round()
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


def test_groups_keep_the_error_rate():
    """Where utterances depend on nothing but their speaker."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    wrong = {"speakers": 0, "utterances": 0}
    for seed in range(20):
        x, y = rng.normal(size=(2, 20))[:, groups]
        x, y = (v + 0.3 * rng.normal(size=200) for v in (x, y))
        for kind, by in (("speakers", groups), ("utterances", None)):
            found = rank_correlation(x, y, by, 60, seed)
            wrong[kind] += found.p_value < 0.05
    assert wrong["speakers"] <= 4 < 6 < wrong["utterances"]


def test_few_groups_are_refused():
    with pytest.raises(InputError, match="9 groups: give 10"):
        rank_correlation(range(9), range(9))
    with pytest.raises(InputError, match="finite"):
        rank_correlation([math.inf, *range(9)], range(10))
