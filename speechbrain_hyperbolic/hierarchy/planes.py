"""What distances lose on the hyperbolic and the Euclidean plane."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.spatial.distance import squareform

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    exponential_map,
    pairwise_distance,
    to_ball,
)
from speechbrain_hyperbolic.hierarchy.checks import (
    MAX_RADIUS,
    check_number,
    check_same_points,
    checked_distances,
)

# Diameters on the plane, in units of curvature -1, that a fit starts from.
_SPREADS = (1, 5, 15)
_JITTER = 0.03  # of the diameter


class PlaneDistortion(NamedTuple):
    """What distances lose on a plane, see ``plane_distortion``.

    Arguments
    ---------
    mean : float
        Mean relative error of a distance, 0 where all are kept.
    worst : float
        Of the ratios of new and old distance the largest over the smallest,
        1 where all are kept; infinite where points are merged.
    stress : float
        Root of the squared errors' sum over that of the squared distances,
        in [0, 1].
    """

    mean: float
    worst: float
    stress: float


def plane_distortion(
    distances: npt.ArrayLike, planar_distances: npt.ArrayLike
) -> PlaneDistortion:
    """How far distances are from others, whatever the unit of these.

    The others are multiplied by a factor: ``mean`` and ``stress`` each by
    what makes it least. Pairs of points that coincide in the first have no
    relative error; they count in the stress alone.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    planar_distances : array_like
        Shape [N, N].

    Returns
    -------
    distortion : PlaneDistortion

    Raises
    ------
    InputError
        If either has no distances, all its points coincide, or they differ in
        the number of points.

    Example
    -------
    >>> star = [[0, 2, 2], [2, 0, 2], [2, 2, 0]]
    >>> line = [[0, 1, 1], [1, 0, 2], [1, 2, 0]]
    >>> found = plane_distortion(star, line)
    >>> round(found.mean, 3), found.worst, round(found.stress, 3)
    (0.333, 2.0, 0.333)
    """
    true = squareform(checked_distances(distances))
    planar = squareform(
        checked_distances(planar_distances, name="planar_distances")
    )
    check_same_points(true, planar, "planar_distances")
    apart = true > 0
    if not planar[apart].any():
        raise InputError(
            "planar_distances are 0 wherever the distances are not: they are "
            "of other points"
        )
    # From the largest: |f r - 1| is least in sum where f is the median of
    # the 1 / r, of weights r.
    ratio = np.sort(planar[apart] / true[apart])[::-1]
    weight = np.cumsum(ratio)
    factor = 1 / ratio[np.searchsorted(weight, weight[-1] / 2)]
    with np.errstate(divide="ignore"):
        worst = ratio[0] / ratio[-1]
    closest = (true @ planar) / (planar @ planar)
    stress = np.linalg.norm(true - closest * planar) / np.linalg.norm(true)
    return PlaneDistortion(
        float(abs(factor * ratio - 1).mean()), float(worst), float(stress)
    )


class Embedding(NamedTuple):
    """Points on a plane.

    Arguments
    ---------
    points : np.ndarray
        As complex numbers, shape [N]; on the disk, of absolute value below 1.
    scale : float
        Distance on the plane of what is 1 in the distances that were given.
    distances : np.ndarray
        Between the points, over the scale: shape [N, N].
    """

    points: np.ndarray
    scale: float
    distances: np.ndarray


def embed_in_disk(
    distances: npt.ArrayLike, steps: int = 500, seed: int = 0
) -> Embedding:
    """Points on the Poincare disk of curvature -1 that fit distances.

    They and the scale are fitted by gradient descent (L-BFGS) for the least
    stress, see ``plane_distortion``, from three scales with classical
    scaling; the best fit is kept. The larger the scale, the more of the
    curvature is used; where it goes to 0 the disk is the Euclidean plane, so
    but for local minima it fits no worse than ``embed_in_plane``, and what
    tells is how much better. Radii are at most 14, which bounds how well a
    tree is fitted. It takes 7 s for 250 points on one core, O(N^2) a step.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    steps : int
        Of the descent, at most, of each of three.
    seed : int
        Of the start. Another finds another minimum: the stress of trees
        differs up to twofold on the disk, otherwise by some 2 %. Give the
        best of several where it matters.

    Returns
    -------
    embedding : Embedding

    Raises
    ------
    InputError
        If these are no distances, all points coincide, or ``steps`` is out of
        range.

    Example
    -------
    >>> star = 2 * (1 - np.eye(4))
    >>> plane_distortion(star, embed_in_plane(star).distances).stress > 0.1
    True
    >>> plane_distortion(star, embed_in_disk(star).distances).stress < 0.02
    True
    """
    distances = checked_distances(distances)

    def distance_of(vectors: torch.Tensor) -> torch.Tensor:
        points = exponential_map(vectors, max_radius=MAX_RADIUS)
        return pairwise_distance(points, points)

    vectors, scale = _fit(distances, distance_of, steps, seed)
    x, y = to_ball(exponential_map(vectors, max_radius=MAX_RADIUS)).T.numpy()
    planar = checked_distances(distance_of(vectors).numpy())
    return Embedding(x + 1j * y, scale, planar / scale)


def embed_in_plane(
    distances: npt.ArrayLike, steps: int = 500, seed: int = 0
) -> Embedding:
    """Points on the Euclidean plane that fit distances.

    By the same descent, to the same stress, as ``embed_in_disk``.

    Arguments
    ---------
    distances : array_like
        As ``embed_in_disk``.
    steps : int
        As ``embed_in_disk``.
    seed : int
        As ``embed_in_disk``.

    Returns
    -------
    embedding : Embedding
        Its scale is 1.

    Raises
    ------
    InputError
        As ``embed_in_disk``.

    Example
    -------
    >>> embed_in_plane([[0, 3, 4], [3, 0, 5], [4, 5, 0]]).distances.round(3)
    array([[0., 3., 4.],
           [3., 0., 5.],
           [4., 5., 0.]])
    """
    distances = checked_distances(distances)
    vectors, scale = _fit(distances, _plane_distances, steps, seed)
    vectors = vectors / scale
    x, y = vectors.T.numpy()
    return Embedding(x + 1j * y, 1.0, _plane_distances(vectors).numpy())


def _plane_distances(vectors: torch.Tensor) -> torch.Tensor:
    return torch.cdist(
        vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist"
    )


def _fit(
    distances: np.ndarray,
    distance_of: Callable[[torch.Tensor], torch.Tensor],
    steps: int,
    seed: int,
) -> tuple[torch.Tensor, float]:
    """Vectors [N, 2] and the scale of the least stress that was found."""
    check_number("steps", steps, 1)
    n, diameter = len(distances), distances.max()
    target = torch.from_numpy(distances / diameter)
    apart = 1 - torch.eye(n, dtype=torch.float64)

    def stress(flat: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(flat, requires_grad=True)
        planar = distance_of(leaf[:-1].view(n, 2)) * apart
        errors = planar * (-leaf[-1]).exp() - target
        value = errors.square().sum() / target.square().sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.item(), gradient.numpy()

    rng = np.random.default_rng(seed)
    placed = _classical_scaling(target.numpy())
    fits = []
    for spread in _SPREADS:
        # Off points that coincide, which nothing drives apart.
        noise = _JITTER * rng.standard_normal((n, 2))
        start = np.append(spread * (placed + noise), np.log(spread))
        fits.append(
            minimize(
                stress,
                start,
                jac=True,
                method="L-BFGS-B",
                options={
                    "maxiter": steps,
                    "maxfun": 2 * steps,
                    "maxcor": 20,
                    "ftol": 1e-10,
                    "gtol": 1e-9,
                },
            )
        )
    best = min(fits, key=lambda fit: fit.fun).x
    return torch.from_numpy(best[:-1].reshape(n, 2)), float(
        np.exp(best[-1]) / diameter
    )


def _classical_scaling(distances: np.ndarray) -> np.ndarray:
    """Torgerson's, in two dimensions."""
    square = distances**2
    mean = square.mean(0)
    centred = (mean[:, None] + mean - mean.mean() - square) / 2
    values, vectors = np.linalg.eigh(centred)
    return vectors[:, -2:] * np.sqrt(values[-2:].clip(min=0))
