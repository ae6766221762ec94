"""Speakers on the Poincare disk: points of many dimensions, drawn in two."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import Points, paired_distance
from speechbrain_hyperbolic.plots import COLOURS

# Of directions, which are unit vectors: what is closer is parallel.
_PARALLEL = 1e-3
# Of different sizes, to see both where they coincide.
_HIGHLIGHTS = (("o", 13), ("D", 7.5))
# Of a point, where its name may be: beside, above and below, or aslant.
_SIDES = (-1, 1, 1j, -1j, -0.7 + 0.7j, 0.7 + 0.7j, -0.7 - 0.7j, 0.7 - 0.7j)
_MOST_LABELS = 40  # tried, of those that are not highlighted


class Layout(NamedTuple):
    """Points of many dimensions on the Poincare disk.

    Arguments
    ---------
    radius : np.ndarray
        Hyperbolic distance from the centre, that of the points: shape [N].
    angle : np.ndarray
        Of their projections onto a plane through the origin, in radians,
        shape [N].
    share : np.ndarray
        How much of its direction a point has in that plane, shape [N]: the
        length of the unit vector's projection. At 1 the point is in the plane,
        and the distances between such points are true; near 0 its angle says
        nothing.
    """

    radius: np.ndarray
    angle: np.ndarray
    share: np.ndarray

    @property
    def disk(self) -> np.ndarray:
        """As complex numbers in the unit disk, shape [N]: angle 0 is up."""
        return np.tanh(self.radius / 2) * 1j * np.exp(1j * self.angle)


def lay_out(points: Points, highlights: Sequence[int] = ()) -> Layout:
    """Lays points of many dimensions out on the Poincare disk.

    The radii stay as they are. The angles are those of the projections onto
    the plane of the two leading principal directions (of the unit vectors, not
    centred: the plane goes through the origin) of the highlighted points. Two
    highlighted points are thus in the plane, and their distance on the disk is
    the true one. Where they don't fix the plane, all points do.

    Arguments
    ---------
    points : Points
        vectors [N, D].
    highlights : sequence of int
        Indices of points; their mean is at angle 0, and the first on the left,
        at a positive angle.

    Returns
    -------
    layout : Layout

    Raises
    ------
    InputError
        If there are no points, a coordinate is not finite, or an index is not
        one of a point.

    Example
    -------
    >>> import torch
    >>> from speechbrain_hyperbolic.geometry import exponential_map
    >>> points = exponential_map(torch.tensor([[1.0, 1, 0], [2, -2, 0]]))
    >>> lay_out(points, [0, 1]).angle.round(3)
    array([ 0.785, -0.785])
    """
    vectors = points.vectors.detach().cpu().double().numpy()
    radius = points.radius.detach().cpu().double().numpy()
    if vectors.ndim != 2 or len(vectors) == 0:
        raise InputError(
            f"the points have shape {vectors.shape}, expected (N, D): give at "
            "least one point"
        )
    if not (np.isfinite(vectors).all() and np.isfinite(radius).all()):
        raise InputError("a point is NaN or infinite: leave it out")
    highlights = list(highlights)
    if not all(0 <= index < len(vectors) for index in highlights):
        raise InputError(
            f"highlights are {highlights}, expected indices of "
            f"{len(vectors)} points, from 0"
        )
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.where(length == 0, np.inf, length)

    axes = _principal(directions[highlights])
    if len(axes) < 2:
        rest = directions - directions @ axes.T @ axes
        axes = np.concatenate([axes, _principal(rest)])[:2]
    flat = directions @ axes.T @ np.array([1, 1j])[: len(axes)]
    flat = _turned(flat, highlights)
    share = np.where(radius == 0, 1, np.minimum(abs(flat), 1))
    return Layout(radius, np.angle(flat), share)


def _turned(flat: np.ndarray, highlights: Sequence[int]) -> np.ndarray:
    """Complex numbers, turned so that the highlighted are around angle 0.

    Of their mirror images it's the one where the first that is on a side is
    on the left. Without highlights, all count.
    """
    first = [*highlights, *range(len(flat))]
    mean = flat[highlights or first].mean()
    if abs(mean) < _PARALLEL:
        mean = flat[first[0]]
    flat = flat * np.exp(-1j * np.angle(mean))
    aside = flat.imag[first]
    aside = aside[abs(aside) > _PARALLEL]
    return flat.conj() if len(aside) and aside[0] < 0 else flat


def _principal(directions: np.ndarray) -> np.ndarray:
    """At most two orthonormal rows."""
    _, size, rows = np.linalg.svd(directions, full_matrices=False)
    return rows[size > _PARALLEL][:2]


def draw_disk(
    points: Points,
    names: Sequence[str],
    highlights: Sequence[int] = (),
    cap: float | None = None,
) -> Figure:
    """Draws points of many dimensions on the Poincare disk.

    See ``lay_out`` for what is true of the picture: it says so in a line below
    the disk. Two highlighted points are joined by their geodesic. A name is
    left out where it would cover another.

    Arguments
    ---------
    points : Points
        vectors [N, D].
    names : sequence of str
        N names.
    highlights : sequence of int
        Indices of the points to stress: two at most, the rest are the crowd.
    cap : float
        Hyperbolic radius of a circle to draw, where the clip has its cap;
        None: no circle.

    Returns
    -------
    figure : matplotlib.figure.Figure
        4.2 x 5.1 inches.

    Raises
    ------
    InputError
        As ``lay_out``; and for another number of names than points, or more
        than two highlights.

    Example
    -------
    >>> import torch
    >>> from speechbrain_hyperbolic.geometry import clip_to_ball
    >>> points = clip_to_ball(torch.eye(4), c=3.0)
    >>> figure = draw_disk(points, ["Ann", "Bob", "Cem", "Dot"], [0, 1])
    >>> figure.savefig(getfixture("tmpdir") / "disk.png")
    """
    layout = lay_out(points, highlights)
    highlights = list(highlights)
    if len(names) != len(layout.radius):
        raise InputError(
            f"there are {len(names)} names of {len(layout.radius)} points: "
            "give one name a point"
        )
    if len(highlights) > len(_HIGHLIGHTS):
        raise InputError(
            f"highlights are {highlights}: give {len(_HIGHLIGHTS)} at most"
        )
    figure = Figure(figsize=(4.2, 5.1), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(aspect="equal")
    axes.set_axis_off()
    axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03))
    axes.add_patch(Circle((0, 0), 1, facecolor="#f4f6f8", edgecolor="0.3"))
    axes.plot(0, 0, "+", color="0.6", markersize=7)
    handles = []
    for index, colour, (marker, size) in zip(
        highlights, COLOURS, _HIGHLIGHTS, strict=False
    ):
        point = layout.disk[index]
        mark = _mark(marker, size, colour, names[index])
        axes.add_line(mark)
        mark.set(xdata=[point.real], ydata=[point.imag], zorder=3)
        handles.append(mark)
    line = np.zeros(0, complex)
    if len(highlights) == 2:
        line = _geodesic(*layout.disk[highlights])
        label = f"{_distance(points, highlights):.2f} apart"
        handles += axes.plot(line.real, line.imag, color="0.3", label=label)
    if cap is not None:
        edge = np.tanh(cap / 2) * np.exp(1j * np.linspace(0, 2 * np.pi, 361))
        label = f"cap of the radius, {cap:.2f}"
        handles += axes.plot(
            edge.real, edge.imag, color="0.6", linestyle=":", label=label
        )
    others = np.setdiff1d(np.arange(len(names)), highlights)
    if len(others):
        crowd = layout.disk[others]
        # Never so faint that it can't be seen.
        shade = 0.25 + 0.75 * layout.share[others]
        look: dict[str, Any] = {"c": "0.2", "alpha": shade, "linewidths": 0}
        axes.scatter(crowd.real, crowd.imag, s=28, **look)
        label = f"{len(others)} enrolled"
        handles.append(_mark("o", 5.5, "0.2", label))
    _legend(figure, handles, layout, points.vectors.shape[1])
    by_share = others[np.argsort(-layout.share[others], kind="stable")]
    figure.draw_without_rendering()  # now a text's size is known
    _label(axes, layout, names, highlights, by_share, line)
    return figure


def _mark(marker: str, size: float, colour: str, label: str) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        markersize=size,
        color=colour,
        markeredgecolor="white",
        label=label,
    )


def _distance(points: Points, pair: Sequence[int]) -> float:
    first, second = (Points(*(f[index] for f in points)) for index in pair)
    return float(paired_distance(first, second))


def _geodesic(start: complex, end: complex) -> np.ndarray:
    """The shortest path on the disk, shape [steps]."""
    # Moved to the centre, where it is straight, and back.
    ahead = (end - start) / (1 - np.conj(start) * end)
    steps = np.tanh(np.linspace(0, 1, 100) * np.arctanh(abs(ahead)))
    steps = steps * np.exp(1j * np.angle(ahead))
    return (start + steps) / (1 + np.conj(start) * steps)


def _legend(
    figure: Figure, handles: list[Line2D], layout: Layout, dimensions: int
) -> None:
    lines = [
        f"{dimensions} dimensions seen in 2: distances from the centre",
        "are true, directions are a projection.",
    ]
    if (layout.share < 0.99).any():
        lines[1] += " The fainter"
        lines.append("a point, the further it lies off this plane.")
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
        title="\n".join(lines),
        title_fontsize=9,
        fontsize=10,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _label(
    axes: Axes,
    layout: Layout,
    names: Sequence[str],
    highlights: Sequence[int],
    others: np.ndarray,
    line: np.ndarray,
) -> None:
    """Writes the names that cover no point, no other name, and not the line.

    Those of the highlighted points may cover the others.
    """
    inside = axes.bbox.padded(5)
    above_all = _pixels(axes, np.append(layout.disk[highlights], line))
    all_spots = _pixels(axes, np.append(layout.disk, line))
    taken: list = []
    look: dict[str, Any]
    for index in (*highlights, *others[:_MOST_LABELS]):
        point, share = layout.disk[index], layout.share[index]
        stressed = index in highlights
        if stressed:
            spots, gap = above_all, 9
            look = {"fontsize": 11, "fontweight": "bold", "color": "black"}
            # Of two in one place, the first is named on the left.
            towards = 1 if point.real > 1e-6 else -1
        else:
            spots, gap = all_spots, 5
            look = {"fontsize": 9, "color": f"{0.5 - 0.4 * share:.2f}"}
            towards = point / (abs(point) or 1)  # outwards: it's empty there
        for side in _sides(towards, stressed):
            x, y = np.sign([side.real, side.imag]).astype(int)
            text = axes.annotate(
                names[index],
                (point.real, point.imag),
                (gap * side.real, gap * side.imag),
                textcoords="offset points",
                ha=("center", "left", "right")[x],
                va=("center", "bottom", "top")[y],
                parse_math=False,
                **look,
            )
            box = text.get_window_extent()
            if (
                inside.x0 <= box.x0
                and box.x1 <= inside.x1
                and not box.count_contains(spots)
                and not box.count_overlaps(taken)
            ):
                taken.append(box)
                break
            text.remove()


def _sides(towards: complex, beside: bool) -> list[complex]:
    """Those nearest to a direction first; where asked, before all beside."""
    return sorted(
        _SIDES,
        key=lambda side: (beside and side.imag != 0, abs(side - towards)),
    )


def _pixels(axes: Axes, disk: np.ndarray) -> np.ndarray:
    return axes.transData.transform(np.stack([disk.real, disk.imag], 1))
