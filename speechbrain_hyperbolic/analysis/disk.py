"""Points of many dimensions on the Poincare disk: their layout, their picture.

All points keep their hyperbolic radius. With highlights, their angles are those
of a projection onto the plane that holds these; without, those of their places
in the tree of their distances.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from speechbrain_hyperbolic.analysis.columns import Column
from speechbrain_hyperbolic.analysis.figures import add_legend, new_figure
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.plots import COLORS
from speechbrain_hyperbolic.geometry import (
    Points,
    pairwise_distance,
    to_lorentz,
)

NEAREST = 5
# Color, marker and size of highlights: to see both where they coincide
_HIGHLIGHTS = ((COLORS[0], "o", 170), (COLORS[1], "D", 55))
_MOST_NAMES = 40
_MOST_ORDERED = 1500  # the best order of more takes minutes
_HALO = [withStroke(linewidth=2.5, foreground="white")]


class Layout(NamedTuple):
    """N points on the disk, and the N - 1 nodes of their tree if there is one.

    ``disk`` are complex numbers in the unit disk: the points, then the nodes,
    the root last. ``parent`` is the index of the node above each of them, -1
    where there is none. ``share`` [N] is how much of a point's direction lies
    in the plane of the projection, 1 without one. ``near`` [N, 5] are the
    indices of each point's nearest, ``apart`` their true distances; without a
    tree there are none.
    """

    disk: np.ndarray
    parent: np.ndarray
    share: np.ndarray
    near: np.ndarray
    apart: np.ndarray


def lay_out(points: Points, highlights: Sequence[int] = ()) -> Layout:
    """Places points at their radius, as the module's docstring says.

    Two highlighted points are in the plane of projection, so their distance on
    the disk is the true one. A node of the tree (average linkage) lies at the
    radius of the midpoint of the points below it, in the middle of their
    angles.
    """
    points = Points(*(field.cpu().double() for field in points))
    radius = points.radius.numpy()
    if not (radius.size and np.isfinite(points.vectors.numpy()).all()):
        raise InputError("there are no points, or some are not finite")
    if radius.size > 1 and not len(highlights):
        return _by_tree(points)
    flat = _project(points.vectors.numpy(), list(highlights) or [0])
    disk = np.tanh(radius / 2) * 1j * np.exp(1j * np.angle(flat))
    share = np.where(radius == 0, 1, np.minimum(abs(flat), 1))
    none = np.zeros((len(disk), 0))
    return Layout(disk, np.full(len(disk), -1), share, none, none)


def _project(vectors: np.ndarray, highlights: list[int]) -> np.ndarray:
    """Complex numbers [N]: the highlighted around 1, the first one above."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.where(length == 0, 1, length)
    # The principal plane of the highlighted; if they are parallel, the weight
    # leaves the choice of the second axis to the others.
    weighted = np.concatenate([1e6 * directions[highlights], directions])
    axes = np.linalg.svd(weighted, full_matrices=False)[2][:2]
    flat = directions @ axes.T @ np.array([1, 1j])[: len(axes)]
    flat = flat * np.exp(-1j * np.angle(flat[highlights].mean()))
    return flat.conj() if flat[highlights[0]].imag < 0 else flat


def _by_tree(points: Points) -> Layout:
    n, dimensions = points.vectors.shape
    square = distance_matrix(points)
    pairs = squareform(square, checks=False)
    tree = linkage(pairs, "average", optimal_ordering=n <= _MOST_ORDERED)
    parent = np.full(2 * n - 1, -1)
    low, high = np.zeros((2, 2 * n - 1))
    # The gap between the last leaf and the first is wider: they are apart.
    low[leaves_list(tree)] = (np.arange(n) + 0.75) / (n + 0.5)
    high[:n] = low[:n]
    # Sums of Lorentz coordinates point to midpoints.
    total = np.zeros((2 * n - 1, 1 + dimensions))
    total[:n] = to_lorentz(points).numpy()
    for node, children in enumerate(tree[:, :2].astype(int), n):
        parent[children] = node
        low[node], high[node] = low[children].min(), high[children].max()
        total[node] = total[children].sum(0)
    velocity = np.linalg.norm(total[n:, 1:], axis=1) / total[n:, 0]
    above = np.arctanh(velocity.clip(max=1 - 1e-15))
    disk = np.tanh(np.append(points.radius.numpy(), above) / 2)
    disk = disk * 1j * np.exp(-1j * np.pi * (low + high))
    near = nearest(square, min(NEAREST, n - 1))
    apart = np.take_along_axis(square, near, 1)
    return Layout(disk, parent, np.ones(n), near, apart)


