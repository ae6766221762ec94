"""The tables and the plot, from the cells' results alone."""

import json
import statistics
from collections import Counter

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.draws import (
    P_TARGET,
    UNIT,
    Runs,
    difference,
    interval,
    over_draws,
)
from benchmarks.losses.scoring import SUBSETS
from benchmarks.losses.systems import SYSTEMS, is_hyperbolic
from benchmarks.measure import row, title
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.plots import COLOURS

METRICS = {"eer": 100, "min_dcf": 1}  # and what they are multiplied by
BASELINES = ("am", "aam")
HEADINGS = {
    "all": "EER %",
    "same_sex": "same sex",
    "same_age_group": "same age group",
}


def write(results, plot=None, baselines=BASELINES):
    """Prints a table for each set of trials, and draws the plot.

    Arguments
    ---------
    results : list of dict
        As ``cells.read_results`` gives them.
    plot : str
        Path of a PNG: of the results on the test speakers. None: no plot.
    baselines : list of str
        Systems that the others are compared with, on the test speakers.
    """
    settings = {json.dumps(r["settings"]["features"]) for r in results}
    if len(settings) > 1:
        raise InputError(
            "the results are of several corpora: give those of one at a time"
        )
    on_test = [r for r in results if r["fold"] is None]
    on_folds = [r for r in results if r["fold"] is not None]
    if on_folds:
        table("Held-out training speakers, to choose by", on_folds)
    if on_test:
        table("Test speakers", on_test)
        differences(on_test, baselines)
        provenance(on_test)
        if plot:
            draw(on_test, plot)


def by_system(results):
    """System -> {(seed, fold): result}, the systems in the order of ours."""
    found = {}
    for result in results:
        cells = found.setdefault(result["system"], {})
        cells[result["seed"], result["fold"]] = result
    order = {name: number for number, name in enumerate(SYSTEMS)}
    return dict(sorted(found.items(), key=lambda item: order[item[0]]))


def runs(cells, subset, metric, keys=None):
    """What cells have found, as arrays."""
    chosen = [cells[key] for key in keys or sorted(cells, key=str)]
    factor = METRICS[metric]
    values = np.array([c["metrics"][subset][metric] for c in chosen])
    drawn = np.array([c["draws"][subset][metric] for c in chosen], float)
    return Runs(values * factor, drawn * (UNIT * factor))


def table(heading, results):
    """Means over seeds, their standard deviation, intervals."""
    systems = by_system(results)
    any_cell = results[0]
    subsets = [s for s in SUBSETS if s in any_cell["metrics"]]
    counts = any_cell["metrics"]["all"]
    size = (
        f", {counts['n_target']} target and {counts['n_nontarget']} nontarget"
        if any_cell["fold"] is None
        else ""
    )
    title(
        f"{heading}: {any_cell['corpus']}, all pairs{size}",
        "loss",
        "cells",
        *(HEADINGS[s] for s in subsets),
        f"minDCF({P_TARGET})",
    )
    for name, cells in systems.items():
        figures = [_figure(runs(cells, s, "eer"), 2) for s in subsets]
        figures.append(_figure(runs(cells, "all", "min_dcf"), 3))
        row(SYSTEMS[name].title, len(cells), *figures)


def _figure(found, digits):
    low, high = interval(over_draws(found)[0])
    text = f"{found.values.mean():.{digits}f}"
    if len(found.values) > 1:
        text += f" ± {statistics.stdev(found.values):.{digits}f}"
    return f"{text} ({low:.{digits}f}–{high:.{digits}f})"


def differences(results, baselines):
    """EER relative to the baselines, seed by seed and speaker by speaker."""
    systems = by_system(results)
    baselines = [name for name in baselines if name in systems]
    subsets = [s for s in SUBSETS if s in results[0]["metrics"]]
    for subset in subsets:
        title(
            f"EER against it, relative, {subset.replace('_', ' ')} trials",
            "loss",
            *(f"{SYSTEMS[name].title}, p" for name in baselines),
        )
        for name in systems:
            texts = [
                _difference(systems[base], systems[name], subset)
                if name != base
                else ""
                for base in baselines
            ]
            row(SYSTEMS[name].title, *texts)


def _difference(base, other, subset):
    shared = sorted(base.keys() & other.keys(), key=str)
    if not shared:
        return "no seed in common"
    return difference(
        *(runs(cells, subset, "eer", shared) for cells in (base, other))
    )


def provenance(results):
    """Who made this, where and in what time."""
    # Of cells that were not interrupted
    seconds = [r["seconds"] for r in results if r["seconds"]] or [0]
    commits = sorted({result["commit"] for result in results})
    print(
        f"\n{len(results)} cells, median {statistics.median(seconds) / 60:.1f} "
        f"minutes on one thread each, longest {max(seconds) / 60:.1f}; commit "
        f"{', '.join(commits)}"
    )
    for line in sorted({result["machine"] for result in results}):
        print(line)
    made = Counter(r.get("features", "not recorded") for r in results)
    counts = (f"{key} ({count} cells)" for key, count in sorted(made.items()))
    print(f"features: {', '.join(counts)}")


def draw(results, path):
    """EER of each loss: its seeds, their mean, the interval over speakers."""
    systems = by_system(results)
    order = sorted(
        systems, key=lambda s: -runs(systems[s], "all", "eer").values.mean()
    )
    figure = Figure(
        figsize=(8, 1.2 + 0.3 * len(order)), dpi=150, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for height, name in enumerate(order):
        found = runs(systems[name], "all", "eer")
        colour = COLOURS[1 if is_hyperbolic(name) else 0]
        low, high = interval(over_draws(found)[0])
        axes.plot([low, high], [height] * 2, color=colour, linewidth=1.5)
        axes.plot(
            found.values,
            [height] * len(found.values),
            "o",
            color=colour,
            alpha=0.5,
            markersize=4,
        )
        axes.plot(found.values.mean(), height, "|", color=colour, markersize=14)
    axes.set_yticks(range(len(order)), [SYSTEMS[name].title for name in order])
    axes.set_xlabel("EER %, all pairs of test utterances (cosine)")
    axes.grid(axis="x", alpha=0.3)
    marks = [
        Line2D([], [], color=COLOURS[1], label="hyperbolic"),
        Line2D([], [], color=COLOURS[0], label="Euclidean"),
        Line2D(
            [], [], marker="o", alpha=0.5, color="gray", ls="", label="seed"
        ),
        Line2D(
            [], [], marker="|", color="gray", ls="", markersize=12, label="mean"
        ),
        Line2D([], [], color="gray", label="95 %, speakers and seeds"),
    ]
    axes.legend(handles=marks, fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
