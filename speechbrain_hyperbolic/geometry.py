"""Hyperbolic space of curvature -1 in polar form.

A point is a vector that gives its direction, its distance from the origin
(``radius``), and the ``ratio`` sinh(radius) / |vector|. The spatial part of its
Lorentz coordinates is ratio * vector, so one matrix product of the vectors
gives the distances d of all pairs by the hyperbolic haversine formula,

    sinh^2(d/2) = sinh^2((a - b)/2) + (sinh(a) sinh(b) - s . t) / 2,

with radii a, b and spatial parts s, t. It stays exact in float32 at radii where
the formula of the Poincare ball has lost every digit.

The losses differ only in the map from a Euclidean vector to a point:
``clip_to_ball`` (the published one), ``exponential_map`` or ``smooth_cap``.

Shapes: ``...`` is any batch, D the dimension. Radii and distances are those
of curvature -1, whatever the map.

Source: Fang and He, "Hyperbolic Additive Margin Softmax with Hierarchical
Information for Speaker Verification", ICASSP 2026, arXiv 2601.19709.
"""

import contextlib
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


class Points(NamedTuple):
    """Points of hyperbolic space."""

    vectors: torch.Tensor  # in the points' directions, of any length [..., D]
    ratio: torch.Tensor  # sinh(radius) / |vector|, or its limit at 0 [...]
    radius: torch.Tensor  # distance from the origin [...]

    @property
    def spatial(self) -> torch.Tensor:
        """Spatial part of the Lorentz coordinates, shape [..., D]."""
        return self.ratio.unsqueeze(-1) * self.vectors

    def unsqueeze(self, dim: int) -> "Points":
        """Inserts a batch dimension, at a negative ``dim`` before D."""
        rest = (v.unsqueeze(dim) for v in (self.ratio, self.radius))
        return Points(self.vectors.unsqueeze(dim - 1), *rest)


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
    """The norm to which ``clip_to_ball`` shortens longer vectors."""
    return (1 - CLIP_EPS) / math.sqrt(c)


def clip_to_ball(vectors: torch.Tensor, c: float) -> Points:
    """Points of the Poincare ball, after shortening vectors to the cap.

    So ``c`` is not a curvature: it caps the norm at 1/sqrt(c) and the radius
    at 2 artanh(1/sqrt(c)), 1.317 at c = 3. A vector beyond the cap has no
    radial gradient.

    >>> clip_to_ball(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), c=4.0).radius
    tensor([0.0000, 1.0986])
    """
    cap = cap_norm(check_c(c))

    def radius_and_slope(length: torch.Tensor) -> tuple[torch.Tensor, ...]:
        norm = length.clamp(max=cap)  # artanh is finite below 1
        slope = 2 / (1 - norm.square())
        return 2 * norm.atanh(), slope.masked_fill_(length > cap, 0)

    return Points(*_Map.apply(vectors, radius_and_slope))


def exponential_map(vectors: torch.Tensor) -> Points:
    """Points at the vectors' lengths, the longest at ``MAX_RADIUS``.

    Multiply by sqrt(kappa) for the exponential map of the space of curvature
    -kappa: its distances are these divided by sqrt(kappa).
    """

    def radius_and_slope(length: torch.Tensor) -> tuple[torch.Tensor, ...]:
        slope = torch.ones_like(length)
        slope.masked_fill_(length > MAX_RADIUS, 0)
        return length.clamp(max=MAX_RADIUS), slope

    return Points(*_Map.apply(vectors, radius_and_slope))


def smooth_cap(vectors: torch.Tensor, cap: float) -> Points:
    """Points at radius cap * tanh(length / cap).

    Unlike the clip it has a radial gradient everywhere, but one that fades
    where a vector is much longer than the cap: scale embeddings first.
    """

    def radius_and_slope(length: torch.Tensor) -> tuple[torch.Tensor, ...]:
        share = (length / cap).tanh()
        return cap * share, 1 - share.square()

    return Points(*_Map.apply(vectors, radius_and_slope))


def to_ball(points: Points) -> torch.Tensor:
    """Coordinates [..., D] in the Poincare ball, of norm tanh(radius / 2)."""
    return points.spatial / (1 + points.radius.cosh()).unsqueeze(-1)


def to_lorentz(points: Points) -> torch.Tensor:
    """Coordinates [..., 1 + D] on the hyperboloid t^2 = 1 + |s|^2, t first."""
    return torch.cat([points.radius.cosh().unsqueeze(-1), points.spatial], -1)


