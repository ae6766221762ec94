"""Detection error trade-off (DET) curves, and histograms of scores."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import ndtri
from sklearn.metrics import DetCurveDisplay

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.evaluation.metrics import (
    equal_error,
    error_rates,
    least_cost,
)

SHOWN = ndtri([0.001, 0.6])  # error rates, on the probit scale
# Okabe and Ito's palette without its yellow, too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
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
    """Draws DET curves of at most six name -> (target, nontarget scores).

    Each carries its EER point and its minDCF point, unless that is to accept or
    reject everything. A point beyond the plot sits on its edge.
    """
    figure, axes = _new_axes(22 / 3, title)
    labels = []
    for i, (name, scores) in enumerate(systems.items()):
        _, p_miss, p_fa = error_rates(*scores)
        equal, _ = equal_error(p_miss, p_fa)
        cost, cheapest = least_cost(p_miss, p_fa, p_target=0.01)
        labels.append(f"{name}: EER {100 * equal:.2f} %, minDCF {cost:.3f}")
        marks = {"EER": (equal, equal)}
        if max(p_fa[cheapest], p_miss[cheapest]) < 1:
            marks["minDCF(0.01)"] = p_fa[cheapest], p_miss[cheapest]
        # A step that is straight in the rates bends on the probit scale; this
        # keeps the EER on the line.
        rates = np.stack([p_fa, p_miss])
        rates = np.insert(rates, np.argmax(p_miss >= p_fa), equal, axis=1)
        DetCurveDisplay(fpr=rates[0], fnr=rates[1]).plot(axes, color=COLORS[i])
        for mark, point in marks.items():
            axes.plot(
                *ndtri(point).clip(*SHOWN),
                color=COLORS[i],
                markeredgecolor="white",
                clip_on=False,
                zorder=3,
                **MARKERS[mark],
            )
    handles = [line for line in axes.lines if line.get_marker() == "None"]
    for mark, look in MARKERS.items():
        handles.append(Line2D([], [], color="0.4", linestyle="", **look))
        labels.append(mark)
    axes.axline((0, 0), slope=1, color="0.6", linestyle="--")
    axes.set(xlim=SHOWN, ylim=SHOWN, xlabel="False alarms", ylabel="Misses")
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
    """Draws the densities of target and nontarget scores into a PNG file."""
    classes = {
        "target": np.asarray(target_scores),
        "nontarget": np.asarray(nontarget_scores),
    }
    # With many bins for few trials, the plot would show chance.
    fewest = min(scores.size for scores in classes.values())
    edges = np.histogram_bin_edges(
        np.concatenate(list(classes.values())),
        int(np.clip(fewest**0.5, 10, 100)),
    ).tolist()
    figure, axes = _new_axes(5, title)
    axes.set_xlabel(xlabel, parse_math=False)
    axes.set_ylabel("Density")
    for (name, scores), color in zip(classes.items(), COLORS, strict=False):
        label = f"{name}, {scores.size} trials"
        axes.hist(
            scores, edges, density=True, color=color, alpha=0.5, label=label
        )
    label = f"threshold {threshold:.4g}"
    axes.axvline(threshold, color="0.4", linestyle="--", label=label)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3)
    save_figure(figure, path)


def _new_axes(height: float, title: str) -> tuple[Figure, Axes]:
    figure = new_figure(8, height)
    axes = figure.add_subplot()
    # Names of files and systems are no formulas.
    axes.set_title(title, parse_math=False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    return figure, axes
