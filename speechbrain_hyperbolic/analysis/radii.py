"""Histograms of radii."""

import numpy as np
from matplotlib.figure import Figure

from speechbrain_hyperbolic.evaluation.plots import COLORS, new_figure
from speechbrain_hyperbolic.training.monitor import CAP_TOLERANCE


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
