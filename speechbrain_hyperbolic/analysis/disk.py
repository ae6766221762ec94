"""Points of many dimensions on the Poincare disk: where they lie, the figure.

All points keep their hyperbolic radius. They follow one another in the order of
the tree of their distances, at their true angles if the circle has room.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from speechbrain_hyperbolic import geometry
from speechbrain_hyperbolic.analysis.groups import Column
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.plots import COLORS, new_figure
from speechbrain_hyperbolic.geometry import Points

# Color, marker and size of highlights: to see both where they coincide
_HIGHLIGHTS = ((COLORS[0], "o", 170), (COLORS[1], "D", 55))
_MOST_NAMES = 40
_MOST_ORDERED = 1500  # the best order of more takes minutes
_HALO = [withStroke(linewidth=2.5, foreground="white")]


def place_by_tree(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Places N points and the N - 1 nodes of their tree (average linkage).

    Returns complex numbers [2 N - 1] in the unit disk, the root last, and the
    index of the node above each, -1 above the root. A node lies at the radius
    of the midpoint of the points below it, in the middle of their angles.
    """
    n = len(points.radius)
    distances = distance_matrix(points)
    if n < 2 or not np.isfinite(distances).all():
        raise InputError(
            f"cannot draw {n} points: expected two or more, all finite"
        )
    pairs = squareform(distances)
    tree = linkage(pairs, "average", optimal_ordering=n <= _MOST_ORDERED)
    leaves = leaves_list(tree)
    directions = torch.nn.functional.normalize(points.vectors)[leaves]
    cosines = (directions * directions.roll(-1, 0)).sum(1)
    # From each to the next; rounding may leave cosines beyond 1.
    turns = cosines.clamp(-1, 1).arccos().numpy()
    turns *= 2 * np.pi / max(2 * np.pi, turns.sum())
    parent = np.full(2 * n - 1, -1)
    low, high = np.zeros((2, 2 * n - 1))  # angles, clockwise from the top
    low[leaves] = np.cumsum(turns) - turns - turns[:-1].sum() / 2
    high[:n] = low[:n]
    # Sums of Lorentz coordinates point to midpoints.
    total = np.zeros((2 * n - 1, 1 + points.vectors.shape[1]))
    total[:n] = geometry.to_lorentz(points).numpy()
    for node, children in enumerate(tree[:, :2].astype(int), n):
        parent[children] = node
        low[node], high[node] = low[children].min(), high[children].max()
        total[node] = total[children].sum(0)
    velocity = np.linalg.norm(total[n:, 1:], axis=1) / total[n:, 0]
    node_radius = np.arctanh(velocity.clip(max=1 - 1e-15))  # finite below 1
    radius = np.append(points.radius.numpy(), node_radius)
    disk = np.tanh(radius / 2) * 1j * np.exp(-0.5j * (low + high))
    return disk, parent


def distance_matrix(points: Points) -> np.ndarray:
    """Distances [N, N] in float64, symmetric to the last bit."""
    points = Points(*(field.double() for field in points))
    distances = geometry.pairwise_distance(points, points).numpy()
    distances = (distances + distances.T) / 2
    np.fill_diagonal(distances, 0)
    return distances


