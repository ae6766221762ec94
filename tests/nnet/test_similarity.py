"""Similarities against the formulas of the spaces, in float64."""

import pytest
import torch

from speechbrain_hyperbolic.nnet.similarity import (
    ClippedDistance,
    Cosine,
    ExponentialDistance,
    InnerProduct,
    SmoothCapDistance,
    compare,
)
from tests.nnet.reference import ball_distances, published_distances

HYPERBOLIC = [ClippedDistance, ExponentialDistance, SmoothCapDistance]


def vectors(count, low=0.2, high=1.0):
    """In random directions, of lengths from low to high."""
    directions = torch.randn(count, 6, dtype=torch.float64)
    lengths = torch.linspace(low, high, count, dtype=torch.float64)
    return lengths.unsqueeze(1) * torch.nn.functional.normalize(directions)


def test_euclidean():
    x, w = vectors(3), vectors(4)
    torch.testing.assert_close(InnerProduct()(x, w), x @ w.T)
    cosines = torch.cosine_similarity(x.unsqueeze(1), w.unsqueeze(0), dim=2)
    torch.testing.assert_close(Cosine()(x, w), cosines)


@pytest.mark.parametrize("high", [1e-5, 1.0, 50.0])
@pytest.mark.parametrize("c", [1.5, 3.0, 5.0])
def test_clip(c, high):
    x, w = vectors(5, high=high), vectors(7, high=1.0)
    truth = published_distances(x, w, c)
    torch.testing.assert_close(
        -ClippedDistance(c)(x, w), truth, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    "similarity, radius, unit",
    [
        (ExponentialDistance(0.2), lambda r: 0.2**0.5 * r, 0.2**0.5),
        (ExponentialDistance(3.0), lambda r: 3.0**0.5 * r, 3.0**0.5),
        (SmoothCapDistance(0.7), lambda r: 0.7 * (r / 0.7).tanh(), 1),
        (SmoothCapDistance(2.3), lambda r: 2.3 * (r / 2.3).tanh(), 1),
    ],
)
def test_other_maps(similarity, radius, unit):
    x, w = vectors(5, high=3.0), vectors(7)
    truth = ball_distances(x, w, radius) / unit
    torch.testing.assert_close(-similarity(x, w), truth)


@pytest.mark.parametrize("kind", HYPERBOLIC)
def test_embedding_scale(kind):
    """It multiplies the embeddings, and not the centers."""
    x, w = vectors(5), vectors(7)
    torch.testing.assert_close(
        kind(embedding_scale=0.3)(x, w), kind()(0.3 * x, w)
    )


@pytest.mark.parametrize("kind", HYPERBOLIC)
def test_no_radius_above_the_cap(kind):
    similarity = kind()
    radius = similarity.points(vectors(9, high=50.0)).radius
    assert radius.max() == pytest.approx(similarity.cap, rel=1e-12)


@pytest.mark.parametrize("push", [1.0, -1.0])
def test_learned_numbers_stay_within_ten_times(push):
    """However far they are driven, and with a gradient on the way."""
    similarity = ExponentialDistance(0.5, True, learn_scale=True)
    x, w = vectors(5), vectors(7)
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


def test_gradients_of_the_learned_numbers():
    similarity = ExponentialDistance(0.5, True, learn_scale=True).double()
    x, w = vectors(5), vectors(7)

    def outputs(*thetas):
        names = [name for name, _ in similarity.named_parameters()]
        parameters = dict(zip(names, thetas, strict=True))
        return torch.func.functional_call(similarity, parameters, (x, w))

    # Not at 0, where the derivative of |theta| jumps.
    thetas = [torch.tensor(t).double().requires_grad_() for t in (0.3, -0.7)]
    assert torch.autograd.gradcheck(outputs, thetas)


def test_of_the_centers_of_a_speaker_the_most_similar_counts():
    x, w = vectors(4), vectors(15)
    every = Cosine()(x, w)
    found = compare(Cosine(), x, w.view(5, 3, 6))
    torch.testing.assert_close(found, every.view(4, 5, 3).amax(2))
