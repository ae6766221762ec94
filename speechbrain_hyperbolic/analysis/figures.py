"""Histograms of radii, and what all figures share."""

import pathlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.evaluation.plots import COLORS
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
