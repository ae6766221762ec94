"""Distances against mpmath, at every radius that the clip allows."""

import geoopt
import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic import geometry
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    Points,
    check_c,
    clip_to_ball,
    exponential_map,
    from_ball,
    from_lorentz,
    midpoint,
    paired_distance,
    pairwise_distance,
    smooth_cap,
    to_ball,
    to_lorentz,
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
    return Points(*(v.to(dtype) for v in (direction, radius.sinh(), radius)))


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
@pytest.mark.parametrize("radius", [1e-6, 0.1, 1.3, 2.3, 6.0, 12.0, 14.0])
def test_distance_against_mpmath(radius, dtype, tolerance):
    x = polar([radius] * 4, 16, 0, dtype)
    y = polar([radius, radius / 2, 0.9 * radius, 1.0], 16, 1, dtype)
    pairs = pairwise_distance(x, y)
    for i in range(4):
        for j in range(4):
            truth = exact_distance(row(x, i), row(y, j))
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


# The other maps, coordinates, midpoint: against geoopt and identities

SEEDS = range(10)
BALL = geoopt.PoincareBall(c=1.0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("curvature", [0.25, 1.0, 3.0])
def test_exponential_map_against_geoopt(seed, curvature):
    """geoopt's ball of curvature -kappa, in float64."""
    torch.manual_seed(seed)
    # From a plain number geoopt would take its root in float32.
    ball = geoopt.PoincareBall(c=torch.tensor(curvature).double())
    # Its exponential map doubles lengths: the metric at the origin is 4 dx^2.
    x, y = torch.randn(2, 5, 7, dtype=torch.float64)
    points = [exponential_map(v, curvature) for v in (x, y)]
    theirs = [ball.expmap0(v / 2) for v in (x, y)]
    for ours, their in zip(points, theirs, strict=True):
        torch.testing.assert_close(to_ball(ours), their * curvature**0.5)
    torch.testing.assert_close(
        paired_distance(*points) / curvature**0.5, ball.dist(*theirs)
    )
    pairs = pairwise_distance(*points) / curvature**0.5
    expected = ball.dist(theirs[0].unsqueeze(1), theirs[1].unsqueeze(0))
    torch.testing.assert_close(pairs, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_lorentz_coordinates_against_geoopt(seed):
    torch.manual_seed(seed)
    x, y = (exponential_map(v) for v in torch.randn(2, 5, 7).double())
    space = geoopt.Lorentz(k=1.0)
    torch.testing.assert_close(
        paired_distance(x, y), space.dist(to_lorentz(x), to_lorentz(y))
    )
    for forth, back in ((to_ball, from_ball), (to_lorentz, from_lorentz)):
        again = back(forth(x))
        torch.testing.assert_close(again.spatial, x.spatial)
        torch.testing.assert_close(again.radius, x.radius)


@pytest.mark.parametrize("seed", SEEDS)
def test_midpoint_against_geoopt(seed):
    """The gyromidpoint of the ball, with weights."""
    torch.manual_seed(seed)
    points = exponential_map(torch.randn(4, 6, 7, dtype=torch.float64))
    weights = torch.rand(4, 6, dtype=torch.float64)
    ours = to_ball(midpoint(points, weights))
    theirs = BALL.weighted_midpoint(
        to_ball(points), weights, reducedim=[1], dim=-1
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("radius", [1e-3, 1.0, 6.0, 12.0])
def test_midpoint_of_two_far_out(radius):
    """In float32: half-way between two, where coordinates are huge."""
    x = polar([radius] * 5, 16, 0, torch.float32)
    y = polar([0.9 * radius] * 5, 16, 1, torch.float32)
    both = (torch.stack(pair, 1) for pair in zip(x, y, strict=True))
    middle = midpoint(Points(*both))
    half = paired_distance(x, y) / 2
    for end in (x, y):
        torch.testing.assert_close(
            paired_distance(middle, end), half, rtol=1e-4, atol=0
        )


@pytest.mark.parametrize("radius", [1e-3, 0.1, 1.0, 2.3])
@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4])
def test_close_pairs_in_float32(radius, gap):
    """Within 1 % of what the float32 coordinates mean, in 50 digits."""
    x = polar([radius] * 8, 192, 0, torch.float64)
    step = polar([gap] * 8, 192, 1, torch.float64).spatial
    step /= x.radius.cosh().unsqueeze(1)
    x, y = (
        from_lorentz_float32(x.spatial),
        from_lorentz_float32(x.spatial + step),
    )
    ours = paired_distance(x, y)
    for i in range(8):
        truth = exact_distance(row(x, i), row(y, i))
        assert ours[i].item() == pytest.approx(truth, rel=0.01)


def from_lorentz_float32(spatial):
    spatial = spatial.float()
    return from_lorentz(torch.nn.functional.pad(spatial, (1, 0)))


def test_outside_the_ball():
    with pytest.raises(InputError, match="norm 1.5, expected below 1"):
        from_ball(torch.tensor([[0.1, 0.2], [1.5, 0.0]]))


MAPS = {
    "clip": lambda v: clip_to_ball(v, 3.0),
    "exponential": exponential_map,
    "smooth": lambda v: smooth_cap(v, 2.3),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_and_distances_are_finite_at_extremes(name):
    """float32: the origin, coincident points, norms from 1e-8 to 1e8."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(17, 64))
    vectors = torch.logspace(-8, 8, 17).unsqueeze(1) * directions
    vectors = torch.cat([torch.zeros(1, 64), vectors, -vectors])
    vectors.requires_grad_()
    points = MAPS[name](vectors)
    other = MAPS[name](vectors.detach().flip(0))
    for value in (
        pairwise_distance(points, points),
        pairwise_distance(points, other),
        paired_distance(points, points),
        paired_distance(points, other),
        midpoint(points).spatial,
        midpoint(points).radius,
    ):
        assert value.isfinite().all()
        (gradient,) = torch.autograd.grad(
            value.sum(), vectors, retain_graph=True
        )
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", MAPS)
def test_gradcheck_of_maps(name):
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 4, dtype=torch.float64).mul(0.2)
    x.requires_grad_()
    y.requires_grad_()

    def distances(x, y):
        x, y = MAPS[name](x), MAPS[name](y)
        return pairwise_distance(x, y), paired_distance(x, y)

    assert torch.autograd.gradcheck(distances, (x, y))


def test_smooth_cap():
    """rho = R tanh(|v| / R): below the cap, with a radial gradient."""
    vectors = torch.tensor([[1e-4, 0.0], [1.0, 0.0], [4.0, 0.0]])
    vectors.requires_grad_()
    radius = smooth_cap(vectors, 2.3).radius
    expected = 2.3 * torch.tanh(vectors[:, 0] / 2.3)
    torch.testing.assert_close(radius, expected)
    (gradient,) = torch.autograd.grad(radius.sum(), vectors)
    assert (gradient[:, 0] > 0).all() and radius.max() < 2.3


VECTORS = st.lists(
    st.floats(-3, 3, allow_subnormal=False), min_size=4, max_size=4
).map(lambda v: torch.tensor([v], dtype=torch.float64))


@settings(max_examples=200, deadline=None)
@given(VECTORS, VECTORS, VECTORS, st.integers(0, 1000))
def test_metric(x, y, z, seed):
    """Symmetry, triangle inequality, invariance under rotation."""
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(square).Q

    def distance(one, two):
        return paired_distance(
            exponential_map(one), exponential_map(two)
        ).item()

    assert distance(x, y) == pytest.approx(distance(y, x), abs=1e-12)
    assert distance(x, z) <= distance(x, y) + distance(y, z) + 1e-7
    assert distance(x @ rotation, y @ rotation) == pytest.approx(
        distance(x, y), abs=1e-6
    )
    assert distance(x, x) < 1e-100


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("distance", [pairwise_distance, paired_distance])
def test_strong_gradients_at_the_origin(name, distance):
    """A logit scale of 30 and more must not make 0 * inf of it."""
    vectors = torch.zeros(2, 4, requires_grad=True)
    other = MAPS[name](torch.full((2, 4), 0.1))
    total = 1e6 * distance(MAPS[name](vectors), other).sum()
    (gradient,) = torch.autograd.grad(total, vectors)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("distance", [pairwise_distance, paired_distance])
def test_second_derivative_is_refused(distance):
    vectors = torch.randn(3, 4, requires_grad=True)
    points = clip_to_ball(vectors, 3.0)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(
            distance(points, points).sum(), vectors, create_graph=True
        )


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "1"])
def test_curvature_out_of_range(value):
    with pytest.raises(InputError, match="curvature is .* expected"):
        exponential_map(torch.ones(1, 2), value)


def test_learnable_curvature():
    torch.manual_seed(0)
    vectors = torch.randn(3, 4, dtype=torch.float64)
    curvature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda kappa: pairwise_distance(
            exponential_map(vectors, kappa), exponential_map(vectors + 1, kappa)
        ),
        (curvature,),
    )
