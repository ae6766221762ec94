"""Measures of hierarchy against loops, closed forms and known shapes."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, to_tree
from scipy.optimize import minimize_scalar
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import pdist, squareform
from scipy.stats import ks_2samp, kstest, spearmanr

from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import exponential_map, pairwise_distance
from speechbrain_hyperbolic.hierarchy import (
    LEVELS,
    METHODS,
    adjusted_rand,
    chance,
    cophenetic_correlation,
    dendrogram,
    dendrogram_purity,
    embed_in_disk,
    embed_in_plane,
    gromov_delta,
    hyperbolic_sample,
    plane_distortion,
    purity,
    rank_correlation,
    read_paths,
    sphere_sample,
    tree_correlation,
    tree_distances,
    tree_sample,
)


def some_distances(n, dimensions=3, seed=0):
    """Of points in Euclidean space."""
    points = np.random.default_rng(seed).normal(size=(n, dimensions))
    return squareform(pdist(points))


def on_disk(vectors):
    """Distances of points of the hyperbolic plane, from tangent vectors."""
    points = exponential_map(torch.as_tensor(vectors, dtype=torch.float64))
    distances = pairwise_distance(points, points).numpy()
    return distances * (1 - np.eye(len(distances)))


# delta hyperbolicity


def loop_deltas(distances):
    """The delta of each four points."""
    deltas = {}
    for four in itertools.combinations(range(len(distances)), 4):
        a, b, c, d = four
        sums = sorted(
            distances[i][j] + distances[k][m]
            for i, j, k, m in ((a, b, c, d), (a, c, b, d), (a, d, b, c))
        )
        deltas[four] = (sums[2] - sums[1]) / 2
    return deltas


# Cosine distances, whose triangle inequality fails, count as well.
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("n", [4, 5, 11])
def test_delta_is_that_of_all_quadruples(n, power):
    distances = some_distances(n) ** power
    deltas = list(loop_deltas(distances).values())
    assert gromov_delta(distances) == pytest.approx(
        [2 * f(deltas) / distances.max() for f in (np.max, np.mean)]
    )


@pytest.mark.parametrize("samples", [1, 3])
def test_sampled_delta_is_that_of_quadruples_with_a_base_point(samples):
    distances = some_distances(7) ** 2
    found = gromov_delta(distances, samples, seed=3)
    expected = []
    for bases in itertools.combinations(range(7), samples):
        deltas = [
            delta
            for base in bases
            for four, delta in loop_deltas(distances).items()
            if base in four
        ]
        expected.append((np.max(deltas), np.mean(deltas)))
    expected = 2 * np.array(expected) / distances.max()
    assert np.isclose(expected, found).all(1).any()


def test_sampled_delta_is_at_least_half_the_exact_one():
    for seed in range(20):
        distances = some_distances(12, seed=seed)
        exact = gromov_delta(distances).worst
        sampled = gromov_delta(distances, samples=1, seed=seed).worst
        assert exact / 2 <= sampled <= exact * (1 + 1e-12)


def test_many_points_are_sampled():
    n = 257
    distances = some_distances(n, 2)
    by_default = gromov_delta(distances, seed=5)
    assert by_default == gromov_delta(distances, samples=4, seed=5)
    assert by_default != gromov_delta(distances, samples=4, seed=6)


@pytest.mark.parametrize("branching", [2, 3, 8])
def test_tree_has_delta_0(branching):
    assert gromov_delta(tree_sample(40, branching)) == pytest.approx((0, 0))


def test_star_has_delta_0():
    assert gromov_delta(1 - np.eye(6)) == (0, 0)


def test_known_deltas():
    cycle = [[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]
    assert gromov_delta(cycle).worst == 1
    square = squareform(pdist([[0, 0], [0, 1], [1, 0], [1, 1]]))
    assert gromov_delta(square).worst == pytest.approx(2 - 2**0.5)


def test_hyperbolic_plane_has_delta_log_2():
    # Nica and Spakula, "Strongly hyperbolic spaces", 2016: for Gromov
    # products. Four points far out on perpendicular lines reach it.
    distances = hyperbolic_sample(60, 2, 14)
    worst = gromov_delta(distances).worst * distances.max() / 2
    assert 0.5 * math.log(2) < worst < math.log(2)
    cross = on_disk([[12, 0], [0, 12], [-12, 0], [0, -12]])
    worst = gromov_delta(cross).worst * cross.max() / 2
    assert worst == pytest.approx(math.log(2), abs=1e-4)


def test_sphere_is_less_of_a_tree_than_hyperbolic_space():
    tree = gromov_delta(tree_sample(60, 3))
    hyperbolic = gromov_delta(hyperbolic_sample(60, 3, 10))
    sphere = gromov_delta(sphere_sample(60, 3))
    assert tree.worst < 0.1 * hyperbolic.worst < 0.04 * sphere.worst
    assert tree.mean < 0.1 * hyperbolic.mean < 0.04 * sphere.mean


@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(4, 9),
    dimensions=st.integers(1, 4),
    seed=st.integers(0, 1000),
    factor=st.floats(1e-6, 1e6),
)
def test_delta_has_no_unit_and_no_order(n, dimensions, seed, factor):
    distances = some_distances(n, dimensions, seed)
    order = np.random.default_rng(seed).permutation(n)
    found = gromov_delta(distances)
    other = gromov_delta(factor * distances[np.ix_(order, order)])
    assert other == pytest.approx(found, abs=1e-12)
    assert 0 <= found.mean <= found.worst <= 1 + 1e-12
    if dimensions == 1:  # a line is a tree
        assert found.worst == pytest.approx(0, abs=1e-12)


def test_mean_delta_hardly_sees_one_point():
    distances = tree_sample(40, 3)
    distances[0, 1:] = distances[1:, 0] = np.random.default_rng(0).uniform(
        1, distances.max(), 39
    )
    found = gromov_delta(distances)
    assert found.worst > 0.3 > 10 * found.mean


# dendrogram


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


def test_float32_distances_are_mended():
    distances = some_distances(15)
    noise = np.random.default_rng(0).uniform(0, 1e-3, distances.shape)
    rough = (distances + noise).astype(np.float32)
    found = dendrogram(rough)
    np.testing.assert_allclose(
        found[:, 2], dendrogram(distances)[:, 2], atol=1e-3
    )
    assert rough[0, 0] > 0  # what is given stays as it is


# labels


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


# correlation


@pytest.mark.parametrize("ties", [False, True])
def test_rho_is_scipys(ties):
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    y += x
    if ties:
        x, y = x.round(), y.round()
    found = rank_correlation(x, y, replicates=10)
    assert found.rho == pytest.approx(spearmanr(x, y).statistic)


def test_interval_and_p_are_those_of_draws_written_out():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(list("zyxwvutsrqpo"), 3))
    x, y = rng.normal(size=(2, 36)).round(1)
    y += 0.3 * x
    found = rank_correlation(x, y, replicates=200, seed=4, groups=groups)

    rng = np.random.default_rng(4)
    names = sorted(set(groups))
    drawn = []
    for _ in range(200):
        counts = rng.multinomial(12, [1 / 12] * 12)
        rows = [
            row
            for name, count in zip(names, counts, strict=True)
            for row in count * np.flatnonzero(groups == name).tolist()
        ]
        drawn.append(spearmanr(x[rows], y[rows]).statistic)
    assert found.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    below = sum(rho <= 0 for rho in drawn)
    p_value = 2 * (1 + min(below, 200 - below)) / 201
    assert found.p_value == pytest.approx(p_value)


def test_groups_keep_the_error_rate():
    """Of utterances that know nothing but their speaker."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    wrong = {"speakers": 0, "utterances": 0}
    for seed in range(60):
        x, y = rng.normal(size=(2, 20))[:, groups]
        x, y = (v + 0.3 * rng.normal(size=200) for v in (x, y))
        for kind, of in (("speakers", groups), ("utterances", None)):
            found = rank_correlation(x, y, 200, seed, of)
            wrong[kind] += found.p_value < 0.05
    assert wrong["speakers"] <= 9 < 25 < wrong["utterances"]