def geodesics(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The shortest paths on the disk, as x and y: [paths, steps, 2]."""
    starts, ends = starts[:, None], ends[:, None]
    # Moved to the origin, where they are straight, and back
    ahead = (ends - starts) / (1 - np.conj(starts) * ends)
    steps = np.tanh(np.arctanh(abs(ahead)) * np.linspace(0, 1, 32))
    ahead = steps * np.exp(1j * np.angle(ahead))
    disk = (starts + ahead) / (1 + np.conj(starts) * ahead)
    return np.stack([disk.real, disk.imag], -1)


def caption(points: Points) -> str:
    """How to read the picture, and what it cannot show."""
    return (
        "Distance from the center: the hyperbolic radius. Angle: the place in "
        "the tree (average linkage) of distances in "
        f"{points.vectors.shape[1]} dimensions. Other distances are distorted."
    )


def visible_cap(points: Points, cap: float | None) -> float | None:
    """The cap, unless it is too far out to be drawn with the points."""
    return cap if cap and cap <= 2 * float(points.radius.max()) else None


def draw_disk(
    points: Points,
    names: Sequence[str],
    highlights: Sequence[int] = (),
    cap: float | None = None,
    column: Column | None = None,
    title: str = "",
) -> Figure:
    """Draws points of many dimensions; two highlights have a geodesic."""
    marked = list(highlights)
    width = 4.2 if marked else 6.4
    figure = new_figure(width, 1.22 * width)
    axes = figure.add_subplot(aspect="equal")
    axes.set_title(title, parse_math=False)
    axes.set_axis_off()
    reach, cap = float(points.radius.max()), visible_cap(points, cap)
    named = marked or len(names) <= _MOST_NAMES
    edge = (1.2 if named else 1.1) * np.tanh((max(reach, cap or 0) or 1) / 2)
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge))
    _draw_scale(axes, reach)
    disk, parent = place_by_tree(points)
    edges = geodesics(disk[:-1], disk[parent[:-1]])
    thin = 0.7 if len(names) < 300 else 0.25
    lines = LineCollection(list(edges), colors="0.72", linewidths=thin)
    axes.add_collection(lines, autolim=False)
    if marked:
        (path,) = geodesics(*disk[marked, None])
        apart = distance_matrix(points)[tuple(marked)]
        axes.plot(*path.T, color="0.3", label=f"{apart:.2f} apart")
    if cap:
        circle = np.tanh(cap / 2) * np.exp(2j * np.pi * np.linspace(0, 1, 361))
        label = f"cap of the radius, {cap:.2f}"
        axes.plot(circle.real, circle.imag, ":", color="0.3", label=label)
    others = np.setdiff1d(np.arange(len(names)), marked)
    kind, color = ("enrolled", "#333333") if marked else ("all", COLORS[0])
    groups, styles = np.full(len(names), kind), {kind: (color, "o")}
    if column:
        groups, styles = column.groups, column.styles
    size = np.clip(4500 / len(names), 3, 30)
    drawn = []
    for name, style in styles.items():
        here = others[groups[others] == name]
        drawn.append((f"{name} ({len(here)})", here, (*style, size)))
    for index, look in zip(marked, _HIGHLIGHTS, strict=False):
        drawn.append((names[index], np.array([index]), look))
    for label, here, (color, marker, size) in drawn:
        if len(here):
            axes.scatter(
                disk[here].real,
                disk[here].imag,
                s=size,
                color=color,
                marker=marker,
                edgecolors="white",
                linewidths=0.4,
                zorder=3,
                label=label,
            )
    text = textwrap.fill(caption(points), int(14.5 * width))
    _add_legend(axes, 2 if marked else 3, text)
    figure.draw_without_rendering()  # from here on, texts have a size
    if named:
        _write_names(axes, disk, names, marked, others[:_MOST_NAMES])
    return figure


def _add_legend(axes: Axes, columns: int, title: str) -> None:
    """Puts a legend below the figure; names in it are not formulas."""
    handles, labels = axes.get_legend_handles_labels()
    legend = axes.figure.legend(
        handles,
        [text if len(text) <= 32 else f"{text[:31]}…" for text in labels],
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        frameon=False,
        title=title,
        title_fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


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
    others: np.ndarray,
) -> None:
    """Names beside their points, where they cover no other name."""
    placed: list[Bbox] = []
    for index in [*marked, *others]:
        outwards = 1 if disk[index].real > 1e-6 else -1
        text = axes.annotate(
            names[index],
            (disk[index].real, disk[index].imag),
            (7 * outwards, 0),
            textcoords="offset points",
            ha="left" if outwards > 0 else "right",
            va="center",
            path_effects=_HALO,
            parse_math=False,
            fontsize=11 if index in marked else 8.5,
        )
        box, page = text.get_window_extent(), axes.figure.bbox
        inside = page.containsx(box.x0) and page.containsx(box.x1)
        if inside and not box.count_overlaps(placed):
            placed.append(box)
        else:
            text.remove()
