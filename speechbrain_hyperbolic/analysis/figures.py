"""Training curves and histograms of radii, and what all figures share."""

import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from speechbrain_hyperbolic.analysis.columns import Column
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.plots import COLORS, LINES
from speechbrain_hyperbolic.training.monitor import CAP_TOLERANCE


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, without pyplot's global state."""
    figure = Figure((width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_legend(axes: Axes, columns: int, title: str = "") -> None:
    """Puts a legend below the figure; names in it are not formulas."""
    handles, labels = axes.get_legend_handles_labels()
    legend = axes.figure.legend(
        handles,
        [text if len(text) <= 32 else f"{text[:31]}…" for text in labels],
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        frameon=False,
        columnspacing=1.2,
        handlelength=1.6,
        title=title,
        title_fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def save_figure(figure: Figure, path: pathlib.Path) -> pathlib.Path:
    """Writes a PNG file, which appears once it is complete."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


class _Panel(NamedTuple):
    """What to draw of a log: a line, and a dashed line or a band about it."""

    title: str
    names: tuple[str, ...]
    factor: float = 1


_PANELS = (
    _Panel("training loss", ("train loss",)),
    _Panel("validation loss", ("valid loss",)),
    _Panel("validation error (%)", ("valid ErrorRate",), 100),
    *(
        _Panel(
            f"radius of {what}\n(median, 5 to 95 %)",
            tuple(f"train radius_{what}_{q}" for q in ("50", "05", "95")),
        )
        for what in ("centers", "embeddings")
    ),
    _Panel(
        "on the cap (%): embeddings (solid)\nand centers (dashed)",
        ("train cap_embeddings", "train cap_centers"),
        100,
    ),
)


def draw_curves(logs: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Draws the logs of runs, epoch by epoch, in the panels that have data.

    >>> log = {"epoch": np.arange(1.0, 4), "valid loss": np.ones(3)}
    >>> draw_curves({"ham": log}).savefig(getfixture("tmpdir") / "curves.png")
    """
    known = {name for log in logs.values() for name in log}
    panels = [panel for panel in _PANELS if panel.names[0] in known]
    if not panels:
        raise InputError("no log has a loss, an error rate or a radius")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.2 * columns, 0.6 + 2.7 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, panel in zip(grid, panels, strict=False):
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(color="0.9")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for index, (name, log) in enumerate(logs.items()):
            look = {
                "color": COLORS[index % len(COLORS)],
                "linestyle": LINES[index // len(COLORS) % len(LINES)],
            }
            _draw_curve(axes, panel, log, name, look)
        # A line at 0 should not be lost in the frame.
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
    add_legend(grid[0], 4)
    return figure


def _draw_curve(
    axes: Axes, panel: _Panel, log: dict, name: str, look: dict
) -> None:
    epochs = log["epoch"]
    nothing = np.full(len(epochs), np.nan)
    line, *others = (panel.factor * log.get(n, nothing) for n in panel.names)
    # A line does not show a single epoch.
    marker = "o" if len(epochs) == 1 else ""
    axes.plot(epochs, line, marker=marker, label=name, **look)
    if len(others) == 2:
        axes.fill_between(epochs, *others, color=look["color"], alpha=0.18)
    elif others:
        axes.plot(epochs, others[0], "--", color=look["color"])


def draw_radii(
    panels: dict[str, tuple[np.ndarray, Column | None]],
    cap: float | None = None,
    title: str = "",
) -> Figure:
    """Draws histograms of radii, of each group's share in per cent.

    A panel's name says what the points are; with it come their radii [N] and a
    column of N values whose groups are drawn apart, None for one group. A line
    is a group's median.

    >>> figure = draw_radii({"centers": (np.arange(3.0), None)}, cap=1.317)
    >>> figure.savefig(getfixture("tmpdir") / "radii.png")
    """
    figure = new_figure(8, 0.8 + 3.2 * len(panels))
    rows = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
    for axes, (name, (radii, column)) in zip(rows, panels.items(), strict=True):
        groups, styles = np.full(len(radii), "all"), {"all": (COLORS[0], "")}
        if column:
            groups, styles = column.groups, column.styles
        low, high = radii.min(), radii.max()
        if high - low < 0.01 * high:  # all on the cap
            low = 0.9 * high
        bins = int(np.clip(1.5 * len(radii) ** 0.5 / len(styles), 8, 60))
        edges = np.linspace(low, np.nextafter(high, np.inf) or 1, bins + 1)
        for (group, (color, _)), style in zip(
            styles.items(), 2 * LINES, strict=False
        ):
            values = radii[groups == group]
            median = np.median(values)
            label = f"{group}: {len(values)}, median {median:.2f}"
            if cap:
                on_cap = np.mean(values >= cap * (1 - CAP_TOLERANCE))
                label += f", {on_cap:.0%} on the cap"
            share = 100 * np.histogram(values, edges)[0] / len(values)
            look = {"color": color, "linestyle": style}
            axes.stairs(share, edges, linewidth=1.6, label=label, **look)
            axes.axvline(median, linewidth=1, **look)
        if cap and cap < 2 * high:
            label = f"cap of the radius, {cap:.2f}"
            axes.axvline(cap, color="0.85", lw=4, zorder=0, label=label)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"share of the {name} (%)")
        for text in axes.legend(fontsize=9).get_texts():
            text.set_parse_math(False)
    rows[-1].set_xlabel("hyperbolic radius (curvature -1)")
    figure.suptitle(title, fontsize=12).set_parse_math(False)
    return figure
