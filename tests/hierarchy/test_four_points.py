"""Delta hyperbolicity against a loop and known shapes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from speechbrain_hyperbolic.hierarchy.four_points import gromov_delta
from speechbrain_hyperbolic.hierarchy.references import (
    hyperbolic_sample,
    sphere_sample,
    tree_sample,
)
from tests.hierarchy.cases import FAR, assert_refused, on_disk, some_distances


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


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gromov_delta(FAR), "of 3 points: give 4"),
        (lambda: gromov_delta(np.zeros((5, 5))), "the points coincide"),
        (lambda: gromov_delta(some_distances(5), 6), "samples is 6.*at most 5"),
        (lambda: gromov_delta(some_distances(5), 0), "samples is 0"),
    ],
)
def test_refused_in_one_line(call, message):
    assert_refused(call, message)
