"""The tables and the plots, from the results and the scores of the cells."""

import collections
import contextlib
import functools
import json

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import draws, table
from benchmarks.losses import features
from benchmarks.losses.cells import SCORES, read_results
from benchmarks.losses.systems import EUCLIDEAN
from benchmarks.losses.training import select
from benchmarks.losses.trials import make_trials
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.dataio.tables import write_table
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.plots import COLORS


class Report:
    """Results by one condition of the trials, against one system."""

    def __init__(self, path, against, condition):
        self.results = read_results(path)
        self.against, self.condition = against, condition
        for result in self.results:
            if condition not in result["metrics"]:
                raise InputError(
                    f"{path}: {result['cell']} has no condition {condition}, "
                    f"expected one of {', '.join(result['metrics'])}"
                )

    def drawn(self, result):
        """EERs of a cell over draws of speakers, kept beside its scores."""
        folder = result["folder"]
        path = folder / f"draws-{self.condition}.npy"
        if not path.is_file() and (folder / SCORES).is_file():
            trials = _trials(folder.parents[1], result["fold"])
            mask = trials.conditions[self.condition]
            columns = np.load(folder / SCORES), trials.a, trials.b
            found = draws.draw_eers(*(column[mask] for column in columns))
            if found is not None:
                with atomic_path(path) as temporary:
                    np.save(temporary, 100 * found)
        return np.load(path) if path.is_file() else None

    def eers(self, cells, keys):
        """EERs in % of some cells, and their draws."""
        found = [cells[key]["metrics"][self.condition]["eer"] for key in keys]
        return [100 * x for x in found], [self.drawn(cells[k]) for k in keys]

    def difference(self, systems, name):
        """How far a system is above the baseline, by the seeds of both."""
        base, other = systems[self.against], systems[name]
        keys = sorted(base.keys() & other.keys())
        if not keys or name == self.against:
            return None
        return draws.difference(self.eers(base, keys), self.eers(other, keys))

    def tables(self):
        """Prints a table of each group of results that can be compared."""
        groups = collections.defaultdict(list)
        for result in self.results:
            settings = dict(result["settings"])
            del settings["hparams"], settings["overrides"]
            key = settings, result["fold"] is not None, result["classes"]
            groups[json.dumps(key, sort_keys=True)].append(result)
        for results in groups.values():
            self.table(results)

    def table(self, results):
        """Each system's EERs, as mean over seeds and standard deviation."""
        first, systems = results[0], by_system(results)
        who = "test" if first["fold"] is None else "held-out training"
        settings = first["settings"]["common"]
        print(f"\n### {first['classes'] or 'All'} classes, {who} speakers\n")
        print(", ".join(f"{k} {v}" for k, v in settings.items()), end="\n\n")
        rows = []
        for name in sorted(systems):
            cells = systems[name].values()
            accuracies = [cell["train_accuracy"] for cell in cells]
            row = {"system": name, "cells": len(cells)}
            row["training accuracy"] = draws.mean_text(accuracies, 3)
            for c in first["metrics"]:
                values = [100 * cell["metrics"][c]["eer"] for cell in cells]
                row[f"{c}, EER %"] = draws.mean_text(values)
            found = self.difference(systems, name)
            heading = f"{self.condition} against {self.against}"
            row[heading] = draws.in_words(*found) if found else ""
            rows.append(row)
        print(table(rows))
        seconds = [r["seconds"] for r in results if r["seconds"]] or [0]
        print(f"\n{len(results)} cells of {min(seconds)} to {max(seconds)} s")
        for key in ("commit", "machine"):
            print(f"{key}: {', '.join(sorted({r[key] for r in results}))}")

    def write_csv(self, path):
        """A row for each cell."""
        lines = []
        for result in self.results:
            line = {k: v for k, v in result.items() if not isinstance(v, dict)}
            line["folder"] = result["folder"].name
            line["overrides"] = json.dumps(result["settings"]["overrides"])
            for condition, of in result["metrics"].items():
                line |= {f"{condition}_{key}": of[key] for key in of}
            lines.append(line)
        names = [*dict.fromkeys(name for line in lines for name in line)]
        rows = ([line.get(name, "") for name in names] for line in lines)
        write_table(rows, path, names)

    def write_plot(self, path):
        """Seeds, mean and interval of each system that trained on all."""
        on_test = [r for r in self.results if r["fold"] is r["classes"] is None]
        systems = by_system(on_test)
        found = {name: self.eers(c, sorted(c)) for name, c in systems.items()}
        order = sorted(found, key=lambda name: -np.mean(found[name][0]))
        label = f"EER %, {self.condition} (hyperbolic in orange)"
        with _figure(path, label, 1.2 + 0.3 * len(order)) as axes:
            for height, name in enumerate(order):
                values, drawn = found[name]
                euclidean = name.partition(":")[0] in EUCLIDEAN
                color = COLORS[0 if euclidean else 1]
                if all(of is not None for of in drawn):
                    (mean,) = draws.over_seeds(np.array(drawn))
                    bounds = draws.interval(mean)
                    axes.plot(bounds, [height] * 2, color=color)
                heights = [height] * len(values)
                axes.plot(values, heights, "o", color=color, alpha=0.5)
                axes.plot(np.mean(values), height, "|", color=color, ms=14)
            axes.set_yticks(range(len(order)), order)

    def write_growth(self, path):
        """How the differences change with the number of classes."""
        curves = collections.defaultdict(list)
        on_test = [r for r in self.results if r["fold"] is None]
        sizes = sorted({result["speakers"] for result in on_test})
        for size in sizes:
            systems = by_system(r for r in on_test if r["speakers"] == size)
            for name in sorted(systems):
                if found := self.difference(systems, name):
                    change, bounds, _ = found
                    low, high = (change, change) if bounds is None else bounds
                    curves[name].append((size, change, low, high))
        curves = {k: points for k, points in curves.items() if points[1:]}
        with _figure(path, "training speakers", 4) as axes:
            for number, (name, points) in enumerate(curves.items()):
                x, y, low, high = np.transpose(points)
                errors = np.maximum([y - low, high - y], 0)
                x = x * 1.03**number  # side by side
                style = {"marker": "o", "capsize": 3, "label": name}
                style["color"] = COLORS[number % len(COLORS)]
                axes.errorbar(x, y, errors, **style)
            axes.axhline(0, color="gray")
            axes.set_xscale("log")
            axes.set_xticks(sizes, sizes)
            axes.minorticks_off()
            axes.set_ylabel(f"{self.condition} EER against {self.against}, %")
            if curves:
                axes.legend(fontsize="small")


@functools.cache
def _trials(work_folder, fold):
    return make_trials(select(features.read(work_folder).rows, fold)[2])


def by_system(results):
    """System -> {(seed, fold): result}."""
    systems = collections.defaultdict(dict)
    for result in results:
        fold = -1 if result["fold"] is None else result["fold"]
        systems[result["system"]][result["seed"], fold] = result
    return systems


@contextlib.contextmanager
def _figure(path, xlabel, height):
    figure = Figure(figsize=(8, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=xlabel)
    axes.grid(alpha=0.3)
    yield axes
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
