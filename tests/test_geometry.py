"""Distances against mpmath, at every radius that the clip allows."""

import mpmath
import pytest
import torch

from speechbrain_hyperbolic import geometry
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    Points,
    check_c,
    clip_to_ball,
    paired_distance,
    pairwise_distance,
)

mpmath.mp.dps = 50


def polar(radius, dim, seed, dtype):
    """Points of given radii in random directions."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(
        len(radius), dim, generator=generator, dtype=torch.float64
    )
    direction /= direction.norm(dim=1, keepdim=True)
    radius = torch.as_tensor(radius, dtype=torch.float64)
    spatial = radius.sinh().unsqueeze(1) * direction
    return Points(spatial.to(dtype), radius.to(dtype))


def exact_distance(x, y):
    """Law of cosines, in 50 digits, of points given in floating point."""
    s = [mpmath.mpf(v.item()) for v in x.spatial.double()]
    t = [mpmath.mpf(v.item()) for v in y.spatial.double()]
    norms = [mpmath.sqrt(mpmath.fsum(v * v for v in u)) for u in (s, t)]
    cosine = mpmath.fdot(s, t) / (norms[0] * norms[1])
    a, b = (mpmath.mpf(p.radius.double().item()) for p in (x, y))
    cosh = mpmath.cosh(a) * mpmath.cosh(b)
    cosh -= mpmath.sinh(a) * mpmath.sinh(b) * cosine
    return float(mpmath.acosh(cosh))


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize("radius", [1e-6, 0.1, 1.3, 2.3, 6.0, 12.0, 14.0])
def test_distance_against_mpmath(radius, dtype, tolerance):
    x = polar([radius] * 4, 16, 0, dtype)
    y = polar([radius, radius / 2, 0.9 * radius, 1.0], 16, 1, dtype)
    pairs = pairwise_distance(x, y)
    for i in range(4):
        for j in range(4):
            one = Points(x.spatial[i], x.radius[i])
            two = Points(y.spatial[j], y.radius[j])
            truth = exact_distance(one, two)
            scale = max(1.0, truth) if radius > 1e-3 else truth
            assert abs(pairs[i, j].item() - truth) < tolerance * scale
    torch.testing.assert_close(
        paired_distance(x, y), pairs.diagonal(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("c", [1.0, 1.5, 3.0, 5.0, 100.0])
def test_clip_caps_the_radius(c):
    """rho <= 2 artanh(1/sqrt(c)): 1.317 at c = 3, 0.962 at c = 5."""
    vectors = torch.randn(50, 8, dtype=torch.float64)
    vectors *= torch.logspace(-8, 8, 50, dtype=torch.float64).unsqueeze(1)
    points = clip_to_ball(vectors, c)
    cap = 2 * torch.tensor((1 - 1e-5) / c**0.5, dtype=torch.float64).atanh()
    assert points.radius.max() <= cap + 1e-12
    norm = vectors.norm(dim=1)
    inside = norm < 0.99 / c**0.5
    torch.testing.assert_close(
        points.radius[inside], 2 * norm[inside].atanh(), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(
        points.spatial.norm(dim=1), points.radius.sinh(), rtol=1e-9, atol=0
    )
    cosine = torch.nn.functional.cosine_similarity(points.spatial, vectors)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_published_caps():
    far = torch.full((1, 4), 1e3)
    assert clip_to_ball(far, 3.0).radius.item() == pytest.approx(
        1.317, abs=1e-3
    )
    assert clip_to_ball(far, 5.0).radius.item() == pytest.approx(
        0.962, abs=1e-3
    )


def test_c_is_not_a_curvature():
    """One pair at c = 3, from the ball's own formula: the space is unit."""
    x = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    distance = paired_distance(clip_to_ball(x, 3.0), clip_to_ball(y, 3.0))
    truth = float(
        mpmath.acosh(1 + 2 * mpmath.mpf("0.5") / mpmath.mpf("0.5625"))
    )
    assert distance.item() == pytest.approx(truth, rel=1e-12)


def test_tf32_products(monkeypatch):
    """Factors rounded as a GPU rounds them give a float32 product still."""

    def rounded(x):
        bits = x.view(torch.int32)
        even = (bits >> 13) & 1
        return ((bits + 0xFFF + even) & -(1 << 13)).view(torch.float32)

    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: matmul(rounded(a), rounded(b))
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 192, generator=generator)
    y = torch.randn(40, 192, generator=generator)
    truth = matmul(x.double(), y.double().T)
    scale = x.norm(dim=1).outer(y.norm(dim=1))
    plain = ((x @ y.T - truth).abs() / scale).max()
    split = ((geometry._split_product(x, y) - truth).abs() / scale).max()
    assert plain > 2e-5 and split < 1e-6


def test_gradient_of_split_products():
    x = torch.randn(3, 8, requires_grad=True)
    y = torch.randn(4, 8, requires_grad=True)
    weight = torch.randn(3, 4)
    (geometry._split_product(x, y) * weight).sum().backward()
    torch.testing.assert_close(x.grad, weight @ y)
    torch.testing.assert_close(y.grad, weight.T @ x)


def test_no_radial_gradient_beyond_the_cap():
    vectors = torch.tensor([[3.0, 4.0], [0.1, 0.2]], requires_grad=True)
    other = clip_to_ball(torch.tensor([[0.2, -0.3]]), 3.0)
    pairwise_distance(clip_to_ball(vectors, 3.0), other).sum().backward()
    radial = (vectors.grad * vectors).sum(1).detach()
    assert radial[0].abs() < 1e-6 and radial[1].abs() > 1e-2


@pytest.mark.parametrize(
    "value", [0.99, -1.0, float("nan"), float("inf"), "3", None]
)
def test_c_out_of_range(value):
    with pytest.raises(InputError, match="expected a finite number >= 1"):
        check_c(value)