def test_draws_of_one_value_are_skipped():
    # A draw without the one group that differs has no correlation.
    x = np.append(np.zeros(9), 1)
    found = rank_correlation(x, np.arange(10), replicates=50)
    assert 0 < found.interval[0] <= found.interval[1] <= 1


# distortion


def test_distortion_is_the_least_of_any_factor():
    distances = some_distances(12)
    planar = some_distances(12, 2, seed=1)
    d, p = squareform(distances), squareform(planar)
    found = plane_distortion(distances, planar)

    def least(error):
        factors = np.geomspace(0.1, 10, 2000)
        near = factors[np.argmin([error(f) for f in factors])]
        return minimize_scalar(
            error, bounds=(near * 0.99, near * 1.01), method="bounded"
        ).fun

    assert found.mean == pytest.approx(
        least(lambda f: abs(f * p / d - 1).mean()), rel=1e-5
    )
    assert found.stress == pytest.approx(
        least(lambda f: (((f * p - d) ** 2).sum() / (d**2).sum()) ** 0.5)
    )
    assert found.worst == (p / d).max() / (p / d).min()
    assert plane_distortion(distances, 7 * planar) == pytest.approx(found)


def test_no_distortion():
    distances = some_distances(8)
    assert plane_distortion(distances, 3 * distances) == pytest.approx(
        (0, 1, 0), abs=1e-12
    )


