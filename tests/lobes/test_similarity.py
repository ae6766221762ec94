"""Similarities against the formulas of the spaces, in float64."""

import geoopt
import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.similarity import (
    ClippedDistance,
    Cosine,
    Dot,
    ExactDistance,
    SmoothDistance,
)
from tests.reference import naive_distance, published_distances


def vectors(count, seed=0, norm=1.0):
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return (
        norm
        * v
        / v.norm(dim=1, keepdim=True)
        * torch.linspace(0.2, 1, count, dtype=torch.float64).unsqueeze(1)
    )


def ball(v, radius):
    """Points of the unit ball in the directions of v, as lists."""
    length = v.norm(dim=1, keepdim=True)
    return (v / length * (radius(length) / 2).tanh()).tolist()


def test_euclidean():
    x, w = vectors(3), vectors(4, seed=1)
    torch.testing.assert_close(Dot()(x, w), x @ w.T)
    cosines = torch.nn.functional.cosine_similarity(
        x.unsqueeze(1), w.unsqueeze(0), dim=2
    )
    torch.testing.assert_close(Cosine()(x, w), cosines)


@pytest.mark.parametrize("c", [1.5, 3.0, 5.0])
def test_clipped(c):
    x, w = vectors(5, norm=2.0), vectors(7, seed=1)
    torch.testing.assert_close(
        -ClippedDistance(c)(x, w), published_distances(x, w, c)
    )


@pytest.mark.parametrize("curvature", [0.2, 1.0, 3.0])
def test_exact_against_geoopt(curvature):
    """Exponential map at the origin and distance of the ball of geoopt.

    Its distance is 2 artanh, of curvature -c, and its map tanh(sqrt(c) |v|).
    That is the ball of metric 4 |dx|^2: a tangent vector at the origin is
    twice as long as its coordinates, hence the halves.
    """
    space = geoopt.PoincareBall(c=curvature)
    x, w = vectors(5), vectors(7, seed=1)
    a, b = (space.expmap0(v / 2) for v in (x, w))
    truth = space.dist(a.unsqueeze(1), b.unsqueeze(0))
    torch.testing.assert_close(-ExactDistance(curvature)(x, w), truth)


@pytest.mark.parametrize("cap", [0.7, 2.3])
def test_smooth(cap):
    x, w = vectors(5, norm=3.0), vectors(7, seed=1)
    a, b = (ball(v, lambda r: cap * (r / cap).tanh()) for v in (x, w))
    truth = torch.tensor(
        [[naive_distance(p, q) for q in b] for p in a], dtype=torch.float64
    )
    torch.testing.assert_close(-SmoothDistance(cap)(x, w), truth)


@pytest.mark.parametrize(
    "similarity", [ClippedDistance, ExactDistance, SmoothDistance]
)
def test_embedding_scale(similarity):
    """It multiplies the embeddings, and not the centres."""
    x, w = vectors(5), vectors(7, seed=1)
    torch.testing.assert_close(
        similarity(embedding_scale=0.3)(x, w), similarity()(0.3 * x, w)
    )


def test_published_cap():
    assert ClippedDistance(3.0).cap == pytest.approx(1.317, abs=1e-3)


@pytest.mark.parametrize("far", [1e-2, 50.0])
@pytest.mark.parametrize(
    "similarity",
    [ClippedDistance(3.0), ExactDistance(2.0), SmoothDistance(2.3)],
)
def test_no_radius_above_the_cap(similarity, far):
    radius = similarity.points(vectors(9, norm=far)).radius
    assert radius.max() <= similarity.cap * (1 + 1e-12)
    if far > 10:
        assert radius.max() == pytest.approx(similarity.cap)


@pytest.mark.parametrize("push", [1.0, -1.0])
def test_learnt_numbers_stay_within_ten_times(push):
    """However far they are driven, and with a gradient on the way."""
    similarity = ExactDistance(0.5, learnable=True, learn_scale=True)
    x, w = vectors(5), vectors(7, seed=1)
    optimizer = torch.optim.SGD(similarity.parameters(), lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        similarity(x, w).sum().backward()
        for p in similarity.parameters():
            assert p.grad.isfinite() and p.grad != 0
            p.grad.fill_(push)
        optimizer.step()
        assert 0.05 - 1e-6 <= similarity.curvature <= 5 + 1e-6
        assert 0.1 - 1e-6 <= similarity.embedding_scale <= 10 + 1e-6


def test_gradient_by_curvature():
    similarity = ExactDistance(0.5, learnable=True).double()
    x, w = vectors(5), vectors(7, seed=1)
    similarity(x, w).sum().backward()
    ends = [
        ExactDistance(0.5 * 10 ** (step / (1 + abs(step))))(x, w).sum()
        for step in (1e-5, -1e-5)
    ]
    slope = (ends[0] - ends[1]).item() / 2e-5
    assert similarity._curvature.theta.grad.item() == pytest.approx(
        slope,
        rel=1e-4,  # the slope of theta has a kink at 0
    )


@pytest.mark.parametrize("value", [0, -1, float("nan"), "x", None])
@pytest.mark.parametrize(
    "make, name",
    [
        (ExactDistance, "curvature"),
        (lambda v: ExactDistance(max_radius=v), "max_radius"),
        (SmoothDistance, "cap"),
        (lambda v: ClippedDistance(embedding_scale=v), "embedding_scale"),
        (ClippedDistance, "c"),
    ],
)
def test_out_of_range(make, name, value):
    with pytest.raises(InputError, match=f"{name} is .* expected"):
        make(value)
