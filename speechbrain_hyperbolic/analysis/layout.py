"""Points of many dimensions on the Poincare disk, in the order of a tree."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    Points,
    from_lorentz,
    pairwise_distance,
    to_lorentz,
)

# Leaves of a branch that are worth to be enlarged, and fit with their names.
BRANCH = (8, 20)


class TreeLayout(NamedTuple):
    """N points, and the N - 1 nodes of their tree, on the Poincare disk.

    Arguments
    ---------
    disk : np.ndarray
        Complex numbers in the unit disk, shape [2 N - 1]: the points, then
        the nodes, the root last.
    parent : np.ndarray
        Index of each one's parent, shape [2 N - 1]; -1 of the root.
    height : np.ndarray
        Mean distance between the two branches that meet in a node, shape
        [2 N - 1]; 0 of the points.
    order : np.ndarray
        Indices of the points by angle, shape [N].
    """

    disk: np.ndarray
    parent: np.ndarray
    height: np.ndarray
    order: np.ndarray

    @property
    def count(self) -> int:  # type: ignore[override]
        """N."""
        return len(self.order)

    def leaves(self, node: int) -> np.ndarray:
        """The points below a node.

        Arguments
        ---------
        node : int

        Returns
        -------
        leaves : np.ndarray
            Indices.
        """
        inside = np.zeros(len(self.parent), bool)
        inside[node] = True
        for child in range(node - 1, -1, -1):  # parents come after children
            inside[child] = inside[self.parent[child]]
        return np.flatnonzero(inside[: self.count])


def distances(points: Points) -> np.ndarray:
    """Distances between all pairs.

    Arguments
    ---------
    points : Points
        float64, vectors [N, D].

    Returns
    -------
    distances : np.ndarray
        Shape [N, N], symmetric, 0 on the diagonal.

    Raises
    ------
    InputError
        If there are fewer than two points.
    """
    if len(points.radius) < 2:
        raise InputError(
            f"there are {len(points.radius)} speakers: a picture needs two"
        )
    square = pairwise_distance(points, points).cpu().numpy()
    square = (square + square.T) / 2
    np.fill_diagonal(square, 0)
    return square


def lay_out_tree(points: Points, square: np.ndarray) -> TreeLayout:
    """Lays points out by their tree: average linkage of the distances.

    A point keeps its radius, and its angle is its place in the order of the
    leaves, in equal steps: each two branches meet by their most similar ends,
    as far as that is free. A node is at the radius of the midpoint of the
    points below it, and at the middle of their angles.

    Arguments
    ---------
    points : Points
        float64, vectors [N, D].
    square : np.ndarray
        As ``distances`` gives them.

    Returns
    -------
    layout : TreeLayout

    Example
    -------
    >>> from speechbrain_hyperbolic.geometry import exponential_map
    >>> directions = torch.tensor([[1.0, 0], [-1, 0], [1, 0.1]])
    >>> points = exponential_map(directions.double())
    >>> layout = lay_out_tree(points, distances(points))
    >>> layout.parent  # the first and the last are a pair
    array([ 3,  4,  3,  4, -1])
    """
    count = len(square)
    tree = linkage(squareform(square, checks=False), "average")
    children = tree[:, :2].astype(int)
    parent = np.full(2 * count - 1, -1)
    parent[children] = np.arange(count, 2 * count - 1)[:, None]
    order = _order(children, square)
    # The last leaf is no neighbour of the first: half a step more between.
    turn = np.empty(count)
    turn[order] = (np.arange(count) + 0.75) / (count + 0.5)
    lorentz = to_lorentz(points).cpu().numpy()
    low, high, sums = ([*values] for values in (turn, turn, lorentz))
    for a, b in children:
        low.append(min(low[a], low[b]))
        high.append(max(high[a], high[b]))
        sums.append(sums[a] + sums[b])
    total = np.stack(sums)
    tanh = np.linalg.norm(total[:, 1:], axis=1) / total[:, 0]
    radius = np.arctanh(tanh.clip(max=1 - 1e-15))
    radius[:count] = points.radius.cpu().numpy()
    middle = (np.array(low) + np.array(high)) / 2
    disk = np.tanh(radius / 2) * 1j * np.exp(-2j * np.pi * middle)
    height = np.concatenate([np.zeros(count), tree[:, 2]])
    return TreeLayout(disk, parent, height, order)


def _order(children: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Leaves in an order of the tree: each two branches are turned so that
    the ends that meet are the closest of the four choices.
    """
    branches: list = [[leaf] for leaf in range(len(square))]
    for a, b in children:
        left, right = branches[a], branches[b]
        ends = square[np.ix_([left[0], left[-1]], [right[0], right[-1]])]
        at_left, at_right = np.unravel_index(ends.argmin(), ends.shape)
        left = left[::-1] if at_left == 0 else left
        right = right[::-1] if at_right == 1 else right
        branches.append(left + right)
        branches[a] = branches[b] = None
    return np.array(branches[-1])


