"""Detection error trade-off (DET) curves, and histograms of scores."""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import ndtri

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.evaluation.metrics import (
    equal_error,
    error_rates,
    least_cost,
)

PERCENT = np.array(
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    + [30, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9]
)
# Okabe and Ito's palette without its yellow, too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LINES = ("-", "--", ":", "-.")
# Of different sizes, to see both where they coincide.
MARKERS: dict[str, dict[str, Any]] = {
    "EER": {"marker": "o", "markersize": 10},
    "minDCF(0.01)": {"marker": "D", "markersize": 6.5},
}


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, without pyplot's global state."""
    return Figure((width, height), dpi=150, layout="constrained")


def save_figure(figure: Figure, path: StrPath) -> None:
    """Writes a PNG file, which appears once it is complete."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def plot_det(systems: dict, path: StrPath, title: str) -> None:
    """Draws the DET curves of systems into a PNG file.

    ``systems`` maps names to (target_scores, nontarget_scores). Both axes are
    on the probit scale, where normally distributed scores give straight lines
    (Martin et al., "The DET curve in assessment of detection task
    performance", Eurospeech 1997). Each curve carries its EER point and its
    minDCF point for p_target = 0.01, unless that is to accept or reject
    everything. A point with a rate of zero sits on the edge of the plot.
    """
    height = 22 / 3 + 0.2 * max(0, len(systems) - 4)
    figure, axes = _new_axes(height, title, "False alarms (%)", "Misses (%)")
    curves = {name: _curve(*scores) for name, scores in systems.items()}
    low, high = _limits(curves.values())
    ticks = ndtri(PERCENT / 100)
    axes.set_xticks(ticks, [f"{percent:g}" for percent in PERCENT])
    axes.set_yticks(ticks, [f"{percent:g}" for percent in PERCENT])
    axes.set_xlim(ndtri([low[0], high[0]]))
    axes.set_ylim(ndtri([low[1], high[1]]))
    axes.plot(ticks, ticks, color="0.6", linestyle="--")

    handles, labels = [], []
    for i, (name, curve) in enumerate(curves.items()):
        color = COLORS[i % len(COLORS)]
        style = LINES[i // len(COLORS) % len(LINES)]
        handles += axes.plot(*curve["line"], color=color, linestyle=style)
        labels.append(f"{name}: {curve['summary']}")
        for mark, point in curve["marks"].items():
            axes.plot(
                *ndtri(np.clip(point, low, high)),
                color=color,
                markeredgecolor="white",
                clip_on=False,
                zorder=3,
                **MARKERS[mark],
            )
    for mark, look in MARKERS.items():
        handles.append(Line2D([], [], color="0.4", linestyle="", **look))
        labels.append(mark)
    legend = figure.legend(handles, labels, loc="outside lower center")
    for text in legend.get_texts():
        text.set_parse_math(False)
    save_figure(figure, path)


def plot_score_histogram(
    target_scores: npt.ArrayLike,
    nontarget_scores: npt.ArrayLike,
    path: StrPath,
    title: str,
    threshold: float,
    xlabel: str,
) -> None:
    """Draws the histograms of target and nontarget scores into a PNG file.

    Each is a density, whatever the number of trials; both have the same bins.
    """
    classes = {
        "target": np.asarray(target_scores),
        "nontarget": np.asarray(nontarget_scores),
    }
    # With many bins for few trials, the plot would show chance.
    fewest = min(scores.size for scores in classes.values())
    edges = np.histogram_bin_edges(
        np.concatenate(list(classes.values())),
        int(np.clip(fewest**0.5, 10, 100)),
    )
    figure, axes = _new_axes(5, title, xlabel, "Density")
    for (name, scores), color in zip(classes.items(), COLORS, strict=False):
        density, _ = np.histogram(scores, edges, density=True)
        label = f"{name}, {scores.size} trials"
        axes.stairs(density, edges, color=color, alpha=0.25, fill=True)
        axes.stairs(density, edges, color=color, linewidth=1.5, label=label)
    label = f"threshold {threshold:.4g}"
    axes.axvline(threshold, color="0.4", linestyle="--", label=label)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3)
    save_figure(figure, path)


def _new_axes(
    height: float, title: str, xlabel: str, ylabel: str
) -> tuple[Figure, Axes]:
    figure = new_figure(8, height)
    axes = figure.add_subplot()
    # Names of files and systems are no formulas.
    axes.set_xlabel(xlabel, parse_math=False)
    axes.set_ylabel(ylabel)
    axes.set_title(title, parse_math=False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    return figure, axes


def _curve(
    target_scores: npt.ArrayLike, nontarget_scores: npt.ArrayLike
) -> dict[str, Any]:
    """What is drawn of one system; each point is (p_fa, p_miss)."""
    _, p_miss, p_fa = error_rates(target_scores, nontarget_scores)
    rates = np.stack([p_fa, p_miss])
    equal, _ = equal_error(p_miss, p_fa)
    cost, cheapest = least_cost(p_miss, p_fa, p_target=0.01)
    best = rates[:, cheapest]
    marks: dict[str, Any] = {"EER": (equal, equal)}
    if best.max() < 1:
        marks["minDCF(0.01)"] = best
    # A step that is straight in the rates bends on the probit scale; this
    # keeps the EER on the line.
    rates = np.insert(rates, np.argmax(p_miss >= p_fa), equal, axis=1)
    return {
        "line": ndtri(np.clip(rates, 1e-9, 1 - 1e-9)),
        "marks": marks,
        "sizes": (np.size(nontarget_scores), np.size(target_scores)),
        "summary": f"EER {100 * equal:.2f} %, minDCF {cost:.3f}",
    }


def _limits(curves: Collection[dict[str, Any]]) -> tuple[np.ndarray, ...]:
    """The lowest and the highest (p_fa, p_miss) to show, both ticks."""
    sizes = np.max([curve["sizes"] for curve in curves], axis=0)
    marks = np.array([p for c in curves for p in c["marks"].values()])
    # Fewer than five errors say little about a rate.
    lowest = [*np.where(marks > 0, 0.9 * marks, 1), 5 / sizes, [0.01, 0.01]]
    highest = [*np.where(marks < 1, 0.1 + 0.9 * marks, 0), [0.5, 0.5]]
    ticks = PERCENT / 100
    below = np.searchsorted(ticks, np.min(lowest, axis=0), side="right") - 1
    above = np.searchsorted(ticks, np.max(highest, axis=0))
    return ticks[below.clip(0)], ticks[above.clip(max=len(ticks) - 1)]
