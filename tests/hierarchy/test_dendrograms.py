"""Clusters and their measures against loops."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, to_tree
from scipy.spatial.distance import pdist, squareform

from speechbrain_hyperbolic.hierarchy.dendrograms import (
    METHODS,
    adjusted_rand,
    chance,
    cophenetic_correlation,
    dendrogram,
    dendrogram_purity,
    purity,
)
from speechbrain_hyperbolic.hierarchy.trees import tree_distances
from tests.hierarchy.cases import FAR, NAN, assert_refused, some_distances

LINKAGE = dendrogram(some_distances(4))


def loop_average_linkage(distances):
    """Heights at which clusters join, and the dendrogram's distances."""
    clusters = [[i] for i in range(len(distances))]
    heights, joined = [], np.zeros_like(distances)
    while len(clusters) > 1:
        height, a, b = min(
            (distances[np.ix_(x, y)].mean(), i, j)
            for (i, x), (j, y) in itertools.combinations(enumerate(clusters), 2)
        )
        heights.append(height)
        for i, j in itertools.product(clusters[a], clusters[b]):
            joined[i, j] = joined[j, i] = height
        clusters[a] = clusters[a] + clusters.pop(b)
    return heights, joined


def test_dendrogram_is_that_of_a_loop():
    distances = some_distances(15)
    heights, joined = loop_average_linkage(distances)
    linkage = dendrogram(distances)
    np.testing.assert_allclose(linkage[:, 2], heights)
    upper = np.triu_indices(15, 1)
    expected = np.corrcoef(distances[upper], joined[upper])[0, 1]
    assert cophenetic_correlation(distances, linkage) == pytest.approx(expected)


@pytest.mark.parametrize("method", METHODS)
def test_ultrametric_is_kept(method):
    distances = tree_distances(list(itertools.product(*[range(3)] * 3)))
    linkage = dendrogram(distances, method)
    assert cophenetic_correlation(distances, linkage) == pytest.approx(1)


def some_labels(n, kinds, seed=1):
    labels = np.random.default_rng(seed).integers(kinds, size=n)
    return np.array(["bdfhj"[label] for label in labels])


def loop_clusters(linkage, clusters):
    heights = np.append(-1, linkage[:, 2])
    return fcluster(linkage, heights[len(heights) - clusters], "distance")


@pytest.mark.parametrize("clusters", [None, 1, 2, 5, 20])
def test_purity_and_rand_index_are_those_of_loops(clusters):
    linkage, labels = dendrogram(some_distances(20)), some_labels(20, 3)
    cluster = loop_clusters(linkage, clusters or 3)
    assert len(set(cluster)) == (clusters or 3)
    most = 0
    for one in set(cluster):
        inside = labels[cluster == one].tolist()
        most += max(inside.count(label) for label in inside)
    assert purity(linkage, labels, clusters) == most / 20

    pairs = list(itertools.combinations(range(20), 2))
    together = np.array([cluster[i] == cluster[j] for i, j in pairs])
    alike = np.array([labels[i] == labels[j] for i, j in pairs])
    expected = together.mean() * alike.mean()
    index = ((together & alike).mean() - expected) / (
        (together.mean() + alike.mean()) / 2 - expected
    )
    assert adjusted_rand(linkage, labels, clusters) == pytest.approx(index)


def test_cut_takes_ties_in_some_order():
    linkage = dendrogram(1 - np.eye(6))
    assert purity(linkage, list("aabbcc"), clusters=6) == 1
    assert purity(linkage, list("aabbcc"), clusters=3) < 1


def test_rand_index_of_all_alone_is_1():
    linkage = dendrogram(some_distances(4))
    assert adjusted_rand(linkage, [1, 2, 3, 4]) == 1
    assert adjusted_rand(linkage, [1, 2, 3, 3], clusters=1) == 0


def leaves_below(linkage):
    """The leaves of each subtree, by size."""
    _, nodes = to_tree(linkage, rd=True)
    return sorted((node.pre_order() for node in nodes), key=len)


def loop_dendrogram_purity(subtrees, labels):
    shares = []
    for i, j in itertools.combinations(range(len(labels)), 2):
        if labels[i] == labels[j]:
            leaves = next(s for s in subtrees if i in s and j in s)
            shares.append(np.mean([labels[k] == labels[i] for k in leaves]))
    return np.mean(shares)


