"""Training curves and histograms of radii, and what all figures share."""

import pathlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.plots import COLORS, LINES
from speechbrain_hyperbolic.training.monitor import CAP_TOLERANCE


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, without pyplot's global state."""
    return Figure((width, height), dpi=150, layout="constrained")


def add_legend(axes: Axes, columns: int, title: str = "") -> None:
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


def save_figure(figure: Figure, path: pathlib.Path) -> pathlib.Path:
    """Writes a PNG file, which appears once it is complete."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


_PANELS = {
    "training loss": "train loss",
    "validation loss": "valid loss",
    "validation error (%)": "valid ErrorRate",
    "median radius of centers": "train radius_centers_50",
    "median radius of embeddings": "train radius_embeddings_50",
    "centers on the cap (%)": "train cap_centers",
    "embeddings on the cap (%)": "train cap_embeddings",
}


def draw_curves(logs: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Draws the logs of runs, epoch by epoch, in the panels that have data."""
    known = {name for log in logs.values() for name in log}
    panels = {title: key for title, key in _PANELS.items() if key in known}
    if not panels:
        raise InputError("no log has a loss, an error rate or a radius")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.2 * columns, 0.6 + 2.7 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (title, key) in zip(grid, panels.items(), strict=False):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(color="0.9")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for index, (name, log) in enumerate(logs.items()):
            values = log.get(key, np.full(len(log["epoch"]), np.nan))
            axes.plot(
                log["epoch"],
                100 * values if title.endswith("(%)") else values,
                color=COLORS[index % len(COLORS)],
                linestyle=LINES[index // len(COLORS) % len(LINES)],
                marker="o" if len(values) == 1 else "",
                label=name,
            )
        # A line at 0 should not be lost in the frame.
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
    add_legend(grid[0], 4)
    return figure


def draw_radii(
    radii: dict[str, np.ndarray], cap: float, title: str = ""
) -> Figure:
    """Draws a histogram of radii and their median for each kind of points."""
    figure = new_figure(8, 4)
    axes = figure.add_subplot()
    every = np.concatenate(list(radii.values()))
    low, high = every.min(), every.max()
    if high - low < 0.01 * high:  # all on the cap
        low = 0.9 * high
    edges = np.linspace(low, np.nextafter(high, np.inf) or 1, 41)
    for (kind, values), color in zip(radii.items(), COLORS, strict=False):
        median = np.median(values)
        on_cap = np.mean(values >= cap * (1 - CAP_TOLERANCE))
        label = f"{kind}: median {median:.2f}, {on_cap:.0%} on the cap"
        share = 100 * np.histogram(values, edges)[0] / len(values)
        axes.stairs(share, edges, color=color, linewidth=1.6, label=label)
        axes.axvline(median, color=color, linewidth=1)
    if cap < 2 * high:
        label = f"cap of the radius, {cap:.2f}"
        axes.axvline(cap, color="0.85", lw=4, zorder=0, label=label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("share (%)")
    axes.set_xlabel("hyperbolic radius (curvature -1)")
    axes.set_title(title, parse_math=False)
    axes.legend(fontsize=9)
    return figure