def test_distortion_where_points_coincide():
    line = squareform(pdist([[0], [0], [1], [3]]))
    moved = squareform(pdist([[0], [0.1], [1], [3]]))
    found = plane_distortion(line, moved)
    assert math.isfinite(found.worst) and found.stress > 0
    found = plane_distortion(moved, line)
    assert found.worst == math.inf
    assert 1 / 6 <= found.mean < 0.3


# planes


def disk_distances(z):
    """By the disk's own formula."""
    z, w = z[:, None], z[None]
    square = abs(z - w) ** 2 / ((1 - abs(z) ** 2) * (1 - abs(w) ** 2))
    return np.arccosh(1 + 2 * square)


def test_points_of_the_disk_are_found_again_with_the_curvature():
    vectors = np.random.default_rng(0).normal(size=(30, 2))
    distances = on_disk(2 * vectors)
    found = embed_in_disk(10 * distances)
    assert plane_distortion(distances, found.distances).stress < 1e-3
    assert found.scale == pytest.approx(0.1, rel=0.01)
    assert abs(found.points).max() < 1
    np.testing.assert_allclose(
        found.scale * found.distances, disk_distances(found.points), atol=1e-6
    )
    np.testing.assert_allclose(found.distances, 10 * distances, atol=0.3)


def test_points_of_the_plane_are_found_again():
    distances = some_distances(30, 2)
    found = embed_in_plane(10 * distances)
    np.testing.assert_allclose(found.distances, 10 * distances, atol=1e-3)
    z = found.points
    np.testing.assert_allclose(found.distances, abs(z[:, None] - z), atol=1e-9)
    assert found.scale == 1
    # What is flat needs no curvature: the disk is used where it is flat too.
    on_it = embed_in_disk(distances)
    assert plane_distortion(distances, on_it.distances).stress < 1e-3
    assert on_it.scale * distances.max() < 0.5


def stresses(distances):
    return [
        plane_distortion(distances, embed(distances).distances).stress
        for embed in (embed_in_disk, embed_in_plane)
    ]


def test_tree_fits_the_disk_better_than_the_plane():
    disk, plane = stresses(tree_sample(25, 3))
    assert disk < plane / 3


def test_sphere_fits_the_disk_as_the_plane():
    disk, plane = stresses(sphere_sample(40, 3, seed=1))
    assert plane > 0.2
    assert disk == pytest.approx(plane, rel=0.01)


