"""The tables and the plots, from the results and the scores of the cells."""

import collections
import csv
import functools
import json
import pathlib
import statistics

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.losses import draws, features
from benchmarks.losses.cells import SCORES, read_results
from benchmarks.losses.systems import find_system, is_hyperbolic
from benchmarks.losses.training import select
from benchmarks.losses.trials import make_trials
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.metrics import markdown
from speechbrain_hyperbolic.evaluation.plots import COLORS


def write(options):
    """Prints a table for each group of results that can be compared."""
    results = read_results(options.results)
    find = Draws(options.condition)
    groups = collections.defaultdict(list)
    for result in results:
        groups[_group(result)].append(result)
    for group in groups.values():
        table(group, options.against, options.condition, find)
    if options.csv:
        write_csv(results, options.csv)
    on_test = [r for r in results if r["fold"] is None]
    for path, draw in ((options.plot, plot), (options.growth, growth)):
        if path:
            draw(on_test, options.against, options.condition, find, path)


def _group(result):
    """What results must share to stand in one table."""
    settings = dict(result["settings"])
    del settings["hparams"], settings["overrides"]
    on_folds = result["fold"] is not None
    return json.dumps([settings, on_folds, result["classes"]], sort_keys=True)


class Draws:
    """EERs of a cell over draws of speakers, made once from its scores."""

    def __init__(self, condition):
        self.condition = condition
        self.trials = functools.cache(self._trials)

    def _trials(self, work_folder, fold):
        rows = features.read(work_folder).rows
        return make_trials(select(rows, fold)[2])

    def __call__(self, result):
        """Shape [replicates]; None without scores or with few speakers."""
        folder = result["folder"]
        if not (folder / SCORES).is_file():
            return None
        path = folder / f"draws-{self.condition}.npy"
        if not path.is_file():
            trials = self.trials(folder.parents[1], result["fold"])
            if not draws.enough_speakers(trials):
                return None
            mask = trials.conditions[self.condition]
            scores = np.load(folder / SCORES)[mask]
            a, b = trials.a[mask], trials.b[mask]
            drawn = draws.draw_eers(scores, a, b, trials.n_speakers)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, drawn)
        return np.load(path)


def by_system(results):
    """System -> {(seed, fold): result}."""
    systems = collections.defaultdict(dict)
    for result in results:
        key = result["seed"], -1 if result["fold"] is None else result["fold"]
        systems[result["system"]][key] = result
    return systems


def eers(cells, keys, condition, find):
    """EERs in % of some cells, and their draws where all have them."""
    chosen = [cells[key] for key in keys]
    if not all(condition in cell["metrics"] for cell in chosen):
        raise InputError(
            f"there is no condition {condition} in these results: expected one "
            f"of {', '.join(chosen[0]['metrics'])}"
        )
    values = [100 * cell["metrics"][condition]["eer"] for cell in chosen]
    drawn = [find(cell) for cell in chosen]
    if any(of is None for of in drawn):
        return values, None
    return values, 100 * np.array(drawn)


def compare(base, other, condition, find):
    """``draws.difference`` over the seeds that two systems share."""
    keys = sorted(base.keys() & other.keys())
    if not keys:
        return None
    (values, drawn), (others, others_drawn) = (
        eers(cells, keys, condition, find) for cells in (base, other)
    )
    return draws.difference(values, others, drawn, others_drawn)


