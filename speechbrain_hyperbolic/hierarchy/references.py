"""Distances of points at random whose shape is known, to compare with."""

import numpy as np
import torch

from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.geometry import exponential_map, pairwise_distance
from speechbrain_hyperbolic.hierarchy.checks import (
    MAX_RADIUS,
    check_number,
    checked_distances,
)


def sphere_sample(n: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Points at random on the unit sphere: without any hierarchy.

    Arguments
    ---------
    n : int
        At least 2.
    dimension : int
        Number of coordinates, as of an embedding: at least 2.
    seed : int

    Returns
    -------
    distances : np.ndarray
        Along great circles, in radians, shape [n, n].

    Raises
    ------
    InputError
        If a number is out of range.

    Example
    -------
    >>> from speechbrain_hyperbolic.hierarchy.four_points import gromov_delta
    >>> gromov_delta(sphere_sample(50, 3)).worst > 0.5
    True
    """
    rng = np.random.default_rng(seed)
    directions = _directions(n, dimension, rng)
    angles = np.arccos((directions @ directions.T).clip(-1, 1))
    np.fill_diagonal(angles, 0)
    return angles


def tree_sample(n: int, branching: int, seed: int = 0) -> np.ndarray:
    """The leaves of a tree at random: of delta 0.

    From the leaves up, nodes are drawn and joined until one is left; edges
    are of length 0 to 1, at random.

    Arguments
    ---------
    n : int
        Number of leaves, at least 2.
    branching : int
        How many nodes are joined at once, at least 2 (the root may have
        fewer).
    seed : int

    Returns
    -------
    distances : np.ndarray
        Lengths of paths, shape [n, n].

    Raises
    ------
    InputError
        If a number is out of range.

    Example
    -------
    >>> from speechbrain_hyperbolic.hierarchy.four_points import gromov_delta
    >>> gromov_delta(tree_sample(50, 3)).worst < 1e-9
    True
    """
    check_number("n", n, 2)
    check_number("branching", branching, 2)
    rng = np.random.default_rng(seed)
    distances = np.zeros((n, n))
    depth = np.zeros(n)  # below the node that now stands for a leaf
    nodes = [np.array([leaf]) for leaf in range(n)]
    while len(nodes) > 1:
        order = rng.permutation(len(nodes))
        joined = [nodes[index] for index in order[:branching]]
        nodes = [nodes[index] for index in order[branching:]]
        for place, leaves in enumerate(joined):
            depth[leaves] += rng.random()
            for others in joined[:place]:
                paths = depth[leaves][:, None] + depth[others]
                distances[np.ix_(leaves, others)] = paths
                distances[np.ix_(others, leaves)] = paths.T
        nodes.append(np.concatenate(joined))
    return distances


def hyperbolic_sample(
    n: int, dimension: int, radius: float, seed: int = 0
) -> np.ndarray:
    """Points at random in a ball of hyperbolic space, alike by volume.

    Arguments
    ---------
    n : int
        At least 2.
    dimension : int
        Of the space, at least 2.
    radius : float
        Of the ball, at curvature -1: above 0, at most 14.
    seed : int

    Returns
    -------
    distances : np.ndarray
        Shape [n, n].

    Raises
    ------
    InputError
        If a number is out of range.

    Example
    -------
    >>> from speechbrain_hyperbolic.hierarchy.four_points import gromov_delta
    >>> near, far = (hyperbolic_sample(50, 2, radius) for radius in (1, 10))
    >>> gromov_delta(near).worst > 2 * gromov_delta(far).worst
    True
    """
    if not (is_finite(radius) and 0 < radius <= MAX_RADIUS):
        raise InputError(
            f"radius is {radius}, expected a number above 0, at most "
            f"{MAX_RADIUS:g}"
        )
    rng = np.random.default_rng(seed)
    directions = _directions(n, dimension, rng)
    # The volume within a radius, which grows as the integral of sinh^(D - 1).
    grid = np.linspace(0, radius, 10001)
    middle = (grid[1:] + grid[:-1]) / 2
    shell = np.exp(
        (dimension - 1) * (np.log(np.sinh(middle) / np.sinh(radius)))
    )
    volume = np.append(0, np.cumsum(shell))
    radii = np.interp(rng.random(n) * volume[-1], volume, grid)
    points = exponential_map(
        torch.from_numpy(radii[:, None] * directions), max_radius=MAX_RADIUS
    )
    return checked_distances(pairwise_distance(points, points).numpy())


def _directions(n: int, dimension: int, rng: np.random.Generator) -> np.ndarray:
    check_number("n", n, 2)
    check_number("dimension", dimension, 2)
    vectors = rng.standard_normal((n, dimension))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
