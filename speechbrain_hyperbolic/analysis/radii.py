"""Histograms of hyperbolic radii."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speechbrain_hyperbolic.analysis.figures import (
    looks,
    new_figure,
    plain_text,
    shorten,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.plots import COLOURS, LINES
from speechbrain_hyperbolic.statistics import CAP_TOLERANCE

_FILLED = 3  # histograms: of more, the fillings say nothing


def draw_radii(
    panels: dict, cap: float | None = None, title: str | None = None
) -> Figure:
    """Draws histograms of radii, one panel for each kind of point.

    The bars are shares of a group: groups of any size compare. Each group's
    median is a line.

    Arguments
    ---------
    panels : dict
        What the points are, e.g. "centres" -> (radii, groups): radii of
        shape [N] in units of curvature -1; groups, name -> which, bool, shape
        [N], or an empty dict for one histogram of all.
    cap : float
        Largest radius that the map allows: a line, where the radii come
        within half of it; None: none.
    title : str

    Returns
    -------
    figure : matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there are no points, or a radius is not finite.

    Example
    -------
    >>> figure = draw_radii({"centres": ([0.5, 1, 1.2], {})}, cap=1.317)
    >>> figure.savefig(getfixture("tmpdir") / "radii.png")
    """
    panels = {
        name: (np.asarray(radii, float), groups)
        for name, (radii, groups) in panels.items()
    }
    for name, (radii, _) in panels.items():
        if not (radii.size and np.isfinite(radii).all()):
            raise InputError(f"the {name} have no radii, or not finite ones")
    largest = max(radii.max() for radii, _ in panels.values())
    if cap is not None and cap > 2 * largest:
        cap = None
    lines = sum(len(groups) + 1 for _, groups in panels.values()) // 2
    figure = new_figure(8, 0.8 + 2.7 * len(panels) + 0.25 * lines)
    rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, (radii, groups)) in zip(rows, panels.items(), strict=True):
        _draw_panel(axes, name, radii, groups, cap)
        axes.set_xlim(right=1.02 * max(largest, cap or 0))
    label = "hyperbolic radius (curvature -1)"
    if cap is not None:
        label += f"; dotted: the cap, {cap:.2f}"
    rows[-1].set_xlabel(label)
    if title:
        figure.suptitle(title, fontsize=12).set_parse_math(False)
    return figure


def _draw_panel(
    axes: Axes,
    name: str,
    radii: np.ndarray,
    groups: dict[str, np.ndarray],
    cap: float | None,
) -> None:
    low, high = radii.min(), radii.max()
    if high - low < 0.01 * high:  # all on the cap
        low = 0.9 * high
    smallest = min(
        (which.sum() for which in groups.values()), default=len(radii)
    )
    bins = int(np.clip(smallest**0.5 * 1.5, 8, 60))
    edges = np.linspace(low, np.nextafter(high, np.inf) or 1, bins + 1)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    kinds = {"all": (COLOURS[0], "o")}
    if groups:
        kinds = looks(groups)
    for (group, (colour, _)), style in zip(
        kinds.items(), LINES * 2, strict=False
    ):
        values = radii[groups[group]] if groups else radii
        share = 100 * np.histogram(values, edges)[0] / len(values)
        label = (
            f"{shorten(group)}: {len(values)}, median {np.median(values):.2f}"
        )
        if cap is not None:
            on_cap = 100 * np.mean(values >= cap * (1 - CAP_TOLERANCE))
            label += f", {on_cap:.0f} % on the cap"
        if len(kinds) <= _FILLED:
            axes.stairs(share, edges, color=colour, alpha=0.18, fill=True)
        axes.stairs(
            share,
            edges,
            color=colour,
            linewidth=1.6,
            linestyle=style,
            label=label,
        )
        axes.axvline(
            np.median(values), color=colour, linestyle=style, linewidth=1
        )
    if cap is not None:
        axes.axvline(cap, color="0.2", linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"share of the {name} (%)", fontsize=10)
    plain_text(
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1),
            ncols=2,
            frameon=False,
            fontsize=9,
        )
    )