def distance_matrix(points: Points) -> np.ndarray:
    """Distances [N, N] in float64, symmetric to the last bit."""
    points = Points(*(field.cpu().double() for field in points))
    square = pairwise_distance(points, points).numpy()
    square = (square + square.T) / 2
    np.fill_diagonal(square, 0)
    return square


def nearest(rows: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Indices [N, count] of each point's nearest, from rows of distances."""
    found = []
    for index, row in enumerate(rows):
        row = np.array(row)
        row[index] = np.inf
        near = np.argpartition(row, count - 1)[:count]
        found.append(near[np.argsort(row[near], kind="stable")])
    return np.array(found)


def geodesics(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The shortest paths on the disk, as x and y: [paths, steps, 2]."""
    starts, ends = starts[:, None], ends[:, None]
    # Moved to the origin, where they are straight, and back
    ahead = (ends - starts) / (1 - np.conj(starts) * ends)
    steps = np.tanh(np.arctanh(abs(ahead)) * np.linspace(0, 1, 32))
    ahead = steps * np.exp(1j * np.angle(ahead))
    return xy((starts + ahead) / (1 + np.conj(starts) * ahead))


def xy(disk: np.ndarray) -> np.ndarray:
    """Complex numbers [...] as x and y, [..., 2]."""
    return np.stack([disk.real, disk.imag], -1)


def explain(points: Points, layout: Layout, has_radius: bool = True) -> str:
    """What is true of the picture."""
    n, dimensions = points.vectors.shape
    place = "Distance from the center: the hyperbolic radius, true. "
    if not has_radius:
        place = "This head has no radius: all points are drawn at one. "
    if len(layout.disk) == n:
        place += f"Angle: a projection of {dimensions} dimensions."
        if (layout.share < 0.99).any():
            place += " The fainter a point, the farther it is off the plane."
        return place
    count, disk = layout.near.shape[1], layout.disk[:n]
    inside = 1 - abs(disk) ** 2
    # In the order of distances on the disk
    on_disk = nearest((abs(disk - z) ** 2 / inside for z in disk), count)
    kept = np.mean(
        [np.isin(*pair) for pair in zip(layout.near, on_disk, strict=True)]
    )
    return (
        f"{place}Angle: the place in the tree (average linkage) of the "
        f"distances in {dimensions} dimensions; a node is at the radius of its "
        f"points' midpoint. Of a point's {count} nearest, {kept:.0%} are among "
        f"its {count} nearest on the disk."
    )


def shown_cap(points: Points, cap: float | None) -> float | None:
    """The cap, unless it is too far out to be drawn with the points."""
    return cap if cap and cap <= 2 * float(points.radius.max()) else None


def draw_disk(
    points: Points,
    names: Sequence[str],
    highlights: Sequence[int] = (),
    cap: float | None = None,
    column: Column | None = None,
    title: str = "",
    has_radius: bool = True,
) -> Figure:
    """Draws points of many dimensions on the Poincare disk.

    At most two highlighted points are stressed, and joined by their geodesic.
    ``cap`` is the radius of a circle; ``column`` colors the points. Without
    ``has_radius``, the points' common radius says nothing. A name is left out
    where it would cover another one. The text below says what is true.

    >>> import torch
    >>> from speechbrain_hyperbolic.geometry import clip_to_ball
    >>> points = clip_to_ball(torch.eye(4), c=3.0)
    >>> figure = draw_disk(points, ["Ann", "Bob", "Cem", "Dot"], [0, 1])
    >>> figure.savefig(getfixture("tmpdir") / "disk.png")
    """
    layout, marked = lay_out(points, highlights), list(highlights)
    disk = layout.disk[: len(names)]
    width = 4.2 if marked else 6.4
    figure = new_figure(width, 1.22 * width)
    axes = figure.add_subplot(aspect="equal")
    axes.set_title(title, parse_math=False)
    axes.set_axis_off()
    reach, cap = float(points.radius.max()), shown_cap(points, cap)
    named = marked or len(names) <= _MOST_NAMES
    edge = (1.2 if named else 1.1) * np.tanh((max(reach, cap or 0) or 1) / 2)
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge))
    _draw_scale(axes, reach if has_radius else 0)
    below = np.flatnonzero(layout.parent >= 0)
    edges = geodesics(layout.disk[below], layout.disk[layout.parent[below]])
    thin = 0.7 if len(names) < 300 else 0.25
    lines = LineCollection(list(edges), colors="0.72", linewidths=thin)
    axes.add_collection(lines, autolim=False)
    for index, (color, marker, size) in zip(marked, _HIGHLIGHTS, strict=False):
        look = {"color": color, "marker": marker, "s": size, "zorder": 4}
        _scatter(axes, disk[[index]], label=names[index], **look)
    path = np.zeros((0, 2))
    if len(marked) == 2:
        (path,) = geodesics(*disk[marked, None])
        apart = f"{distance_matrix(points)[tuple(marked)]:.2f} apart"
        axes.plot(*path.T, color="0.3", label=apart)
    if cap and has_radius:
        circle = np.tanh(cap / 2) * np.exp(2j * np.pi * np.linspace(0, 1, 361))
        label = f"cap of the radius, {cap:.2f}"
        axes.plot(circle.real, circle.imag, ":", color="0.3", label=label)
    crowd = np.setdiff1d(np.arange(len(names)), marked)
    kind, color = ("enrolled", "#333333") if marked else ("all", COLORS[0])
    groups, styles = np.full(len(names), kind), {kind: (color, "o")}
    if column:
        groups, styles = column.groups, column.styles
    for name, (color, marker) in styles.items():
        here = crowd[groups[crowd] == name]
        look = {
            "color": color,
            "marker": marker,
            "s": np.clip(4500 / len(names), 3, 30),
            "alpha": 0.25 + 0.75 * layout.share[here],  # never invisible
            "linewidths": 0.4,
        }
        if len(here):
            label = f"{name} ({len(here)})"
            _scatter(axes, disk[here], zorder=3, label=label, **look)
    text = explain(points, layout, has_radius)
    text = textwrap.fill(text, int(14.5 * width))
    add_legend(axes, 2 if marked else 3, text)
    figure.draw_without_rendering()  # from here on, texts have a size
    if named:
        crowd = crowd[np.argsort(-layout.share[crowd], kind="stable")]
        _write_names(axes, disk, names, marked, crowd[:_MOST_NAMES], path)
    return figure


def _scatter(axes: Axes, disk: np.ndarray, **look: Any) -> None:
    axes.scatter(disk.real, disk.imag, edgecolors="white", **look)


def _draw_scale(axes: Axes, reach: float) -> None:
    """The rim, the origin, and circles at round radii."""
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="0.3"))
    axes.plot(0, 0, "+", color="0.6", zorder=0)
    for radius in MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(0, reach):
        if 0 < radius < reach:
            y = np.tanh(radius / 2)
            axes.add_patch(Circle((0, 0), y, fill=False, color="0.88"))
            label = axes.text(0, -y, f"{radius:g}", ha="center", va="center")
            label.set(color="0.5", fontsize=9, path_effects=_HALO)


def _write_names(
    axes: Axes,
    disk: np.ndarray,
    names: Sequence[str],
    marked: list[int],
    crowd: np.ndarray,
    path: np.ndarray,
) -> None:
    """Names beside their points, where they cover no point and no name."""
    # Highlights' names may cover the crowd, but neither their points nor path.
    spots = axes.transData.transform([*xy(disk[marked]), *path, (9, 9)])
    taken: list[Any] = []
    for index in [*marked, *crowd]:
        look: dict[str, Any] = {"fontsize": 11, "fontweight": "bold"}
        gap = 9
        if index not in marked:
            look, gap = {"fontsize": 8.5, "color": "0.25"}, 5
            spots = axes.transData.transform([*xy(disk), *path])
        outwards = 1 if disk[index].real > 1e-6 else -1
        for x, y in ((outwards, 0), (0, 1), (0, -1), (-outwards, 0)):
            text = axes.annotate(
                names[index],
                (disk[index].real, disk[index].imag),
                (gap * x, gap * y),
                textcoords="offset points",
                ha=("center", "left", "right")[x],
                va=("center", "bottom", "top")[y],
                path_effects=_HALO,
                parse_math=False,
                **look,
            )
            box = text.get_window_extent()
            inside = min(box.x0, axes.figure.bbox.x1 - box.x1) >= 0
            covers = box.count_contains(spots) or box.count_overlaps(taken)
            if inside and not covers:
                taken.append(box)
                break
            text.remove()
