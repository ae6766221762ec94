"""Similarities against the formulas of the spaces, in float64."""

import pytest
import torch

from speechbrain_hyperbolic.nnet.similarity import (
    ClippedDistance,
    ExponentialDistance,
    InnerProduct,
    SmoothCapDistance,
    compare,
)
from tests.nnet.reference import ball_distances

SCALE = {"embedding_scale": 3.0}


def vectors(count, low=0.2, high=1.0):
    """In random directions, of lengths from low to high."""
    directions = torch.randn(count, 6, dtype=torch.float64)
    lengths = torch.linspace(low, high, count, dtype=torch.float64)
    return lengths.unsqueeze(1) * torch.nn.functional.normalize(directions)


@pytest.mark.parametrize(
    "similarity, radius, unit",
    [
        (ExponentialDistance(0.2, **SCALE), lambda r: 0.2**0.5 * r, 0.2**0.5),
        (ExponentialDistance(3.0, **SCALE), lambda r: 3.0**0.5 * r, 3.0**0.5),
        (SmoothCapDistance(0.7, **SCALE), lambda r: 0.7 * (r / 0.7).tanh(), 1),
        (SmoothCapDistance(2.3, **SCALE), lambda r: 2.3 * (r / 2.3).tanh(), 1),
    ],
)
def test_maps(similarity, radius, unit):
    """Those that are not published; embeddings are scaled, centers not."""
    x, w = vectors(5), vectors(7)
    truth = ball_distances(3 * x, w, radius) / unit
    torch.testing.assert_close(-similarity(x, w), truth)


@pytest.mark.parametrize(
    "kind", [ClippedDistance, ExponentialDistance, SmoothCapDistance]
)
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
    found = compare(InnerProduct(), x, w.view(5, 3, 6))
    torch.testing.assert_close(found, (x @ w.T).view(4, 5, 3).amax(2))
