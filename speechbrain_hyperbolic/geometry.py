"""Hyperbolic space of curvature -1 in polar coordinates.

A point is a vector that gives its direction, and its distance from the origin,
``radius``. The spatial part of its Lorentz coordinates is the vector at length
sinh(radius), so one matrix product gives the distances d of all pairs by the
hyperbolic haversine formula,

    sinh^2(d/2) = sinh^2((a - b)/2) + (sinh(a) sinh(b) - s . t) / 2,

with radii a, b and spatial parts s, t. It stays exact in float32 at radii where
the formula of the Poincare ball has lost every digit.

The losses differ only in the map from a Euclidean vector to a point, which is
the radius as a function of the vector's length: ``clipped`` (the published
one), ``exponential`` or ``smooth_cap``.

Shapes: ``...`` is any batch, D the dimension. Radii and distances are those
of curvature -1, whatever the map.

Source: Fang and He, "Hyperbolic Additive Margin Softmax with Hierarchical
Information for Speaker Verification", ICASSP 2026, arXiv 2601.19709.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from speechbrain_hyperbolic.errors import InputError, is_finite

# The published clip keeps points this far (relatively) inside 1/sqrt(c).
CLIP_EPS = 1e-5
# Farther out, float32 no longer tells neighbors apart.
MAX_RADIUS = 14.0
# Protects divisions by a length; float32 squares to 0 what is shorter.
_SHORTEST = 1e-30

# Lengths of vectors -> radii of points, and their derivatives
RadiusAndSlope = tuple[torch.Tensor, torch.Tensor]
Map = Callable[[torch.Tensor], RadiusAndSlope]


class Points(NamedTuple):
    """Points of hyperbolic space."""

    vectors: torch.Tensor  # in the points' directions, of any length [..., D]
    radius: torch.Tensor  # distance from the origin [...]

    @property
    def spatial(self) -> torch.Tensor:
        """Spatial part of the Lorentz coordinates, shape [..., D]."""
        unit = normalize(self.vectors, dim=-1)
        return self.radius.sinh().unsqueeze(-1) * unit


def check_c(c: float) -> float:
    """Returns the constant of the clip as a float, or raises InputError."""
    if not (is_finite(c) and c >= 1):
        raise InputError(
            f"c is {c}, expected a finite number >= 1: the norm is capped at "
            "1/sqrt(c), which must lie in the unit ball; published: 3 "
            "(HAM-Softmax), 5 (H-Softmax)"
        )
    return float(c)


def cap_norm(c: float) -> float:
    """The norm to which the clip shortens longer vectors."""
    return (1 - CLIP_EPS) / math.sqrt(c)


def clipped(length: torch.Tensor, c: float) -> RadiusAndSlope:
    """Map into the Poincare ball, after shortening vectors to the cap.

    So ``c`` is not a curvature: it caps the norm at 1/sqrt(c) and the radius
    at 2 artanh(1/sqrt(c)), 1.317 at c = 3. A vector beyond the cap has no
    radial gradient.
    """
    cap = cap_norm(check_c(c))
    radius = 2 * length.clamp(max=cap).atanh()  # artanh is finite below 1
    slope = 1 + radius.cosh()  # 2 / (1 - norm^2)
    return radius, slope.masked_fill_(length > cap, 0)


def exponential(length: torch.Tensor) -> RadiusAndSlope:
    """Map to the vectors' lengths, the longest to ``MAX_RADIUS``.

    Multiply by sqrt(kappa) for the exponential map of the space of curvature
    -kappa: its distances are these divided by sqrt(kappa).
    """
    inside = length <= MAX_RADIUS
    return length.clamp(max=MAX_RADIUS), inside.to(length.dtype)


def smooth_cap(length: torch.Tensor, cap: float) -> RadiusAndSlope:
    """Map to radius cap * tanh(length / cap).

    Unlike the clip it has a radial gradient everywhere, but one that fades
    where a vector is much longer than the cap: scale embeddings first.
    """
    share = (length / cap).tanh()
    return cap * share, 1 - share.square()


def map_points(vectors: torch.Tensor, map: Map) -> Points:
    """Points of vectors [..., D]."""
    return Points(vectors, map(torch.linalg.vector_norm(vectors, dim=-1))[0])


def clip_to_ball(vectors: torch.Tensor, c: float) -> Points:
    """Points of vectors [..., D] by the published map.

    >>> clip_to_ball(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), c=4.0).radius
    tensor([0.0000, 1.0986])
    """
    return map_points(vectors, functools.partial(clipped, c=c))


def to_ball(points: Points) -> torch.Tensor:
    """Coordinates [..., D] in the Poincare ball, of norm tanh(radius / 2)."""
    return points.spatial / (1 + points.radius.cosh()).unsqueeze(-1)


def to_lorentz(points: Points) -> torch.Tensor:
    """Coordinates [..., 1 + D] on the hyperboloid t^2 = 1 + |s|^2, t first."""
    return torch.cat([points.radius.cosh().unsqueeze(-1), points.spatial], -1)


def midpoint(points: Points) -> Points:
    """The midpoint of points [..., N, D].

    It is the normalized sum of their Lorentz coordinates, which minimizes the
    sum of cosh(distance) and is the gyromidpoint of the Poincare ball. Source:
    Law et al., "Lorentzian distance learning", ICML 2019.
    """
    # The sum's Lorentzian norm as a sum over pairs: t^2 - |s|^2 would cancel
    # where the points are far out.
    v, r = points
    rows = Points(v.unsqueeze(-2), r.unsqueeze(-1))
    columns = Points(v.unsqueeze(-3), r.unsqueeze(-2))
    haversine = _paired_haversine(rows, columns)
    norm = (1 + 2 * haversine).sum((-2, -1)).sqrt()
    spatial = points.spatial.sum(-2) / norm.unsqueeze(-1)
    radius = torch.linalg.vector_norm(spatial, dim=-1).asinh()
    return Points(spatial, radius)


def scaled_distance(
    x: torch.Tensor, y: torch.Tensor, map: Map, factor: float
) -> torch.Tensor:
    """factor * distances [N, M] of the points of N and M vectors.

    By one matrix product. In float32, points closer than some 1.5e-3
    sinh(radius) may be given any distance below that; ``paired_distance`` is
    exact for them too.
    """
    return _ScaledDistance.apply(x, y, map, factor)


@torch.no_grad()
def pairwise_distance(x: Points, y: Points) -> torch.Tensor:
    """Distances [N, M] between N and M points, without a gradient."""
    radius = torch.cat([x.radius, y.radius])
    # Without a gradient, the slopes are not used.
    return scaled_distance(x.vectors, y.vectors, lambda _: (radius, radius), 1)


def paired_distance(x: Points, y: Points) -> torch.Tensor:
    """Distances [...] between corresponding points, exact for close ones."""
    haversine = _paired_haversine(x, y)
    # The clamp protects the gradient of sqrt where points coincide.
    tiny = torch.finfo(haversine.dtype).tiny
    return 2 * haversine.clamp(min=tiny).sqrt().asinh()


def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Inner products [N, M] of x [N, D] and y [M, D], in full float32."""
    return _Product.apply(x, y)