def test_embedding_depends_on_the_seed_alone():
    distances = tree_sample(12, 3)
    first, again, other = (
        embed_in_disk(distances, steps=20, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.points, again.points)
    assert not np.array_equal(first.points, other.points)


@pytest.mark.parametrize("embed", [embed_in_disk, embed_in_plane])
def test_embedding_of_few_or_coincident_points(embed):
    found = embed([[0, 3], [3, 0]])
    np.testing.assert_allclose(found.distances, [[0, 3], [3, 0]], atol=1e-3)
    triangle = [[0, 2, 2], [2, 0, 2], [2, 2, 0]]
    np.testing.assert_allclose(embed(triangle).distances, triangle, atol=1e-2)
    # Twice the same points.
    distances = np.kron(triangle, np.ones((2, 2)))
    found = embed(distances)
    np.testing.assert_allclose(found.distances, distances, atol=0.05)


# known trees

PATHS = [("a", "x"), ("a", "y"), ("b", "x"), ("b",), ("a",), (), ("b", "x", 1)]


def test_tree_distances_are_shortest_paths():
    nodes = sorted({p[:k] for p in PATHS for k in range(len(p) + 1)}, key=str)
    graph = [[float(b[:-1] == a != b) for b in nodes] for a in nodes]
    lengths = shortest_path(np.array(graph), directed=False)
    rows = [nodes.index(path) for path in PATHS]
    np.testing.assert_array_equal(
        tree_distances(PATHS), lengths[np.ix_(rows, rows)]
    )


def test_equal_paths_are_one_node():
    assert not tree_distances([("a", "b")] * 2).any()
    assert tree_distances([]).shape == (0, 0)


def test_rho_with_the_tree_is_that_of_all_pairs():
    distances = some_distances(12)
    paths = list(itertools.product(range(3), range(2), range(2)))
    tree = tree_distances(paths)
    upper = np.triu_indices(12, 1)
    expected = spearmanr(distances[upper], tree[upper]).statistic
    found = tree_correlation(distances, tree, draws=10)
    assert found.rho == pytest.approx(expected)


def test_mantel_p_is_that_of_all_permutations():
    distances = some_distances(6, seed=4)
    tree = tree_distances([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)])
    upper = np.triu_indices(6, 1)

    def rho(order):
        shuffled = tree[np.ix_(order, order)]
        return spearmanr(distances[upper], shuffled[upper]).statistic

    every = [rho(order) for order in itertools.permutations(range(6))]
    expected = np.mean(np.array(every) >= every[0] - 1e-9)
    assert 0.1 < expected < 0.9
    found = tree_correlation(distances, tree, draws=4000)
    assert found.p_value == pytest.approx(expected, abs=0.03)


def test_points_of_a_tree_correlate_with_it():
    tree = tree_distances(list(itertools.product(*[range(3)] * 3)))
    noise = some_distances(27)
    found = tree_correlation(tree + noise, tree, draws=200)
    assert found.rho > 0.3 and found.p_value == pytest.approx(1 / 201)
    turned = (10 - tree) * (1 - np.eye(27))
    assert tree_correlation(turned, tree).p_value == 1


def test_tree_of_a_synthetic_corpus(tmp_path):
    folder = make_synthetic_corpus(
        tmp_path / "corpus",
        progress=False,
        n_train=8,
        n_test=4,
        utterances=(1, 1),
    )
    names = sorted(path.name for path in folder.glob("spk*"))[::-1]
    lines = (folder / "speakers.csv").read_text().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines]
    expected = {
        row["spk_id"]: tuple(row[level] for level in LEVELS) for row in rows
    }
    paths = read_paths(folder, names)
    assert paths == [expected[name] for name in names]
    tree = tree_distances(paths)
    assert np.unique(tree[~np.eye(len(tree), dtype=bool)]).tolist() == [2, 8]


def test_speaker_or_level_that_is_not_there(tmp_path):
    (tmp_path / "speakers.csv").write_text("spk_id,sex\nann,f\n")
    with pytest.raises(InputError, match="no speaker bob"):
        read_paths(tmp_path, ["ann", "bob"], ["sex"])
    with pytest.raises(InputError, match="no accent of ann"):
        read_paths(tmp_path, ["ann"])


# samples


def independent(distances):
    """Those of the first and second point, the third and fourth and so on."""
    return distances[::2, 1::2].diagonal()


def test_sphere_sample_is_uniform():
    cosines = np.cos(independent(sphere_sample(2000, 3)))
    # By Archimedes.
    assert kstest(cosines, "uniform", (-1, 2)).pvalue > 0.01
    angles = independent(sphere_sample(2000, 2))
    assert kstest(angles, "uniform", (0, math.pi)).pvalue > 0.01


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("radius", [0.1, 3])
def test_hyperbolic_sample_is_uniform_by_volume(dimension, radius):
    found = independent(hyperbolic_sample(2000, dimension, radius))
    # Points by rejection, in the Lorentz model.
    rng = np.random.default_rng(1)
    r, keep = rng.uniform(0, radius, (2, 100_000))
    density = (np.sinh(r) / np.sinh(radius)) ** (dimension - 1)
    r = r[keep / radius < density][:4000]
    u = rng.normal(size=(len(r), dimension))
    u *= (np.sinh(r) / np.linalg.norm(u, axis=1))[:, None]
    (u, v), (r, s) = u.reshape(2, -1, dimension), r.reshape(2, -1)
    product = np.cosh(r) * np.cosh(s) - (u * v).sum(1)
    assert ks_2samp(found, np.arccosh(product.clip(min=1))).pvalue > 0.01


