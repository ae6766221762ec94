"""Hyperbolic space of curvature -1, as this package holds its points.

A point is held in polar coordinates (see ``Points``): a vector in its direction
and its hyperbolic radius rho, the distance from the origin; and ``stretch``,
which makes of the vector the spatial part of its Lorentz coordinates,
sinh(rho) u with the unit direction u. Unlike u, the spatial part is smooth at
the origin; and a vector need not be normalised, copied or even touched to be a
point. The distance is the hyperbolic haversine formula,

    sinh^2(d / 2) = sinh^2((a - b) / 2) + (sinh a sinh b - s . t) / 2,

with radii ``a, b`` and spatial parts ``s, t``. One matrix product of the
vectors gives all pairs, and there is no ball boundary to fall over.

What differs between variants is only the map from a Euclidean vector to a
point: ``clip_to_ball`` is the published one, ``exponential_map`` that of exact
curvature, ``smooth_cap`` one with a radial gradient everywhere.

Shapes: a leading ``...`` is any batch; D is the embedding dimension. Radii and
distances are in units of the space (curvature -1), whatever the map.

Source: Fang and He, "Hyperbolic Additive Margin Softmax with Hierarchical
Information for Speaker Verification", ICASSP 2026, arXiv 2601.19709.
"""

import math
from typing import Any, NamedTuple

import torch

from speechbrain_hyperbolic.errors import InputError, is_finite

# The published code keeps clipped points this far (relatively) from the cap.
CLIP_EPS = 1e-5


class Points(NamedTuple):
    """Points of hyperbolic space, curvature -1.

    Arguments
    ---------
    vectors : torch.Tensor
        Vectors of any length in the points' directions, shape [..., D].
    stretch : torch.Tensor
        sinh(radius) / length of the vector, or its limit at 0; shape [...].
    radius : torch.Tensor
        Distance from the origin, shape [...].
    """

    vectors: torch.Tensor
    stretch: torch.Tensor
    radius: torch.Tensor

    @property
    def spatial(self) -> torch.Tensor:
        """Spatial part of the Lorentz coordinates, shape [..., D]."""
        return self.stretch.unsqueeze(-1) * self.vectors

    def unsqueeze(self, dim: int) -> "Points":
        """Inserts a batch dimension, at a negative ``dim`` before D."""
        return Points(
            self.vectors.unsqueeze(dim - 1),
            self.stretch.unsqueeze(dim),
            self.radius.unsqueeze(dim),
        )


def check_c(c: float) -> float:
    """Checks the constant of the published clip.

    Arguments
    ---------
    c : float
        The published "curvature"; the norm is capped at 1/sqrt(c).

    Returns
    -------
    c : float

    Raises
    ------
    InputError
        If c is not a finite number >= 1: below 1 the cap is outside the ball.

    Example
    -------
    >>> check_c(3)
    3.0
    """
    if not (is_finite(c) and c >= 1):
        raise InputError(
            f"c is {c}, expected a finite number >= 1: the norm is capped at "
            "1/sqrt(c), which must lie in the unit ball; published: 3 "
            "(HAM-Softmax), 5 (H-Softmax)"
        )
    return float(c)


def clip_to_ball(vectors: torch.Tensor, c: float) -> Points:
    """Maps Euclidean vectors to points by the published clip.

    The vector, shortened to (1 - 1e-5)/sqrt(c) where it is longer, is read as
    a point of the Poincare ball. So ``c`` is not a curvature: it caps the
    radius at 2 artanh(1/sqrt(c)), 1.317 at c = 3. A vector beyond the cap has
    no radial gradient. (Below c = 1.0032 the authors' distance is cut by a
    floor under its denominator; here it's exact.)

    Source: arXiv 2601.19709, the clip of the authors' code.

    Arguments
    ---------
    vectors : torch.Tensor
        Shape [..., D].
    c : float
        At least 1.

    Returns
    -------
    points : Points

    Example
    -------
    >>> points = clip_to_ball(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), c=4.0)
    >>> points.radius
    tensor([0.0000, 1.0986])
    """
    vectors, length = with_length(vectors)
    return Points(vectors, *clipped(length, check_c(c)))


