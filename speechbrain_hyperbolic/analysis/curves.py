"""Training curves of one or more runs."""

import os
import re
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from speechbrain_hyperbolic.analysis.figures import new_figure, plain_text
from speechbrain_hyperbolic.analysis.trained import Trained, differ_by_seed_only
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.plots import COLOURS, LINES


class _Panel(NamedTuple):
    title: str
    solid: str  # what it shows, by its name in the log
    dashed: str | None = None
    band: tuple[str, str] | None = None
    factor: float = 1


_PANELS = (
    _Panel("training loss", "train loss"),
    _Panel("validation loss", "valid loss"),
    _Panel("validation error (%)", "valid ErrorRate", factor=100),
    _Panel(
        "radius of centres\n(median, 5 to 95 %)",
        "train radius_centres_50",
        band=("train radius_centres_05", "train radius_centres_95"),
    ),
    _Panel(
        "radius of embeddings\n(median, 5 to 95 %)",
        "train radius_embeddings_50",
        band=("train radius_embeddings_05", "train radius_embeddings_95"),
    ),
    _Panel(
        "on the cap (%): embeddings (solid)\nand centres (dashed)",
        "train cap_embeddings",
        dashed="train cap_centres",
        factor=100,
    ),
)


class Curves(NamedTuple):
    """The logs of runs that differ by their seed only.

    Arguments
    ---------
    name : str
    logs : list of dict
        As ``read_log`` gives them; of a joint head those statistics that are
        to be drawn have no prefix.
    """

    name: str
    logs: list[dict]

    @property
    def epochs(self) -> np.ndarray:
        """Those of all runs, shape [E]."""
        return np.unique(np.concatenate([log["epoch"] for log in self.logs]))

    def values(self, name: str) -> np.ndarray:
        """A statistic of all runs.

        Arguments
        ---------
        name : str
            E.g. "valid loss".

        Returns
        -------
        values : np.ndarray
            Shape [runs, E]; NaN where there is none.
        """
        epochs = self.epochs
        values = np.full((len(self.logs), len(epochs)), np.nan)
        for row, log in zip(values, self.logs, strict=True):
            if name in log:
                row[np.searchsorted(epochs, log["epoch"])] = log[name]
        return values

    def mean(self, name: str) -> np.ndarray:
        """The mean over the runs that have the statistic, shape [E]."""
        values = self.values(name)
        count = (~np.isnan(values)).sum(0)
        total = np.nansum(values, 0)
        return np.where(count, total / np.maximum(count, 1), np.nan)


def group_by_seed(runs: list[Trained]) -> list[Curves]:
    """Joins runs that differ by their seed only.

    Arguments
    ---------
    runs : list of Trained

    Returns
    -------
    curves : list of Curves
        In the order of the first of each. The name of several is what their
        names begin with.
    """
    groups: list = []
    for run in runs:
        for group in groups:
            if differ_by_seed_only(group[0], run):
                group.append(run)
                break
        else:
            groups.append([run])
    return [
        Curves(_common_name([run.name for run in group]), logs)
        for group in groups
        for logs in [[_without_prefix(run.log, run.prefix) for run in group]]
    ]


def _common_name(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    start = re.sub(
        r"[-_./ ]+(seed|s)?[-_. ]*$", "", os.path.commonprefix(names)
    )
    return f"{start or names[0]} ({len(names)} seeds)"


def _without_prefix(
    log: dict[str, np.ndarray], prefix: str
) -> dict[str, np.ndarray]:
    if not prefix:
        return log
    return {n.replace(f"train {prefix}", "train "): v for n, v in log.items()}


def draw_curves(curves: list[Curves], title: str | None = None) -> Figure:
    """Draws what the logs say, epoch by epoch.

    Losses, the error rate on validation crops, and of hyperbolic heads the
    radii and the shares on the cap. Of several seeds it's the mean, and thin
    lines are the single runs. Panels for which no run has anything are left
    out.

    Arguments
    ---------
    curves : list of Curves
    title : str

    Returns
    -------
    figure : matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is nothing to draw.

    Example
    -------
    >>> log = {"epoch": np.arange(1.0, 4), "valid loss": np.ones(3)}
    >>> figure = draw_curves([Curves("ham", [log])])
    >>> figure.savefig(getfixture("tmpdir") / "curves.png")
    """
    panels = [
        panel
        for panel in _PANELS
        if any(np.isfinite(c.mean(panel.solid)).any() for c in curves)
    ]
    if not panels:
        raise InputError("no log has a loss, an error rate or a radius")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.2 * columns, 0.6 + 2.7 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    handles: dict = {}
    for axes, panel in zip(grid, panels, strict=False):
        axes.set_title(panel.title, fontsize=10)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for index, curve in enumerate(curves):
            look = {
                "color": COLOURS[index % len(COLOURS)],
                "linestyle": LINES[index // len(COLOURS) % len(LINES)],
            }
            line = _draw_curve(axes, panel, curve, look)
            handles.setdefault(curve.name, line)
        # A line at 0 is not to be lost in the frame.
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("epoch")
    legend = figure.legend(
        list(handles.values()),
        list(handles.keys()),
        loc="outside lower center",
        ncols=min(4, len(handles)),
        frameon=False,
    )
    plain_text(legend)
    if title:
        figure.suptitle(title, fontsize=12).set_parse_math(False)
    return figure


def _draw_curve(
    axes: Axes, panel: _Panel, curve: Curves, look: dict[str, Any]
) -> Line2D:
    epochs = curve.epochs
    if len(curve.logs) > 1:
        for values in curve.values(panel.solid):
            axes.plot(
                epochs, panel.factor * values, **look, linewidth=0.6, alpha=0.5
            )
    if panel.band:
        low, high = (panel.factor * curve.mean(name) for name in panel.band)
        axes.fill_between(
            epochs, low, high, color=look["color"], alpha=0.18, linewidth=0
        )
    if panel.dashed:
        values = panel.factor * curve.mean(panel.dashed)
        axes.plot(epochs, values, color=look["color"], linestyle="--")
    values = panel.factor * curve.mean(panel.solid)
    # A single epoch is a point, which a line would not show.
    marker = "o" if len(epochs) == 1 else ""
    (line,) = axes.plot(epochs, values, marker=marker, **look)
    return line