def choose_branch(layout: TreeLayout) -> int:
    """The branch of 8 to 20 points that stands out most.

    It is the one with the largest step, relative to its height, to where it
    meets the rest. Of a tree without such branches it's the whole.

    Arguments
    ---------
    layout : TreeLayout

    Returns
    -------
    node : int
    """
    size = np.ones(len(layout.parent), int)
    size[layout.count :] = 0
    for child, parent in enumerate(layout.parent[:-1]):
        size[parent] += size[child]
    fits = (size >= BRANCH[0]) & (size <= BRANCH[1])
    fits[-1] = False  # the root has no parent
    if not fits.any():
        return len(size) - 1
    above = layout.height[layout.parent]
    step = (above - layout.height) / np.where(above == 0, 1, above)
    return int(np.argmax(np.where(fits, step, -1)))


def select(points: Points, indices: npt.ArrayLike) -> Points:
    """Some of the points.

    Arguments
    ---------
    points : Points
        vectors [N, D].
    indices : array_like
        Shape [M].

    Returns
    -------
    points : Points
        vectors [M, D].
    """
    indices = torch.as_tensor(indices)
    return Points(*(field[indices] for field in points))


def centred(points: Points) -> Points:
    """Moves all points so that their midpoint is at the origin.

    It is the translation along the geodesic from the midpoint to the origin,
    a Lorentz boost: all distances between the points stay as they are.

    Arguments
    ---------
    points : Points
        float64, vectors [N, D].

    Returns
    -------
    moved : Points

    Example
    -------
    >>> from speechbrain_hyperbolic.geometry import exponential_map
    >>> points = exponential_map(torch.tensor([[1.0, 0], [3, 0]]).double())
    >>> centred(points).radius
    tensor([1.0000, 1.0000], dtype=torch.float64)
    """
    lorentz = to_lorentz(points)
    total = lorentz.sum(0)
    time, spatial = total[0], total[1:]
    length = (time.square() - spatial.square().sum()).sqrt()
    time, spatial = time / length, spatial / length
    along = lorentz[:, 1:] @ spatial
    factor = along / (1 + time) - lorentz[:, 0]
    moved = lorentz[:, 1:] + factor.unsqueeze(1) * spatial
    return from_lorentz(torch.cat([lorentz[:, :1], moved], 1))


def kept_neighbours(
    layout: TreeLayout, square: np.ndarray, nearest: int = 5
) -> float:
    """How many of the nearest neighbours are the nearest on the disk too.

    Arguments
    ---------
    layout : TreeLayout
    square : np.ndarray
        The true distances, shape [N, N].
    nearest : int
        How many of each point, at most N - 1.

    Returns
    -------
    share : float
        1: all.
    """
    count = layout.count
    z = layout.disk[:count]
    kept = 0
    for index in range(count):  # a square of all would be large
        gap = abs(z - z[index]) ** 2 / (1 - abs(z) ** 2)
        of_plane, of_space = (
            np.argpartition(np.delete(row, index), nearest - 1)[:nearest]
            for row in (gap, square[index])
        )
        kept += len(np.intersect1d(of_plane, of_space))
    return kept / (count * nearest)


def geodesics(
    starts: np.ndarray, ends: np.ndarray, steps: int = 16
) -> np.ndarray:
    """The shortest paths on the disk.

    Arguments
    ---------
    starts, ends : np.ndarray
        Complex numbers in the unit disk, shape [M].
    steps : int

    Returns
    -------
    paths : np.ndarray
        Complex, shape [M, steps].
    """
    starts, ends = starts[:, None], ends[:, None]
    # Moved to the origin, where they are straight, and back.
    ahead = (ends - starts) / (1 - np.conj(starts) * ends)
    far = np.arctanh(abs(ahead)) * np.linspace(0, 1, steps)
    ahead = np.tanh(far) * np.exp(1j * np.angle(ahead))
    return (starts + ahead) / (1 + np.conj(starts) * ahead)