def clipped(
    length: torch.Tensor, c: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The stretch and the radius that ``clip_to_ball`` gives to vectors.

    Arguments
    ---------
    length : torch.Tensor
        Of the vectors, any shape.
    c : float
        At least 1.

    Returns
    -------
    stretch, radius : torch.Tensor
        Of that shape.

    Example
    -------
    >>> clipped(torch.tensor([0.0, 5.0]), c=4.0)[1]
    tensor([0.0000, 1.0986])
    """
    cap = longest(c)
    ball_norm = length.clamp(max=cap)
    # cap / max(length, cap), not ball_norm / length: no 0/0 at the origin.
    # 2 / (1 - r^2) is sinh(rho) / r, the ball's conformal factor.
    stretch = 2 * cap / (length.clamp(min=cap) * (1 - ball_norm.square()))
    return stretch, 2 * ball_norm.atanh()


def longest(c: float) -> float:
    """The norm to which ``clip_to_ball`` shortens what is longer.

    Arguments
    ---------
    c : float
        At least 1.

    Returns
    -------
    norm : float

    Example
    -------
    >>> round(longest(4.0), 4)
    0.5
    """
    return (1 - CLIP_EPS) / math.sqrt(c)


def exponential_map(
    vectors: torch.Tensor,
    curvature: float | torch.Tensor = 1.0,
    max_radius: float = 14.0,
) -> Points:
    """Maps tangent vectors at the origin of the space of curvature -kappa.

    The points are given in units of curvature -1, where their radius is
    sqrt(kappa) times the length of the vector, and all distances are
    sqrt(kappa) times those of the space of curvature -kappa.

    Arguments
    ---------
    vectors : torch.Tensor
        Shape [..., D].
    curvature : float or torch.Tensor
        kappa > 0, the absolute value of the curvature.
    max_radius : float
        Longer vectors are shortened to this radius (curvature -1), beyond
        which float32 no longer tells neighbours apart.

    Returns
    -------
    points : Points

    Raises
    ------
    InputError
        If the curvature is a number that is not positive.

    Example
    -------
    >>> points = exponential_map(torch.tensor([[3.0, 4.0]]), curvature=0.25)
    >>> points.radius
    tensor([2.5000])
    """
    if not torch.is_tensor(curvature) and not (
        is_finite(curvature) and curvature > 0
    ):
        raise InputError(
            f"curvature is {curvature}, expected a finite number > 0, the "
            "absolute value of the curvature"
        )
    vectors, length = with_length(vectors)
    return Points(vectors, *exponential(length, curvature, max_radius))


def exponential(
    length: torch.Tensor, curvature: float | torch.Tensor, max_radius: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The stretch and the radius that ``exponential_map`` gives to vectors.

    Arguments
    ---------
    length : torch.Tensor
        Of the vectors, any shape.
    curvature : float or torch.Tensor
        Absolute value, > 0.
    max_radius : float

    Returns
    -------
    stretch, radius : torch.Tensor
        Of that shape.

    Example
    -------
    >>> exponential(torch.tensor([5.0]), curvature=0.25, max_radius=14)[1]
    tensor([2.5000])
    """
    slope = curvature**0.5
    return _at_radius(length, (length * slope).clamp(max=max_radius), slope)


def smooth_cap(vectors: torch.Tensor, cap: float) -> Points:
    """Maps vectors to radii below a cap, smoothly: rho = R tanh(|v| / R).

    Unlike the clip it has a radial gradient everywhere, though one that fades
    where the vector is much longer than the cap: scale embeddings first.

    Arguments
    ---------
    vectors : torch.Tensor
        Shape [..., D].
    cap : float
        R > 0, in units of curvature -1.

    Returns
    -------
    points : Points

    Example
    -------
    >>> smooth_cap(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), cap=2.0).radius
    tensor([0.0000, 1.9732])
    """
    vectors, length = with_length(vectors)
    return Points(vectors, *smoothly_capped(length, cap))


def smoothly_capped(
    length: torch.Tensor, cap: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The stretch and the radius that ``smooth_cap`` gives to vectors.

    Arguments
    ---------
    length : torch.Tensor
        Of the vectors, any shape.
    cap : float

    Returns
    -------
    stretch, radius : torch.Tensor
        Of that shape.

    Example
    -------
    >>> smoothly_capped(torch.tensor([0.0, 5.0]), cap=2.0)[1]
    tensor([0.0000, 1.9732])
    """
    return _at_radius(length, cap * (length / cap).tanh(), 1.0)


def _at_radius(
    length: torch.Tensor, radius: torch.Tensor, slope: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch and radius; slope is radius / length at 0."""
    tiny = torch.finfo(length.dtype).tiny
    # Below the square root of tiny, sinh(radius) is radius to the last bit.
    small = length < tiny**0.5
    stretch = torch.where(
        small, slope, radius.sinh() / length.masked_fill(small, 1)
    )
    return stretch, radius


def with_length(
    vectors: torch.Tensor, sole: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and their Euclidean lengths.

    Arguments
    ---------
    vectors : torch.Tensor
        Shape [..., D].
    sole : bool
        Whether the one user of the vectors that are returned is a function
        whose backward gives a new tensor: then that is added to in place.

    Returns
    -------
    vectors : torch.Tensor
        The same.
    length : torch.Tensor
        Shape [...].

    Example
    -------
    >>> with_length(torch.tensor([[3.0, 4.0]]))[1]
    tensor([5.])
    """
    return _WithLength.apply(vectors, sole)


def to_ball(points: Points) -> torch.Tensor:
    """Coordinates in the Poincare ball of curvature -1.

    Arguments
    ---------
    points : Points

    Returns
    -------
    ball : torch.Tensor
        Shape [..., D], of norm tanh(radius / 2): in float32 points of a
        radius above 17 are on the boundary.

    Example
    -------
    >>> to_ball(exponential_map(torch.tensor([[2.0, 0.0]])))
    tensor([[0.7616, 0.0000]])
    """
    return points.spatial / (1 + points.radius.cosh()).unsqueeze(-1)


def from_ball(ball: torch.Tensor) -> Points:
    """Points from coordinates in the Poincare ball of curvature -1.

    Arguments
    ---------
    ball : torch.Tensor
        Shape [..., D], of norm below 1.

    Returns
    -------
    points : Points

    Raises
    ------
    InputError
        If a norm is 1 or more.

    Example
    -------
    >>> from_ball(torch.tensor([[0.5, 0.0]])).radius
    tensor([1.0986])
    """
    norm = torch.linalg.vector_norm(ball, dim=-1)
    if not (norm < 1).all():
        raise InputError(
            f"a point has norm {norm.max():g}, expected below 1: it is "
            "outside the Poincare ball"
        )
    return Points(ball, 2 / (1 - norm.square()), 2 * norm.atanh())


def to_lorentz(points: Points) -> torch.Tensor:
    """Coordinates on the hyperboloid -t^2 + |s|^2 = -1.

    Arguments
    ---------
    points : Points

    Returns
    -------
    lorentz : torch.Tensor
        Shape [..., 1 + D], the time coordinate first.

    Example
    -------
    >>> to_lorentz(exponential_map(torch.tensor([[1.0, 0.0]])))
    tensor([[1.5431, 1.1752, 0.0000]])
    """
    time = points.radius.cosh().unsqueeze(-1)
    return torch.cat([time, points.spatial], dim=-1)


def from_lorentz(lorentz: torch.Tensor) -> Points:
    """Points from coordinates on the hyperboloid.

    Arguments
    ---------
    lorentz : torch.Tensor
        Shape [..., 1 + D], the time coordinate first; it is not read, since
        the others determine it.

    Returns
    -------
    points : Points

    Example
    -------
    >>> from_lorentz(torch.tensor([[1.5431, 1.1752, 0.0]])).radius
    tensor([1.0000])
    """
    return _from_spatial(lorentz[..., 1:])


def midpoint(points: Points, weights: torch.Tensor | None = None) -> Points:
    """The midpoint of several points: for enrolment from many utterances.

    It is the normalised sum of their Lorentz coordinates, which minimises the
    weighted sum of cosh(distance) and is the gyromidpoint of the Poincare
    ball. Source: Law et al., "Lorentzian distance learning", ICML 2019.

    Arguments
    ---------
    points : Points
        vectors [..., N, D].
    weights : torch.Tensor
        Shape [..., N], not negative, not all zero; None: all alike.

    Returns
    -------
    midpoint : Points
        vectors [..., D].

    Example
    -------
    >>> ends = exponential_map(torch.tensor([[2.0, 0.0], [-1.0, 0.0]]))
    >>> midpoint(ends).spatial
    tensor([0.5211, 0.0000])
    """
    if weights is None:
        weights = torch.ones_like(points.radius)
    # -<sum, sum> as a sum of cosh(distance) over pairs: the difference of
    # squares t^2 - |s|^2 would cancel where the points are far out.
    haversine = _close_haversine(points.unsqueeze(-1), points.unsqueeze(-2))
    cosh = 1 + 2 * haversine
    pairs = weights.unsqueeze(-1) * weights.unsqueeze(-2)
    length = (pairs * cosh).sum((-2, -1)).sqrt()
    total = (weights.unsqueeze(-1) * points.spatial).sum(-2)
    return _from_spatial(total / length.unsqueeze(-1))


def _from_spatial(spatial: torch.Tensor) -> Points:
    radius = torch.linalg.vector_norm(spatial, dim=-1).asinh()
    return Points(spatial, torch.ones_like(radius), radius)


def pairwise_distance(x: Points, y: Points) -> torch.Tensor:
    """Distances between all pairs of two sets of points.

    One matrix product; for pairs much closer than their radius
    ``paired_distance`` is more accurate.

    Arguments
    ---------
    x : Points
        N points: vectors [N, D].
    y : Points
        M points: vectors [M, D].

    Returns
    -------
    distance : torch.Tensor
        Shape [N, M]. Points closer than some 1.5e-3 sinh(radius), in float32,
        are not told apart: they may be given any distance below that.

    Example
    -------
    >>> x = clip_to_ball(torch.tensor([[0.5, 0.0]]), c=1.0)
    >>> y = clip_to_ball(torch.tensor([[0.0, 0.0], [-0.5, 0.0]]), c=1.0)
    >>> pairwise_distance(x, y)
    tensor([[1.0986, 2.1972]])
    """
    a, b = ((p.radius / 2).sinh().square() for p in (x, y))
    return _PairwiseDistance.apply(
        x.vectors, y.vectors, x.stretch, y.stretch, a, b
    )


def paired_distance(x: Points, y: Points) -> torch.Tensor:
    """Distances between corresponding points, accurate for close ones too.

    Arguments
    ---------
    x : Points
        vectors [..., D].
    y : Points
        Of a shape that broadcasts with it.

    Returns
    -------
    distance : torch.Tensor
        Shape [...].

    Example
    -------
    >>> x = clip_to_ball(torch.tensor([[0.5, 0.0]]), c=1.0)
    >>> y = clip_to_ball(torch.tensor([[-0.5, 0.0]]), c=1.0)
    >>> paired_distance(x, y)
    tensor([2.1972])
    """
    return _ArcLength.apply(_close_haversine(x, y))


def _close_haversine(x: Points, y: Points) -> torch.Tensor:
    """sinh^2(d / 2) from differences, where nothing cancels."""
    product = x.radius.sinh() * y.radius.sinh()
    chord = (_direction(x) - _direction(y)).square().sum(-1)
    return ((x.radius - y.radius) / 2).sinh().square() + product * chord / 4


def _direction(points: Points) -> torch.Tensor:
    length = torch.linalg.vector_norm(points.vectors, dim=-1, keepdim=True)
    return points.vectors / length.masked_fill(length == 0, math.inf)


def refuse_second_derivative() -> None:
    """To be called by a backward in closed form, whose own derivative
    autograd would get wrong without a word.

    Raises
    ------
    RuntimeError
        Where a graph of the backward is asked for (create_graph=True).
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "hyperbolic distances and losses have no second derivative: "
            "call backward without create_graph"
        )


def complete_haversine(
    scaled: torch.Tensor, a: torch.Tensor, lift: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """The haversine a + b + 2 a b - p q (x . y) / 2 of all pairs.

    Arguments
    ---------
    scaled : torch.Tensor
        -p q (x . y) / 2, shape [N, M], overwritten.
    a : torch.Tensor
        sinh^2(radius / 2) of the rows, shape [N].
    lift : torch.Tensor
        1 + 2 a.
    b : torch.Tensor
        As a, of the columns, shape [M].

    Returns
    -------
    haversine : torch.Tensor
        In the memory of ``scaled``, at least 0 whatever the rounding.

    Example
    -------
    >>> zero = torch.zeros(1)
    >>> complete_haversine(torch.zeros(1, 1), zero, zero + 1, zero + 3)
    tensor([[3.]])
    """
    return scaled.addr_(lift, b).add_(a.unsqueeze(1)).clamp_(min=0)


def _arc_length(haversine: torch.Tensor) -> torch.Tensor:
    """d = 2 asinh(sqrt(h)) = log1p(u), with u = 2 (h + sqrt(h (1 + h)))."""
    root = haversine.addcmul(haversine, haversine).sqrt_()
    u = root.add_(haversine).mul_(2)
    # torch's log1p is not vectorised on the CPU, its log is; the quotient
    # undoes the rounding of 1 + u.
    above = u + 1
    rounded = above - 1
    return torch.where(rounded == 0, u, above.log_().mul_(u).div_(rounded))


def _arc_slope(haversine: torch.Tensor) -> torch.Tensor:
    """dd/dh = 1/sqrt(h (1 + h)), taken as 0 at h = 0, where it's infinite.

    A rounded h that is not 0 is at least eps times the terms it is a sum of,
    so there the slope does no harm.
    """
    square = haversine.addcmul(haversine, haversine)
    return torch.threshold_(square, 0.0, math.inf).rsqrt_()


class _WithLength(torch.autograd.Function):
    """Vectors and their lengths, so that one pass over the vectors, which may
    be many, joins both gradients. At the origin that of the length is 0.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: torch.Tensor, sole: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = torch.linalg.vector_norm(vectors, dim=-1)
        ctx.save_for_backward(vectors, length)
        ctx.set_materialize_grads(False)
        ctx.sole = sole
        return vectors.view_as(vectors), length

    @staticmethod
    def backward(
        ctx: Any,
        of_vectors: torch.Tensor | None,
        of_length: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, None]:
        vectors, length = ctx.saved_tensors
        if of_length is None:
            return of_vectors, None
        divisor = length.masked_fill(length == 0, math.inf)
        factor = (of_length / divisor).unsqueeze(-1)
        if of_vectors is None:
            return vectors * factor, None
        if ctx.sole:
            return of_vectors.addcmul_(vectors, factor), None
        return of_vectors.addcmul(vectors, factor), None


class _ArcLength(torch.autograd.Function):
    """The distance of a haversine."""

    @staticmethod
    def forward(ctx: Any, haversine: torch.Tensor) -> torch.Tensor:
        haversine = haversine.clamp(min=0)
        ctx.save_for_backward(haversine)
        return _arc_length(haversine)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        refuse_second_derivative()
        (haversine,) = ctx.saved_tensors
        return gradient * _arc_slope(haversine)


class _PairwiseDistance(torch.autograd.Function):
    """All distances of vectors x [N, D] and y [M, D] with stretches p, q.

    With a = sinh^2(radius / 2), and b likewise, the haversine is

        h = a + b + 2 a b - p q (x . y) / 2.

    It is the one [N, M] buffer that is kept, and the vectors, which may be
    many more than fit the cache, are read and not copied.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        y: torch.Tensor,
        p: torch.Tensor,
        q: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
    ) -> torch.Tensor:
        scaled = product(x * (p / -2).unsqueeze(1), y).mul_(q)
        haversine = complete_haversine(scaled, a, 1 + 2 * a, b)
        ctx.save_for_backward(haversine, x, y, p, q, a, b)
        return _arc_length(haversine)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        refuse_second_derivative()
        haversine, x, y, p, q, a, b = ctx.saved_tensors
        slope = _arc_slope(haversine).mul_(gradient)
        # Sums of dh over rows and columns, plain and weighted, and of h dh.
        row, row_b = (slope @ torch.stack([torch.ones_like(b), b], 1)).T
        column, column_a = torch.stack([torch.ones_like(a), a]) @ slope
        weighted = haversine * slope
        # p (dh/dp) = h - a - b - 2 a b, so x . y is not needed again.
        grad_p = (weighted.sum(1) - a * row - (1 + 2 * a) * row_b) / p
        grad_q = weighted.sum(0) - column_a - b * (column + 2 * column_a)
        slope *= q
        half = (p / -2).unsqueeze(1)
        return (
            product(slope, y.T) * half,
            product(slope.T, (x * half).T),
            grad_p,
            grad_q / q,
            row + 2 * row_b,
            column + 2 * column_a,
        )


def product(
    x: torch.Tensor, y: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """x @ y.T, in full float32 on a GPU too.

    SpeechBrain allows TF32 products there, whose 10 bits would move the logit
    of a close pair at scale 30 by 0.5.

    Arguments
    ---------
    x : torch.Tensor
        Shape [N, D].
    y : torch.Tensor
        Shape [M, D].
    out : torch.Tensor
        Where to write it, shape [N, M]; None: to new memory.

    Returns
    -------
    product : torch.Tensor
        Shape [N, M].

    Example
    -------
    >>> product(torch.ones(1, 3), torch.ones(2, 3))
    tensor([[3., 3.]])
    """
    if x.device.type == "cuda" and x.dtype is torch.float32:
        split = _split_product(x, y)
        return split if out is None else out.copy_(split)
    return torch.matmul(x, y.T, out=out)


def _split_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x @ y.T of float32 factors, in products whose factors fit TF32."""
    x_high, y_high = _leading_bits(x), _leading_bits(y)
    x_low, y_low = x - x_high, y - y_high
    small = x_low @ y_low.T + x_low @ y_high.T + x_high @ y_low.T
    return small + x_high @ y_high.T


def _leading_bits(x: torch.Tensor) -> torch.Tensor:
    """The value without its last 13 of 23 bits, as a constant."""
    return (x.detach().view(torch.int32) & -(1 << 13)).view(torch.float32)