@pytest.mark.parametrize("kinds", [2, 5])
@pytest.mark.parametrize("method", METHODS)
def test_dendrogram_purity_is_that_of_all_pairs(method, kinds):
    linkage = dendrogram(some_distances(20), method)
    labels = some_labels(20, kinds)
    assert dendrogram_purity(linkage, labels) == pytest.approx(
        loop_dendrogram_purity(leaves_below(linkage), labels)
    )


def test_dendrogram_purity_takes_ties_as_one_subtree():
    paths = list(itertools.product(*[range(3)] * 3))
    linkage = dendrogram(tree_distances(paths))
    labels = some_labels(27, 2)
    subtrees = [
        [i for i, path in enumerate(paths) if path[:depth] == prefix]
        for depth in (2, 1, 0)
        for prefix in itertools.product(*[range(3)] * depth)
    ]
    assert dendrogram_purity(linkage, labels) == pytest.approx(
        loop_dendrogram_purity(subtrees, labels)
    )


def test_dendrogram_purity_of_a_star_is_that_of_no_tree():
    labels = ["m"] * 5 + ["f"] * 3
    pairs = {"m": 10, "f": 3}
    expected = (pairs["m"] * 5 / 8 + pairs["f"] * 3 / 8) / 13
    linkage = dendrogram(1 - np.eye(8))
    assert dendrogram_purity(linkage, labels) == pytest.approx(expected)


def test_labels_of_the_tree_are_pure():
    paths = list(itertools.product("abc", "de", range(4)))
    linkage = dendrogram(tree_distances(paths))
    for depth in (1, 2):
        labels = ["".join(path[:depth]) for path in paths]
        assert purity(linkage, labels) == 1
        assert adjusted_rand(linkage, labels) == 1
        assert dendrogram_purity(linkage, labels) == 1


def test_chance_is_that_of_all_permutations():
    linkage = dendrogram(some_distances(6))
    labels = list("aabbbc")
    every = [
        dendrogram_purity(linkage, shuffled)
        for shuffled in itertools.permutations(labels)
    ]
    found = chance(
        lambda shuffled: dendrogram_purity(linkage, shuffled), labels, 2000
    )
    assert found.mean == pytest.approx(np.mean(every), abs=0.01)
    below = np.mean(np.array(every) < found.high - 1e-9)
    upto = np.mean(np.array(every) <= found.high + 1e-9)
    assert below - 0.02 < 0.95 < upto + 0.02


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: dendrogram(NAN), r"distances\[0, 2\] is nan"),
        (lambda: dendrogram(FAR, "ward"), "method is ward, expected one of av"),
        (lambda: cophenetic_correlation(FAR, LINKAGE), "4 points, the dis.* 3"),
        (
            lambda: cophenetic_correlation(
                1 - np.eye(4), dendrogram(1 - np.eye(4))
            ),
            "the distances are all equal",
        ),
        (
            # Equal but for rounding.
            lambda: cophenetic_correlation(
                squareform(pdist(np.eye(4) / 3 + 0.1)), LINKAGE
            ),
            "the distances are all equal",
        ),
        (
            lambda: cophenetic_correlation(
                squareform(pdist([[0], [1], [2], [3]])),
                dendrogram(squareform(pdist([[0], [1], [2], [3]])), "single"),
            ),
            "the heights of the dendrogram are all equal",
        ),
        (lambda: purity(LINKAGE, "aaa"), "give one label a point"),
        (lambda: purity(LINKAGE, list("aaa")), r"shape \(3,\).*of 4 points"),
        (lambda: purity(LINKAGE, list("aaaa")), "all labels are a"),
        (lambda: purity(LINKAGE, list("aabb"), 5), "clusters is 5"),
        (lambda: purity(LINKAGE, list("aabb"), 0), "clusters is 0"),
        (lambda: adjusted_rand(LINKAGE, list("aaaa")), "all labels are a"),
        (lambda: dendrogram_purity(LINKAGE, list("aaaa")), "all labels are a"),
        (lambda: dendrogram_purity(LINKAGE, list("abcd")), "no two labels"),
        (lambda: chance(len, list("abcd"), draws=0), "draws is 0"),
    ],
)
def test_refused_in_one_line(call, message):
    assert_refused(call, message)
