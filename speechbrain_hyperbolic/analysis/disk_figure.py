"""The Poincare disk of speakers, with one branch enlarged."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from speechbrain_hyperbolic.analysis.columns import UNKNOWN, Column
from speechbrain_hyperbolic.analysis.figures import (
    COLOUR_MAP,
    GREY,
    looks,
    new_figure,
    plain_text,
    shorten,
)
from speechbrain_hyperbolic.analysis.layout import (
    BRANCH,
    TreeLayout,
    centred,
    choose_branch,
    distances,
    geodesics,
    kept_neighbours,
    lay_out_tree,
    select,
)
from speechbrain_hyperbolic.geometry import Points
from speechbrain_hyperbolic.plots import COLOURS

_NEAREST = 5
_SMALL = 8  # of a marker, in square points
_TURN = np.exp(1j * np.linspace(0, 2 * np.pi, 361))


def draw_speakers(
    points: Points,
    names: Sequence[str],
    title: str | None = None,
    column: Column | None = None,
    cap: float | None = None,
    has_radius: bool = True,
) -> Figure:
    """Draws speakers on the Poincare disk, and one branch of their tree.

    The text in the figure says what is true of it, see ``lay_out_tree``. The
    branch is the one of 8 to 20 speakers that stands out most; it's laid out
    anew after the translation, in all dimensions, that moves its midpoint to
    the origin, which keeps all distances.

    Arguments
    ---------
    points : Points
        float64, vectors [N, D].
    names : sequence of str
        N names.
    title : str
    column : Column
        For the colours; None: one colour.
    cap : float
        Radius of a circle to draw; None: none. One of more than twice the
        largest radius isn't drawn.
    has_radius : bool
        False: all are at one radius, which says nothing.

    Returns
    -------
    figure : matplotlib.figure.Figure
        9 x 5.7 inches.

    Raises
    ------
    InputError
        If there are fewer than two points.

    Example
    -------
    >>> import torch
    >>> from speechbrain_hyperbolic.geometry import clip_to_ball
    >>> points = clip_to_ball(torch.eye(9).double(), c=3.0)
    >>> figure = draw_speakers(points, list("abcdefghi"), cap=1.317)
    >>> figure.savefig(getfixture("tmpdir") / "speakers.png")
    """
    square = distances(points)
    layout = lay_out_tree(points, square)
    branch = choose_branch(layout)
    chosen = layout.leaves(branch)
    figure = new_figure(9, 5.7)
    figure.set_layout_engine("none")  # it would shrink the disks unequally
    left, right = (
        figure.add_axes((x, 0.14, 0.49, 0.755)) for x in (0.0, 0.505)
    )
    count, dimensions = points.vectors.shape
    shades = _Shades(column, _size(count) < _SMALL)

    reach = float(points.radius.max())
    _disk(left, max(reach, shown_cap(points, cap) or 0))
    if has_radius:  # else there is no scale
        _rings(left, layout, reach)
    if cap is not None and shown_cap(points, cap) is not None:
        _circle(left, cap, color="0.2", linestyle=":", linewidth=1.3)
        _ring_label(left, cap, f"cap {cap:.2f}", "0.2", np.exp(0.25j * np.pi))
    inside = np.isin(np.arange(2 * count - 1), [branch, *chosen])
    for node in range(branch - 1, count - 1, -1):
        inside[node] |= inside[layout.parent[node]]
    _tree(left, layout, inside)
    shades.draw(left, layout.disk[:count], np.arange(count), _size(count))

    moved = centred(select(points, chosen))
    inner = lay_out_tree(moved, square[np.ix_(chosen, chosen)])
    reach = float(moved.radius.max())
    _disk(right, 1.36 * reach)
    if has_radius:
        _rings(right, inner, reach)
    _tree(right, inner, np.ones(2 * len(chosen) - 1, bool))
    shades.draw(right, inner.disk[: len(chosen)], chosen, 48)
    if len(chosen) <= BRANCH[1]:
        _names(right, inner, [names[index] for index in chosen])
    by = f" by {column.name}" if column else ""
    for x, text in (
        (0.245, f"{count} speakers{by}"),
        (0.75, f"the branch in black, {len(chosen)} speakers"),
    ):
        figure.text(x, 0.9, text, fontsize=11, ha="center", parse_math=False)
    shades.legend(figure, right)
    nearest = min(_NEAREST, count - 1)
    kept = kept_neighbours(layout, square, nearest)
    figure.text(
        0.012,
        0.012,
        _explanation(dimensions, nearest, kept, has_radius),
        fontsize=9,
        linespacing=1.35,
    )
    if title:
        figure.text(0.012, 0.955, title, fontsize=12, parse_math=False)
    return figure


def _explanation(
    dimensions: int, nearest: int, kept: float, has_radius: bool
) -> str:
    place = (
        "Left: the distance from the origin is the speaker's hyperbolic "
        "radius, which is true; the angle is its place in the tree of the "
        f"hyperbolic distances in {dimensions} dimensions (average linkage)."
    )
    if not has_radius:
        place = (
            "Left: this head has no radius, all speakers are drawn at one; "
            "the angle is a speaker's place in the tree (average linkage) of "
            f"the distances at that radius in {dimensions} dimensions, which "
            "rank as the angles between centres do."
        )
    return textwrap.fill(
        f"{place} A node is at the radius of the midpoint of what is below "
        f"it. Of a speaker's {nearest} nearest, {100 * kept:.0f} % are among "
        f"its {nearest} nearest on the disk. Right: the same of the branch "
        "alone, after its midpoint has been moved to the origin, which keeps "
        f"all distances in {dimensions} dimensions.",
        134,
    )


class _Shades:
    """Colours, markers and the legend of a column."""

    def __init__(self, column: Column | None, many: bool) -> None:
        self.column = column
        self.many = many  # too small for markers to be told apart
        if column is not None and column.numbers is None:
            self.groups = column.groups()
            self.looks = {
                name: (colour, "o" if many else marker)
                for name, (colour, marker) in looks(self.groups).items()
            }

    def draw(
        self,
        axes: Axes,
        disk: np.ndarray,
        which: np.ndarray | slice,
        size: float,
    ) -> None:
        """Points, which are those speakers."""
        column = self.column
        edge = 0 if self.many and size < _SMALL else 0.5
        common = {"s": size, "edgecolors": "white", "linewidths": edge}
        if column is None:
            _scatter(axes, disk, c=COLOURS[0], **common)
        elif column.numbers is None and edge:
            for name, (colour, marker) in self.looks.items():
                z = disk[self.groups[name][which]]
                _scatter(axes, z, c=colour, marker=marker, **common)
        elif column.numbers is None:
            # All at once, or the last group would cover the others.
            colours = np.empty(len(disk), object)
            for name, (colour, _) in self.looks.items():
                colours[self.groups[name][which]] = colour
            _scatter(axes, disk, c=colours.tolist(), **common)
        else:
            numbers = column.numbers[which]
            known = ~np.isnan(numbers)
            _scatter(axes, disk[~known], c=GREY, marker="X", **common)
            _scatter(
                axes,
                disk[known],
                c=numbers[known],
                cmap=COLOUR_MAP,
                vmin=np.nanmin(column.numbers),
                vmax=np.nanmax(column.numbers),
                **common,
            )

    def legend(self, figure: Figure, axes: Axes) -> None:
        column = self.column
        if column is None:
            return
        if column.numbers is not None:
            bar = figure.colorbar(
                axes.collections[-1],
                cax=figure.add_axes((0.68, 0.973, 0.3, 0.016)),
                orientation="horizontal",
            )
            bar.ax.tick_params(labelsize=9, length=2, pad=2)
            label = column.name
            if np.isnan(column.numbers).any():
                label += f" (grey: {UNKNOWN})"
            figure.text(
                0.67, 0.97, label, fontsize=10, ha="right", parse_math=False
            )
            return
        handles = [
            Line2D(
                [],
                [],
                linestyle="",
                marker=marker,
                markersize=7,
                color=colour,
                markeredgecolor="white",
                label=f"{shorten(name)} ({self.groups[name].sum()})",
            )
            for name, (colour, marker) in self.looks.items()
        ]
        plain_text(
            figure.legend(
                handles=handles,
                loc="upper right",
                ncols=len(handles) if len(handles) < 4 else 4,
                frameon=False,
                fontsize=10 if len(handles) < 4 else 9,
                borderpad=0.2,
                handletextpad=0.2,
                columnspacing=1.2,
            )
        )


def shown_cap(points: Points, cap: float | None) -> float | None:
    """The cap, or None where it is too far out to be drawn.

    Arguments
    ---------
    points : Points
    cap : float or None

    Returns
    -------
    cap : float or None
    """
    if cap is None or cap > 2 * float(points.radius.max()):
        return None
    return cap


def _disk(axes: Axes, reach: float) -> None:
    edge = 1.08 * np.tanh(reach / 2)
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    axes.set_axis_off()
    axes.plot(0, 0, "+", color="0.6", markersize=6, zorder=0)


def _rings(axes: Axes, layout: TreeLayout, reach: float) -> None:
    """Circles at round distances from the origin: a scale."""
    for radius in MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(0, reach):
        if 0 < radius < reach:
            _circle(axes, radius, color="0.88", linewidth=0.8, zorder=0)
            spots = np.tanh(radius / 2) * _TURN[::4]
            room = abs(spots[:, None] - layout.disk).min(1)
            ray = _TURN[::4][np.argmax(room)]
            _ring_label(axes, radius, f"{radius:g}", "0.5", ray)


def _circle(axes: Axes, radius: float, **look: Any) -> None:
    z = np.tanh(radius / 2) * _TURN
    axes.plot(z.real, z.imag, **look)


def _ring_label(
    axes: Axes, radius: float, text: str, colour: str, ray: complex
) -> None:
    """Just outside the circle."""
    spot = (np.tanh(radius / 2) + 0.035 * axes.get_xlim()[1]) * ray
    turned = np.degrees(np.angle(spot)) - 90
    if spot.imag < 0:
        turned += 180
    axes.text(
        spot.real,
        spot.imag,
        text,
        fontsize=9,
        color=colour,
        rotation=turned,
        rotation_mode="anchor",
        ha="center",
        va="center",
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def _tree(axes: Axes, layout: TreeLayout, stressed: np.ndarray) -> None:
    """Edges as geodesics, black below a branch."""
    children = np.flatnonzero(layout.parent >= 0)
    lines = geodesics(
        layout.disk[children], layout.disk[layout.parent[children]]
    )
    lines = np.stack([lines.real, lines.imag], 2)
    black = stressed[children] & stressed[layout.parent[children]]
    faint = 0.7 if len(children) < 600 else 0.25
    for which, colour, width in (
        (~black, "0.72", faint),
        (black, "0.15", max(faint, 0.9)),
    ):
        axes.add_collection(
            LineCollection(lines[which], colors=colour, linewidths=width),
            autolim=False,
        )


def _scatter(axes: Axes, disk: np.ndarray, **look: Any) -> None:
    axes.scatter(disk.real, disk.imag, zorder=3, **look)


def _size(count: int) -> float:
    """Of a marker, in square points, so that many still fit."""
    return float(np.clip(4500 / count, 3, 42))


def _names(axes: Axes, layout: TreeLayout, names: Sequence[str]) -> None:
    """Outwards of each point, along its ray."""
    for index, name in enumerate(names):
        z = layout.disk[index]
        degrees = np.degrees(np.angle(z)) if z else 0.0
        flipped = abs(degrees) > 90
        gap = 7 * np.exp(1j * np.radians(degrees))
        axes.annotate(
            shorten(name, 12),
            (z.real, z.imag),
            (gap.real, gap.imag),
            textcoords="offset points",
            rotation=degrees + 180 * flipped,
            rotation_mode="anchor",
            ha="right" if flipped else "left",
            va="center",
            fontsize=10,
            parse_math=False,
        )