def test_samples_in_many_dimensions():
    # Nearly all are at right angles, and on the boundary of the ball.
    assert independent(sphere_sample(200, 10_000)) == pytest.approx(
        math.pi / 2, abs=0.05
    )
    assert independent(hyperbolic_sample(200, 3000, 5.0)) == pytest.approx(
        math.acosh(math.cosh(5) ** 2), abs=0.2
    )


@pytest.mark.parametrize(
    "sample",
    [(sphere_sample, 3), (tree_sample, 3), (hyperbolic_sample, 3, 2.0)],
)
def test_samples_are_metrics_of_a_seed(sample):
    function, *arguments = sample
    first, again, other = (function(20, *arguments, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first == first.T).all() and not first.diagonal().any()
    through = (first[:, :, None] + first[None]).min(1)
    assert (first <= through + 1e-12).all()
    assert squareform(first).min() > 0


# what cannot be

LINKAGE = dendrogram(some_distances(4))
FAR = [[0.0, 1, 2], [1, 0, 3], [2, 3, 0]]
NAN, MINUS = ([[0, 1, bad], [1, 0, 3], [bad, 3, 0]] for bad in (math.nan, -2.0))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gromov_delta(FAR), "of 3 points: give 4"),
        (lambda: gromov_delta(np.zeros((5, 5))), "the points coincide"),
        (lambda: gromov_delta(some_distances(5), 6), "samples is 6.*at most 5"),
        (lambda: gromov_delta(some_distances(5), 0), "samples is 0"),
        (lambda: dendrogram([[0, 1]]), r"shape \(1, 2\), expected \(N, N\)"),
        (lambda: dendrogram([[0]]), "of 1 points: give 2"),
        (lambda: dendrogram(np.zeros((0, 0))), "of 0 points"),
        (lambda: dendrogram(NAN), r"distances\[0, 2\] is nan"),
        (lambda: dendrogram(MINUS), r"distances\[0, 2\] is -2"),
        (lambda: dendrogram(np.triu(FAR)), r"\[1, 2\] is 3, but \[2, 1\] is 0"),
        (lambda: dendrogram(4 - np.array(FAR)), "expected 0: are these simil"),
        (lambda: dendrogram(FAR, "ward"), "method is ward, expected one of av"),
        (lambda: cophenetic_correlation(FAR, LINKAGE), "4 points, the dis.* 3"),
        (
            lambda: cophenetic_correlation(
                1 - np.eye(4), dendrogram(1 - np.eye(4))
            ),
            "the distances are all equal",
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
        (lambda: rank_correlation([1, 2, 3], [1, 2]), r"y has shape \(2,\)"),
        (lambda: rank_correlation([1] * 20, range(20)), "x are all equal"),
        (
            lambda: rank_correlation([1, math.inf], [1, 2]),
            "x is inf at index 1",
        ),
        (lambda: rank_correlation(range(9), range(9)), "there are 9 groups"),
        (
            lambda: rank_correlation(range(20), range(20), groups=[1] * 20),
            "there are 1 groups",
        ),
        (
            lambda: rank_correlation(range(20), range(20), groups=[1]),
            r"groups has shape \(1,\)",
        ),
        (
            lambda: rank_correlation(range(20), range(20), replicates=0.5),
            "replicates is 0.5",
        ),
        (lambda: plane_distortion(FAR, np.zeros((3, 3))), "planar_.*coincide"),
        (
            lambda: plane_distortion(FAR, some_distances(4)),
            "planar_distances is of another number of points",
        ),
        (
            lambda: plane_distortion(
                [[0, 0, 1], [0, 0, 1], [1, 1, 0]],
                [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
            ),
            "they are of other points",
        ),
        (lambda: embed_in_disk(FAR, steps=0), "steps is 0"),
        (lambda: embed_in_plane(NAN), r"distances\[0, 2\] is nan"),
        (
            lambda: tree_correlation(FAR, some_distances(4)),
            "tree is of another",
        ),
        (
            lambda: tree_correlation(FAR, 1 - np.eye(3)),
            "the tree's are all equal",
        ),
        (lambda: tree_correlation(FAR, FAR, draws=0), "draws is 0"),
        (lambda: sphere_sample(1, 3), "n is 1"),
        (lambda: sphere_sample(5, 1), "dimension is 1"),
        (lambda: tree_sample(5, 1), "branching is 1"),
        (lambda: hyperbolic_sample(5, 2, 15), "radius is 15"),
        (lambda: hyperbolic_sample(5, 2, 0), "radius is 0"),
    ],
)
def test_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