def _paired_haversine(x: Points, y: Points) -> torch.Tensor:
    """sinh^2(d/2) from differences, where nothing cancels."""
    one, other = (normalize(points.vectors, dim=-1) for points in (x, y))
    chord = (one - other).square().sum(-1)
    apart = ((x.radius - y.radius) / 2).sinh().square()
    return apart + x.radius.sinh() * y.radius.sinh() * chord / 4


def _exact_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x @ y.T without autocast or TF32.

    TF32's 10 bits would move the logit of a close pair by 0.5.
    """
    tf32 = x.is_cuda and not torch.compiler.is_compiling()
    with _no_autocast(x), _no_tf32() if tf32 else contextlib.nullcontext():
        return x @ y.T


@contextlib.contextmanager
def _no_tf32() -> Iterator[None]:
    flags: Any = torch.backends.cuda.matmul
    exact: bool | str
    try:
        name, exact, before = "allow_tf32", False, flags.allow_tf32
    except RuntimeError:  # the newer flag was set, and they must not be mixed
        name, exact, before = "fp32_precision", "ieee", flags.fp32_precision
    setattr(flags, name, exact)
    try:
        yield
    finally:
        setattr(flags, name, before)


def _no_autocast(x: torch.Tensor) -> contextlib.AbstractContextManager:
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


class _Product(torch.autograd.Function):
    """x @ y.T, in float32 also where backward is called under autocast."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, y)
        return _exact_product(x, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, y = ctx.saved_tensors
        with _no_autocast(x):
            return gradient @ y, gradient.T @ x


class _ScaledDistance(torch.autograd.Function):
    """factor * distances of vectors x, y, which a map puts at radii r, s.

    With p = sinh(r) / |x| and q = sinh(s) / |y|,

        cosh(d) - 1 = (cosh(r) - 1) + cosh(r) (cosh(s) - 1) - p q (x . y).

    Lengths, radii and what depends on them are those of x and then of y. The
    one [N, M] matrix that is kept is sinh(d) / sqrt(2), the reciprocal of the
    slope: infinite where points coincide, and the slope is 0.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, y: torch.Tensor, map: Map, factor: float
    ) -> torch.Tensor:
        sizes = len(x), len(y)
        norms = [torch.linalg.vector_norm(v, dim=1) for v in (x, y)]
        length = torch.cat(norms).clamp_(min=_SHORTEST)
        radius, slope = map(length)
        sinh, cosh = radius.sinh(), radius.cosh()
        p, q = (sinh / length).split(sizes)
        a, b = (radius / 2).tanh().mul_(sinh).split(sizes)  # cosh - 1
        cosh_r, cosh_s = cosh.split(sizes)
        # p carries the factor of all gradients; the output is divided by it.
        in_p = -factor / math.sqrt(2)
        p = (in_p * p).unsqueeze(1)
        xp = x * p
        out = _exact_product(xp, y)
        torch.addcmul(a.unsqueeze(1), out, q, value=-1 / in_p, out=out)
        # The clamp protects sqrt: rounding may leave -1e-7 of close points.
        out.addr_(cosh_r, b).clamp_(min=0)
        # d = arcosh(1 + out) = log(1 + out + sinh(d)), exact for small ones
        sinh_d = out.addcmul(out, out, value=0.5).sqrt_()
        out.add_(sinh_d, alpha=math.sqrt(2)).log1p_().mul_(factor)
        torch.threshold_(sinh_d, 0.0, math.inf)
        ctx.in_p = in_p
        ctx.save_for_backward(
            x, y, xp, p, q, length, slope, sinh, cosh, cosh_r, cosh_s, sinh_d
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        x, y, xp, p, q, length, slope, sinh, cosh, *more = ctx.saved_tensors
        cosh_r, cosh_s, sinh_d = more
        with _no_autocast(x):
            by_cosh = gradient / sinh_d
            by_radius = torch.cat([by_cosh.mv(cosh_s), by_cosh.T.mv(cosh_r)])
            by_product = by_cosh.mul_(q)
            by_x, by_y = (by_product @ y).mul_(p), by_product.T @ xp
            dots = torch.linalg.vecdot(x, by_x), torch.linalg.vecdot(y, by_y)
        # So far at constant p and q, which depend on the lengths
        along = torch.cat(dots)
        by_length = (along * cosh).div_(sinh)
        by_length.addcmul_(sinh, by_radius, value=-ctx.in_p).mul_(slope)
        by_length.addcdiv_(along, length, value=-1)
        by_length = by_length.div_(length).unsqueeze(1)
        radial_x, radial_y = by_length.split((len(x), len(y)))
        by_x.addcmul_(x, radial_x)
        by_y.addcmul_(y, radial_y)
        return by_x, by_y, None, None