def table(results, against, condition, find):
    """Means over seeds of each condition's EER, and the differences."""
    first = results[0]
    conditions = list(first["metrics"])
    counts = "; ".join(
        f"{name} {of['n_target']} + {of['n_nontarget']}"
        for name, of in first["metrics"].items()
    )
    common = first["settings"]["common"]
    print(
        f"\n### {first['classes'] or 'All'} classes, trials of "
        f"{'test' if first['fold'] is None else 'held-out training'} speakers"
        f"\n\n{', '.join(f'{k} {v}' for k, v in common.items())}; features "
        f"{first['settings']['features']['digest']}. Target and impostor "
        f"trials: {counts}.\n"
    )
    systems = by_system(results)
    headings = [f"{name}, EER %" for name in conditions]
    rows = []
    for name, cells in sorted(systems.items()):
        line = {"system": find_system(name).title, "cells": len(cells)}
        line["training accuracy"] = _mean(
            [cell["train_accuracy"] for cell in cells.values()], 3
        )
        for c, heading in zip(conditions, headings, strict=True):
            values = [100 * x["metrics"][c]["eer"] for x in cells.values()]
            line[heading] = _mean(values, 2)
        found = name != against and against in systems
        found = found and compare(systems[against], cells, condition, find)
        key = f"{condition} against {against}"
        line[key] = draws.in_words(*found) if found else ""
        rows.append(line)
    print_table(rows)
    seconds = [r["seconds"] for r in results if r["seconds"]] or [0]
    print(
        f"\n{len(results)} cells, median {statistics.median(seconds) / 60:.1f} "
        f"minutes, longest {max(seconds) / 60:.1f}; commit "
        f"{', '.join(sorted({r['commit'] for r in results}))}."
    )
    for line in sorted({r["machine"] for r in results}):
        print(line)


def _mean(values, digits):
    text = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def print_table(rows):
    """Dicts with the same keys as a Markdown table."""
    print(markdown([list(rows[0]), *([*map(str, r.values())] for r in rows)]))


def write_csv(results, path):
    """A row for each cell, without its scores."""
    lines = []
    for result in results:
        line = {k: v for k, v in result.items() if not isinstance(v, dict)}
        del line["folder"]
        line["overrides"] = json.dumps(result["settings"]["overrides"])
        for condition, of in result["metrics"].items():
            line |= {f"{condition}_{k}": f"{v:.6g}" for k, v in of.items()}
        lines.append(line)
    names = dict.fromkeys(name for line in lines for name in line)
    with atomic_path(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(lines)


def _figure(height, xlabel):
    figure = Figure(figsize=(8, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.set_xlabel(xlabel)
    return figure, axes


def _save(figure, path):
    with atomic_path(pathlib.Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def plot(results, against, condition, find, path):
    """Of all classes: each system's seeds, their mean and its interval."""
    del against
    systems = by_system([r for r in results if r["classes"] is None])
    found = {
        name: eers(cells, sorted(cells), condition, find)
        for name, cells in systems.items()
    }
    order = sorted(found, key=lambda name: -np.mean(found[name][0]))
    label = f"EER %, {condition} (hyperbolic in orange)"
    figure, axes = _figure(1.2 + 0.3 * len(order), label)
    for height, name in enumerate(order):
        values, drawn = found[name]
        color = COLORS[int(is_hyperbolic(name))]
        if drawn is not None:
            bounds = draws.interval(draws.over_seeds(drawn)[0])
            axes.plot(bounds, [height] * 2, color=color)
        heights = [height] * len(values)
        axes.plot(values, heights, "o", color=color, alpha=0.5, markersize=4)
        axes.plot(np.mean(values), height, "|", color=color, markersize=14)
    titles = [find_system(name).title for name in order]
    axes.set_yticks(range(len(order)), titles)
    _save(figure, path)


def growth(results, against, condition, find, path):
    """How a system's difference changes with the number of classes."""
    figure, axes = _figure(5, "training speakers")
    curves = collections.defaultdict(list)
    sizes = sorted({result["speakers"] for result in results})
    for size in sizes:
        systems = by_system([r for r in results if r["speakers"] == size])
        for name in sorted(systems.keys() - {against}):
            cells = systems.get(against, {}), systems[name]
            if found := compare(*cells, condition, find):
                curves[name].append((size, *found[:2]))
    for number, (name, points) in enumerate(curves.items()):
        x, y, bounds = zip(*points, strict=True)
        errors = [
            (0, 0) if of is None else (value - of[0], of[1] - value)
            for value, of in zip(y, bounds, strict=True)
        ]
        axes.errorbar(
            np.array(x) * 1.03**number,  # side by side
            y,
            np.maximum(np.transpose(errors), 0),
            color=COLORS[number % len(COLORS)],
            marker="o",
            capsize=3,
            label=find_system(name).title,
        )
    axes.axhline(0, color="gray", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(sizes, sizes)
    axes.set_ylabel(f"EER against {against}, %, {condition}")
    if curves:
        axes.legend(fontsize="small")
    _save(figure, path)
