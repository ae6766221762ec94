"""Similarities against the formulas of the spaces, in float64."""

import geoopt
import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.similarity import (
    ClippedDistance,
    Cosine,
    ExponentialDistance,
    InnerProduct,
    SmoothCapDistance,
    make_similarity,
)
from tests.nnet.reference import ball_distances, published_distances


def vectors(count, seed=0, norm=1.0):
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    lengths = torch.linspace(0.2, 1, count, dtype=torch.float64).unsqueeze(1)
    return norm * lengths * v / v.norm(dim=1, keepdim=True)


def test_euclidean():
    x, w = vectors(3), vectors(4, seed=1)
    torch.testing.assert_close(InnerProduct()(x, w), x @ w.T)
    cosines = torch.nn.functional.cosine_similarity(
        x.unsqueeze(1), w.unsqueeze(0), dim=2
    )
    torch.testing.assert_close(Cosine()(x, w), cosines)


@pytest.mark.parametrize("c", [1.5, 3.0, 5.0])
def test_clip(c):
    x, w = vectors(5, norm=2.0), vectors(7, seed=1)
    torch.testing.assert_close(
        -ClippedDistance(c)(x, w), published_distances(x, w, c)
    )


@pytest.mark.parametrize("curvature", [0.2, 1.0, 3.0])
def test_exponential_against_geoopt(curvature):
    """The exponential map at the origin and the distance of geoopt's ball.

    Its metric is 4 |dx|^2 at the origin, where a tangent vector is twice as
    long as its coordinates: hence the halves.
    """
    space = geoopt.PoincareBall(c=curvature)
    x, w = vectors(5), vectors(7, seed=1)
    a, b = (space.expmap0(v / 2) for v in (x, w))
    truth = space.dist(a.unsqueeze(1), b.unsqueeze(0))
    torch.testing.assert_close(-ExponentialDistance(curvature)(x, w), truth)


@pytest.mark.parametrize("cap", [0.7, 2.3])
def test_smooth_cap(cap):
    x, w = vectors(5, norm=3.0), vectors(7, seed=1)
    truth = ball_distances(x, w, lambda r: cap * (r / cap).tanh())
    torch.testing.assert_close(-SmoothCapDistance(cap)(x, w), truth)


HYPERBOLIC = [ClippedDistance, ExponentialDistance, SmoothCapDistance]


@pytest.mark.parametrize("kind", HYPERBOLIC)
def test_embedding_scale(kind):
    """It multiplies the embeddings, and not the centers."""
    x, w = vectors(5), vectors(7, seed=1)
    torch.testing.assert_close(
        kind(embedding_scale=0.3)(x, w), kind()(0.3 * x, w)
    )


@pytest.mark.parametrize("far", [1e-2, 50.0])
@pytest.mark.parametrize("kind", HYPERBOLIC)
def test_no_radius_above_the_cap(kind, far):
    similarity = kind()
    radius = similarity.points(vectors(9, norm=far)).radius
    assert radius.max() <= similarity.cap * (1 + 1e-12)
    if far > 10:
        assert radius.max() == pytest.approx(similarity.cap)


@pytest.mark.parametrize("push", [1.0, -1.0])
def test_learned_numbers_stay_within_ten_times(push):
    """However far they are driven, and with a gradient on the way."""
    similarity = ExponentialDistance(0.5, True, learn_scale=True)
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


def test_gradient_of_the_learned_curvature():
    similarity = ExponentialDistance(0.5, learn_curvature=True).double()
    x, w = vectors(5), vectors(7, seed=1)
    similarity(x, w).sum().backward()
    ends = [
        ExponentialDistance(0.5 * 10 ** (step / (1 + abs(step))))(x, w).sum()
        for step in (1e-5, -1e-5)
    ]
    slope = (ends[0] - ends[1]).item() / 2e-5
    (theta,) = similarity.parameters()
    # The slope of theta has a kink at 0.
    assert theta.grad.item() == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "3", None])
@pytest.mark.parametrize(
    "make, name",
    [
        (ExponentialDistance, "curvature"),
        (lambda v: ExponentialDistance(max_radius=v), "max_radius"),
        (SmoothCapDistance, "cap"),
        (lambda v: ClippedDistance(embedding_scale=v), "embedding_scale"),
        (ClippedDistance, "c"),
    ],
)
def test_out_of_range(make, name, value):
    with pytest.raises(InputError, match=f"{name} is .* expected"):
        make(value)


def test_made_by_name():
    similarity = make_similarity("smooth_cap", cap=1.3, c=3.0)
    assert isinstance(similarity, SmoothCapDistance) and similarity.cap == 1.3
    with pytest.raises(InputError, match="map is 'ball', expected one of clip"):
        make_similarity("ball")
    with pytest.raises(InputError, match="learn_curvature is True, but map"):
        make_similarity("clip", learn_curvature=True)
