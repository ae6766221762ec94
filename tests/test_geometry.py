"""Maps and distances against mpmath and geoopt."""

import functools

import geoopt
import mpmath
import pytest
import torch

from speechbrain_hyperbolic import geometry
from speechbrain_hyperbolic.geometry import (
    Points,
    clipped,
    exponential,
    map_points,
    midpoint,
    paired_distance,
    pairwise_distance,
    product,
    scaled_distance,
    smooth_cap,
    to_ball,
    to_lorentz,
)

mpmath.mp.dps = 50
MAPS = {
    "clip": functools.partial(clipped, c=3.0),
    "exponential": exponential,
    "smooth_cap": functools.partial(smooth_cap, cap=2.3),
}


def points_at(radius, dtype):
    """Points of given radii in random directions."""
    direction = torch.randn(len(radius), 16, dtype=torch.float64)
    direction /= direction.norm(dim=1, keepdim=True)
    return Points(direction.to(dtype), torch.tensor(radius, dtype=dtype))


def row(points, i):
    return Points(*(field[i] for field in points))


def exact_distance(x, y):
    """Law of cosines, in 50 digits, of points given in floating point."""
    s = [mpmath.mpf(v.item()) for v in x.vectors.double()]
    t = [mpmath.mpf(v.item()) for v in y.vectors.double()]
    norms = [mpmath.sqrt(mpmath.fsum(v * v for v in u)) for u in (s, t)]
    cosine = mpmath.fdot(s, t) / (norms[0] * norms[1])
    a, b = (mpmath.mpf(p.radius.double().item()) for p in (x, y))
    cosh = mpmath.cosh(a) * mpmath.cosh(b)
    cosh -= mpmath.sinh(a) * mpmath.sinh(b) * cosine
    return float(mpmath.acosh(cosh))


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize(
    "radius", [1e-8, 1e-6, 1e-4, 0.1, 1.3, 2.3, 6.0, 12.0, 14.0]
)
def test_distance_against_mpmath(radius, dtype, tolerance):
    x = points_at([radius] * 4, dtype)
    y = points_at([radius, radius / 2, 0.9 * radius, radius / 9], dtype)
    pairs = pairwise_distance(x, y)
    for i in range(4):
        for j in range(4):
            truth = exact_distance(row(x, i), row(y, j))
            assert pairs[i, j].item() == pytest.approx(truth, rel=tolerance)
    torch.testing.assert_close(
        paired_distance(x, y), pairs.diagonal(), rtol=1e-5, atol=0
    )
    assert (paired_distance(x, x) < 1e-15).all()


def test_exponential_map_and_coordinates_against_geoopt():
    ball, lorentz = geoopt.PoincareBall(c=1.0), geoopt.Lorentz(k=1.0)
    x, y = torch.randn(2, 15, 7, dtype=torch.float64)
    points = [map_points(v, exponential) for v in (x, y)]
    # Its metric at the origin is 4 dx^2, which doubles lengths.
    theirs = [ball.expmap0(v / 2) for v in (x, y)]
    for ours, their in zip(points, theirs, strict=True):
        torch.testing.assert_close(to_ball(ours), their)
    distance = lorentz.dist(*map(to_lorentz, points))
    torch.testing.assert_close(paired_distance(*points), distance)


@pytest.mark.parametrize("radius", [1e-3, 1.0, 6.0, 12.0])
def test_midpoint_of_two_far_out(radius):
    """In float32: halfway between two points, where coordinates are huge."""
    x = points_at([radius] * 5, torch.float32)
    y = points_at([0.9 * radius] * 5, torch.float32)
    both = (torch.stack(pair, 1) for pair in zip(x, y, strict=True))
    middle = midpoint(Points(*both))
    for end in (x, y):
        torch.testing.assert_close(
            paired_distance(middle, end),
            paired_distance(x, y) / 2,
            rtol=1e-4,
            atol=0,
        )


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("norm", [0.01, 0.3, 3.0, 30.0])
def test_gradcheck(name, norm):
    x, y = torch.randn(2, 3, 4, dtype=torch.float64).mul(norm)
    x.requires_grad_()
    y.requires_grad_()

    def distances(x, y):
        points = (map_points(v, MAPS[name]) for v in (x, y))
        return scaled_distance(x, y, MAPS[name], -0.7), paired_distance(*points)

    assert torch.autograd.gradcheck(distances, (x, y), eps=1e-6 * norm)


@pytest.mark.parametrize("name", MAPS)
def test_finite_at_extremes(name):
    """float32: the origin, coincident points, norms from 1e-8 to 1e8."""
    directions = torch.nn.functional.normalize(torch.randn(17, 64))
    vectors = torch.logspace(-8, 8, 17).unsqueeze(1) * directions
    vectors = torch.cat([torch.zeros(1, 64), vectors, -vectors])
    points = map_points(vectors.requires_grad_(), MAPS[name])
    other = map_points(vectors.detach().flip(0), MAPS[name])
    values = [paired_distance(points, end) for end in (points, other)]
    for value in (*values, midpoint(points).spatial, midpoint(points).radius):
        (gradient,) = torch.autograd.grad(
            1e6 * value.sum(), vectors, retain_graph=True
        )
        assert value.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("name", MAPS)
def test_float32_gradients_at_every_norm(name):
    """Against float64, relative to the largest of each vector."""
    x, w = torch.randn(2, 17, 64, dtype=torch.float64)
    norms = torch.logspace(-8, 8, 17, dtype=torch.float64).unsqueeze(1)
    x, w = x / x.norm(dim=1, keepdim=True), w / w.norm(dim=1, keepdim=True)
    weights = torch.rand(17, 17, dtype=torch.float64)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        pair = [(v * norms).to(dtype).requires_grad_() for v in (x, w)]
        distance = scaled_distance(*pair, MAPS[name], 1.0)
        total = (distance * weights.to(dtype)).sum()
        gradients.append(torch.cat(torch.autograd.grad(total, pair)).double())
    error = (gradients[0] - gradients[1]).abs().amax(1)
    assert (error / gradients[1].abs().amax(1)).max() < 1e-4


def test_second_derivative_is_refused():
    vectors = torch.randn(3, 4, requires_grad=True)
    distance = scaled_distance(vectors, vectors, exponential, 1.0)
    for value in (distance, product(vectors, vectors)):
        (gradient,) = torch.autograd.grad(
            value.square().sum(), vectors, create_graph=True
        )
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


@pytest.mark.parametrize("flag", ["allow_tf32", "fp32_precision"])
def test_tf32_is_off_within_and_restored(flag):
    """Whichever of torch's two flags was set; SpeechBrain sets the first."""
    flags = torch.backends.cuda.matmul
    if not hasattr(flags, flag):
        pytest.skip(f"torch {torch.__version__} has no {flag}")
    before = flags.allow_tf32
    flags.allow_tf32 = False
    on, off = {"allow_tf32": (True, False)}.get(flag, ("tf32", "ieee"))
    setattr(flags, flag, on)
    try:
        with geometry._no_tf32():
            assert getattr(flags, flag) == off
        assert getattr(flags, flag) == on
    finally:
        setattr(flags, flag, off)
        flags.allow_tf32 = before
