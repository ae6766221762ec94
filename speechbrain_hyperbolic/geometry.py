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
point. ``clip_to_ball`` is the published one.

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


def pairwise_distance(x, y):
    """Distances between all pairs of two sets of points.

    Arguments
    ---------
    x : Points
        N points: spatial [N, D], radius [N].
    y : Points
        M points: spatial [M, D], radius [M].

    Returns
    -------
    distance : torch.Tensor
        Shape [N, M]. Two points closer than the square root of the dtype's
        resolution (about 3e-4 in float32 near the origin) are given that
        distance, with zero gradient, since their difference is rounding.

    Example
    -------
    >>> x = clip_to_ball(torch.tensor([[0.5, 0.0]]), c=1.0)
    >>> y = clip_to_ball(torch.tensor([[0.0, 0.0], [-0.5, 0.0]]), c=1.0)
    >>> pairwise_distance(x, y)
    tensor([[1.0986, 2.1972]])
    """
    inner = _product(x.spatial, y.spatial)
    return _haversine(x.radius.unsqueeze(1), y.radius.unsqueeze(0), inner)


def paired_distance(x, y):
    """Distances between corresponding points.

    Arguments
    ---------
    x : Points
        spatial [..., D], radius [...].
    y : Points
        Of the same shape.

    Returns
    -------
    distance : torch.Tensor
        Shape [...]; see ``pairwise_distance`` for very close points.

    Example
    -------
    >>> x = clip_to_ball(torch.tensor([[0.5, 0.0]]), c=1.0)
    >>> y = clip_to_ball(torch.tensor([[-0.5, 0.0]]), c=1.0)
    >>> paired_distance(x, y)
    tensor([2.1972])
    """
    inner = (x.spatial * y.spatial).sum(-1)
    return _haversine(x.radius, y.radius, inner)


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


def _haversine(a, b, inner):
    product = a.sinh() * b.sinh()
    haversine = ((a - b) / 2).sinh().square() + (product - inner) / 2
    # asinh(sqrt(.)) has an infinite slope at 0, and product - inner is known
    # only to about eps * product: anything below that is rounding.
    floor = torch.finfo(haversine.dtype).eps * product.detach()
    tiny = torch.finfo(haversine.dtype).tiny
    return 2 * torch.maximum(haversine, floor.clamp(min=tiny)).sqrt().asinh()
