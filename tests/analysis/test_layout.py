"""The layout by the tree: what is true of it."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import squareform

from speechbrain_hyperbolic.analysis.layout import (
    centred,
    choose_branch,
    distances,
    geodesics,
    kept_neighbours,
    lay_out_tree,
    select,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    Points,
    clip_to_ball,
    exponential_map,
    midpoint,
    paired_distance,
)
from tests.analysis.runs import some_points


def disk_distance(z, w):
    square = abs(z - w) ** 2 / ((1 - abs(z) ** 2) * (1 - abs(w) ** 2))
    return np.arccosh(1 + 2 * square)


@pytest.fixture(scope="module")
def laid_out():
    points = some_points(60)
    square = distances(points)
    return points, square, lay_out_tree(points, square)


def test_distances_are_those_of_pairs(laid_out):
    points, square, _ = laid_out
    for i, j in ((0, 1), (7, 30), (59, 2)):
        a, b = (Points(*(f[k] for f in points)) for k in (i, j))
        assert square[i, j] == pytest.approx(float(paired_distance(a, b)))
    assert (square == square.T).all() and not square.diagonal().any()


def test_radii_are_kept(laid_out):
    points, _, layout = laid_out
    radius = 2 * np.arctanh(abs(layout.disk[:60]))
    np.testing.assert_allclose(radius, points.radius, rtol=1e-9)


def test_tree_is_that_of_scipy(laid_out):
    _, square, layout = laid_out
    tree = linkage(squareform(square), "average")
    _, nodes = to_tree(tree, rd=True)
    for node in nodes:
        leaves = layout.leaves(node.id)
        np.testing.assert_array_equal(leaves, np.sort(node.pre_order()))
        assert layout.height[node.id] == node.dist
    assert layout.parent[-1] == -1


def test_every_branch_is_a_sector(laid_out):
    """Its leaves are neighbours in the order, and turn as the order does."""
    _, _, layout = laid_out
    place = np.argsort(layout.order)
    for node in range(60, 119):
        places = np.sort(place[layout.leaves(node)])
        assert (np.diff(places) == 1).all()
    turn = -np.angle(layout.disk[layout.order] / 1j) % (2 * np.pi)
    steps = np.diff(turn)
    np.testing.assert_allclose(steps, steps[0])
    # The last and the first are no neighbours.
    assert 2 * np.pi - turn[-1] + turn[0] > 1.4 * steps[0]


def test_order_joins_what_is_close(laid_out):
    _, square, layout = laid_out
    order = layout.order
    joined = square[order[:-1], order[1:]].mean()
    tree = linkage(squareform(square), "average")
    plain = to_tree(tree).pre_order()
    assert joined < square[plain[:-1], plain[1:]].mean()
    assert joined < 0.8 * square.mean()


def test_nodes_are_at_the_radius_of_the_midpoint(laid_out):
    points, _, layout = laid_out
    for node in (60, 80, 110, 118):
        middle = midpoint(select(points, layout.leaves(node)))
        radius = 2 * np.arctanh(abs(layout.disk[node]))
        assert radius == pytest.approx(float(middle.radius), rel=1e-6)


def test_far_points():
    """Of the exponential map, whose radii go to 14."""
    vectors = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    points = exponential_map(5 * vectors.double())
    layout = lay_out_tree(points, distances(points))
    assert (abs(layout.disk) < 1).all()
    radius = 2 * np.arctanh(abs(layout.disk[:20]))
    np.testing.assert_allclose(radius, points.radius, rtol=1e-6)


def test_points_in_one_place():
    points = clip_to_ball(torch.ones(4, 3).double() / 9, c=3.0)
    layout = lay_out_tree(points, distances(points))
    assert np.isfinite(layout.disk).all()
    assert np.isfinite(geodesics(layout.disk[:2], layout.disk[:2])).all()
    origin = clip_to_ball(torch.zeros(4, 3).double(), c=3.0)
    layout = lay_out_tree(origin, distances(origin))
    assert not abs(layout.disk).any()


def test_one_point_is_no_picture():
    with pytest.raises(InputError, match="there are 1 speakers"):
        distances(some_points(1))


def test_centred_is_an_isometry(laid_out):
    points, square, _ = laid_out
    moved = centred(points)
    np.testing.assert_allclose(distances(moved), square, atol=1e-9)
    assert float(midpoint(moved).radius) == pytest.approx(0, abs=1e-12)
    middle = midpoint(points).unsqueeze(-1)
    np.testing.assert_allclose(
        moved.radius, paired_distance(points, middle), rtol=1e-9
    )


def test_branch_stands_out_most(laid_out):
    _, _, layout = laid_out
    steps = {}
    for node in range(60, 118):
        if 8 <= len(layout.leaves(node)) <= 20:
            above = layout.height[layout.parent[node]]
            steps[node] = (above - layout.height[node]) / above
    assert choose_branch(layout) == max(steps, key=steps.get)


def test_a_small_tree_is_its_branch():
    points = some_points(5)
    assert choose_branch(lay_out_tree(points, distances(points))) == 8


@pytest.mark.parametrize("nearest", [1, 5, 59])
def test_kept_neighbours(laid_out, nearest):
    _, square, layout = laid_out
    z = layout.disk[:60]
    shares = []
    for i in range(60):
        of_disk, true = (
            set(sorted(set(range(60)) - {i}, key=lambda j, d=d: d[j])[:nearest])
            for d in (disk_distance(z[i], z), square[i])
        )
        shares.append(len(of_disk & true) / nearest)
    assert kept_neighbours(layout, square, nearest) == pytest.approx(
        np.mean(shares)
    )


def test_geodesics_are_the_shortest(laid_out):
    _, _, layout = laid_out
    starts, ends = layout.disk[:20], layout.disk[20:40]
    paths = geodesics(starts, ends, 7)
    np.testing.assert_allclose(paths[:, 0], starts, atol=1e-12)
    np.testing.assert_allclose(paths[:, -1], ends, atol=1e-12)
    length = disk_distance(paths[:, :-1], paths[:, 1:])
    np.testing.assert_allclose(length.sum(1), disk_distance(starts, ends))
    np.testing.assert_allclose(length, length[:, :1].repeat(6, 1), rtol=1e-6)
