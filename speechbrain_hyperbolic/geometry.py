"""Hyperbolic space of curvature -1, as this package holds its points.

A point is kept as two things (see ``Points``): its hyperbolic radius ``rho``,
the distance from the origin, and ``spatial = sinh(rho) * u``, where ``u`` is
its unit direction: the spatial part of its Lorentz coordinates. The distance
is the hyperbolic haversine formula,

    d = 2 asinh sqrt( sinh^2((a - b) / 2) + (sinh a sinh b - s . t) / 2 ),

with radii ``a, b`` and spatial parts ``s, t``: one matrix product gives all
pairs, there is no ball boundary to fall over, and, unlike a unit direction,
``spatial`` is smooth at the origin.

What differs between variants is only the map from a Euclidean vector to a
point: ``clip_to_ball`` is the published one, ``exponential_map`` that of exact
curvature, ``smooth_cap`` one with a radial gradient everywhere.

Shapes: a leading ``...`` is any batch; D is the embedding dimension. Radii and
distances are in units of the space (curvature -1), whatever the map.

Source: Fang and He, "Hyperbolic Additive Margin Softmax with Hierarchical
Information for Speaker Verification", ICASSP 2026, arXiv 2601.19709.
"""

import math
from typing import NamedTuple

import torch

from speechbrain_hyperbolic.errors import InputError, is_finite

# The published code keeps clipped points this far (relatively) from the cap.
CLIP_EPS = 1e-5


class Points(NamedTuple):
    """Points of hyperbolic space, curvature -1.

    Arguments
    ---------
    spatial : torch.Tensor
        sinh(radius) times the unit direction, shape [..., D].
    radius : torch.Tensor
        Distance from the origin, shape [...].
    """

    spatial: torch.Tensor
    radius: torch.Tensor


def check_c(c):
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


def clip_to_ball(vectors, c):
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
    cap = (1 - CLIP_EPS) / math.sqrt(check_c(c))
    norm = torch.linalg.vector_norm(vectors, dim=-1)
    ball_norm = norm.clamp(max=cap)
    # cap / max(norm, cap) rather than ball_norm / norm: no 0/0 at the origin.
    # 2 / (1 - r^2) is sinh(rho) / r, the ball's conformal factor.
    stretch = cap / norm.clamp(min=cap) * 2 / (1 - ball_norm.square())
    return Points(stretch.unsqueeze(-1) * vectors, 2 * ball_norm.atanh())


def exponential_map(vectors, curvature=1.0, max_radius=14.0):
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

    Example
    -------
    >>> points = exponential_map(torch.tensor([[3.0, 4.0]]), curvature=0.25)
    >>> points.radius
    tensor([2.5000])
    """
    norm = torch.linalg.vector_norm(vectors, dim=-1)
    radius = (norm * curvature**0.5).clamp(max=max_radius)
    return _at_radius(vectors, norm, radius, curvature**0.5)


def smooth_cap(vectors, cap):
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
    norm = torch.linalg.vector_norm(vectors, dim=-1)
    return _at_radius(vectors, norm, cap * (norm / cap).tanh(), 1.0)


def _at_radius(vectors, norm, radius, slope):
    """Points in the directions of vectors; slope is radius / norm at 0."""
    tiny = torch.finfo(norm.dtype).tiny
    # Below the square root of tiny, sinh(radius) is radius to the last bit.
    small = norm < tiny**0.5
    stretch = torch.where(
        small, slope, radius.sinh() / norm.masked_fill(small, 1)
    )
    return Points(stretch.unsqueeze(-1) * vectors, radius)


def to_ball(points):
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


def from_ball(ball):
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
    spatial = 2 * ball / (1 - norm.square()).unsqueeze(-1)
    return Points(spatial, 2 * norm.atanh())


def to_lorentz(points):
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


def from_lorentz(lorentz):
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
    spatial = lorentz[..., 1:]
    return Points(spatial, torch.linalg.vector_norm(spatial, dim=-1).asinh())


def midpoint(points, weights=None):
    """The midpoint of several points: for enrolment from many utterances.

    It is the normalised sum of their Lorentz coordinates, which minimises the
    weighted sum of cosh(distance) and is the gyromidpoint of the Poincare
    ball. Source: Law et al., "Lorentzian distance learning", ICML 2019.

    Arguments
    ---------
    points : Points
        spatial [..., N, D], radius [..., N].
    weights : torch.Tensor
        Shape [..., N], not negative, not all zero; None: all alike.

    Returns
    -------
    midpoint : Points
        spatial [..., D], radius [...].

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
    one = Points(points.spatial.unsqueeze(-2), points.radius.unsqueeze(-1))
    two = Points(points.spatial.unsqueeze(-3), points.radius.unsqueeze(-2))
    cosh = 1 + 2 * _close_haversine(one, two)
    pairs = weights.unsqueeze(-1) * weights.unsqueeze(-2)
    length = (pairs * cosh).sum((-2, -1)).sqrt()
    total = (weights.unsqueeze(-1) * points.spatial).sum(-2)
    spatial = total / length.unsqueeze(-1)
    return Points(spatial, torch.linalg.vector_norm(spatial, dim=-1).asinh())


