"""Points at random against their distributions."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import squareform
from scipy.stats import ks_2samp, kstest

from speechbrain_hyperbolic.hierarchy.references import (
    hyperbolic_sample,
    sphere_sample,
    tree_sample,
)
from tests.hierarchy.cases import assert_refused


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


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sphere_sample(1, 3), "n is 1"),
        (lambda: sphere_sample(5, 1), "dimension is 1"),
        (lambda: tree_sample(5, 1), "branching is 1"),
        (lambda: hyperbolic_sample(5, 2, 15), "radius is 15"),
        (lambda: hyperbolic_sample(5, 2, 0), "radius is 0"),
    ],
)
def test_refused_in_one_line(call, message):
    assert_refused(call, message)
