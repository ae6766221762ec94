"""Distortion and embeddings of points that are known."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import pdist, squareform

from speechbrain_hyperbolic.hierarchy.planes import (
    embed_in_disk,
    embed_in_plane,
    plane_distortion,
)
from speechbrain_hyperbolic.hierarchy.references import (
    sphere_sample,
    tree_sample,
)
from tests.hierarchy.cases import (
    FAR,
    NAN,
    assert_refused,
    on_disk,
    some_distances,
)


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


@pytest.mark.parametrize(
    "call, message",
    [
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
    ],
)
def test_refused_in_one_line(call, message):
    assert_refused(call, message)