def pairwise_distance(x, y):
    """Distances between all pairs of two sets of points.

    One matrix product; for pairs much closer than their radius
    ``paired_distance`` is more accurate.

    Arguments
    ---------
    x : Points
        N points: spatial [N, D], radius [N].
    y : Points
        M points: spatial [M, D], radius [M].

    Returns
    -------
    distance : torch.Tensor
        Shape [N, M]. Two points closer than rounding can tell (about
        3e-4 sinh(radius) in float32) are given that distance, with zero
        gradient.

    Example
    -------
    >>> x = clip_to_ball(torch.tensor([[0.5, 0.0]]), c=1.0)
    >>> y = clip_to_ball(torch.tensor([[0.0, 0.0], [-0.5, 0.0]]), c=1.0)
    >>> pairwise_distance(x, y)
    tensor([[1.0986, 2.1972]])
    """
    inner = _product(x.spatial, y.spatial)
    a, b = x.radius.unsqueeze(1), y.radius.unsqueeze(0)
    product = a.sinh() * b.sinh()
    haversine = ((a - b) / 2).sinh().square() + (product - inner) / 2
    # product - inner is known only to about eps * product.
    floor = torch.finfo(haversine.dtype).eps * product.detach()
    return _distance(torch.maximum(haversine, floor))


def paired_distance(x, y):
    """Distances between corresponding points, accurate for close ones too.

    Arguments
    ---------
    x : Points
        spatial [..., D], radius [...].
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
    return _distance(_close_haversine(x, y))


def _close_haversine(x, y):
    """sinh^2(d / 2) from differences, where nothing cancels."""
    product = x.radius.sinh() * y.radius.sinh()
    chord = (_direction(x) - _direction(y)).square().sum(-1)
    return ((x.radius - y.radius) / 2).sinh().square() + product * chord / 4


def _direction(points):
    length = torch.linalg.vector_norm(points.spatial, dim=-1, keepdim=True)
    return points.spatial / length.clamp(min=torch.finfo(length.dtype).tiny)


def _distance(haversine):
    # asinh(sqrt(.)) has an infinite slope at 0.
    tiny = torch.finfo(haversine.dtype).tiny
    return 2 * haversine.clamp(min=tiny).sqrt().asinh()


def _product(x, y):
    """x @ y.T, in full float32 on a GPU too.

    SpeechBrain allows TF32 products there, whose 10 bits would move the logit
    of a close pair at scale 30 by 0.5.
    """
    if x.is_cuda and x.dtype is torch.float32:
        return _split_product(x, y)
    return x @ y.T


def _split_product(x, y):
    """x @ y.T of float32 factors, in products whose factors fit TF32."""
    x_high, y_high = _leading_bits(x), _leading_bits(y)
    x_low, y_low = x - x_high, y - y_high
    small = x_low @ y_low.T + x_low @ y_high.T + x_high @ y_low.T
    return small + x_high @ y_high.T


def _leading_bits(x):
    """The value without its last 13 of 23 bits, as a constant."""
    return (x.detach().view(torch.int32) & -(1 << 13)).view(torch.float32)