def midpoint(points: Points, weights: torch.Tensor | None = None) -> Points:
    """The midpoint of points [..., N, D], weighted by [..., N].

    It is the normalized sum of their Lorentz coordinates, which minimizes the
    weighted sum of cosh(distance) and is the gyromidpoint of the Poincare
    ball. Source: Law et al., "Lorentzian distance learning", ICML 2019.
    """
    if weights is None:
        weights = torch.ones_like(points.radius)
    # The sum's Lorentzian norm as a sum over pairs: t^2 - |s|^2 would cancel
    # where the points are far out.
    haversine = _paired_haversine(points.unsqueeze(-1), points.unsqueeze(-2))
    pairs = weights.unsqueeze(-1) * weights.unsqueeze(-2)
    norm = (pairs * (1 + 2 * haversine)).sum((-2, -1)).sqrt()
    total = (weights.unsqueeze(-1) * points.spatial).sum(-2)
    spatial = total / norm.unsqueeze(-1)
    radius = torch.linalg.vector_norm(spatial, dim=-1).asinh()
    return Points(spatial, torch.ones_like(radius), radius)


def pairwise_distance(x: Points, y: Points) -> torch.Tensor:
    """Distances [N, M] between N and M points, by one matrix product.

    In float32, points closer than some 1.5e-3 sinh(radius) may be given any
    distance below that; ``paired_distance`` is exact for them too.
    """
    return _PairwiseDistance.apply(
        x.vectors, y.vectors, x.ratio, y.ratio, x.radius, y.radius
    )


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


def _arc(haversine: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """d = 2 arsinh(sqrt(h)), and its derivative 1/sqrt(h (1 + h))."""
    square = haversine.addcmul(haversine, haversine)
    # The threshold avoids 1/0 where points coincide: there it is 0.
    slope = torch.threshold(square, 0.0, math.inf).rsqrt_()
    # d = log(1 + u) with u = 2 (h + sqrt(h (1 + h))). On the CPU log1p is not
    # vectorized; log is, and what rounding 1 + u has lost is added.
    u = square.mul_(slope).add_(haversine).mul_(2)
    above = u + 1
    lost = u.sub_(above - 1).div_(above)
    return above.log_().add_(lost), slope


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


def _no_autocast(x: torch.Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


class _Map(torch.autograd.Function):
    """Points at radii that depend on the vectors' lengths [...]."""

    @staticmethod
    def forward(
        ctx: Any, vectors: torch.Tensor, radius_and_slope: Callable
    ) -> tuple[torch.Tensor, ...]:
        length = torch.linalg.vector_norm(vectors, dim=-1)
        radius, slope = radius_and_slope(length)
        # 0/0 at the origin, where the slope is the limit of the ratio
        ratio = torch.where(length == 0, slope, radius.sinh() / length)
        ctx.save_for_backward(vectors, length, radius, slope, ratio)
        return vectors.view_as(vectors), ratio, radius

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        vectors, length, radius, slope, ratio = ctx.saved_tensors
        by_vectors, by_ratio, by_radius = gradients
        # At the origin no direction is the steepest one: the gradient is 0.
        divisor = torch.threshold(length, 0, math.inf)
        ratio_slope = (radius.cosh() * slope - ratio) / divisor
        by_length = (by_radius * slope).addcmul_(by_ratio, ratio_slope)
        factor = (by_length / divisor).unsqueeze(-1)
        return by_vectors.addcmul(vectors, factor), None


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


class _PairwiseDistance(torch.autograd.Function):
    """Distances of vectors x, y with ratios p, q and radii r, s.

    With a = sinh^2(r/2) and b = sinh^2(s/2), the haversine is

        h = a + cosh(r) b - p q (x . y) / 2.

    Its slope is the one [N, M] matrix that is kept for the backward.
    """

    @staticmethod
    def forward(ctx: Any, *points: torch.Tensor) -> torch.Tensor:
        x, y, p, q, r, s = points
        a, b = (r / 2).sinh().square(), (s / 2).sinh().square()
        cosh = r.cosh()
        haversine = _exact_product(x * (p / -2).unsqueeze(1), y).mul_(q)
        # The clamp protects sqrt: rounding may leave -1e-7 of close points.
        haversine.addr_(cosh, b).add_(a.unsqueeze(1)).clamp_(min=0)
        distance, slope = _arc(haversine)
        ctx.save_for_backward(slope, *points, b, cosh)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        slope, x, y, p, q, r, s, b, cosh = ctx.saved_tensors
        with _no_autocast(x):
            slope = slope * gradient
            by_r = slope.mv(1 + 2 * b) * r.sinh() / 2
            by_s = (cosh @ slope) * s.sinh() / 2
            slope.mul_(q)
            half = (p / -2).unsqueeze(1)
            by_x = (slope @ y).mul_(half)
            by_y = slope.T @ (x * half)
            # p and q occur only in their products with the vectors.
            by_p, by_q = (by_x * x).sum(1) / p, (by_y * y).sum(1) / q
            return by_x, by_y, by_p, by_q, by_r, by_s
