"""The file of results, a JSON object a line, and its tables."""

import json
import os
import pathlib
import statistics

import numpy as np

from benchmarks.draws import UNIT, Runs, difference
from benchmarks.robustness.conditions import ABOUT, CONDITIONS
from speechbrain_hyperbolic.errors import InputError

# Key of a result -> title, factor and digits
_RATES = {
    "eer": ("EER %", 100, 2),
    "eer_same_sex": ("EER % of same-sex trials", 100, 2),
    "min_dcf": ("minDCF(0.01)", 1, 3),
}
_KEYS = (
    *("model", "loss", "weights", "condition", "enrolment"),
    *("corpus", "data"),
    *("n_speakers", "n_utterances", "utterances_per_speaker"),
    *("commit", "machine", *_RATES),
)


# What losses are compared with, if not told otherwise
BASELINE = "am"

# What the results of one table share
_TABLE = (
    *("corpus", "n_speakers", "n_utterances", "utterances_per_speaker"),
    "enrolment",
)


def read_results(path):
    """Reads a file of results.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    results : list of dict
        Without a last line that a kill has torn.

    Raises
    ------
    InputError
        If it is missing, or a line is no result.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no such file of results")
    results = []
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            result = json.loads(line)
            missing = [key for key in _KEYS if key not in result]
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path}, line {number} is no JSON object: remove it"
            ) from error
        if missing:
            raise InputError(
                f"{path}, line {number} has no {missing[0]}: expected what "
                "python -m benchmarks.robustness wrote"
            )
        results.append(result)
    return results


def open_results(path):
    """Opens a file of results to add to it.

    Arguments
    ---------
    path : str or pathlib.Path
        Made where it is missing; a torn last line is cut off.

    Returns
    -------
    results : list of dict
        What it has.
    file : io.BufferedIOBase
        For ``add_result``.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    results = read_results(path)
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    return results, open(path, "ab")


def add_result(file, result):
    """Adds a line, which is there whatever comes next.

    Arguments
    ---------
    file : io.BufferedIOBase
        Of ``open_results``.
    result : dict
    """
    file.write(json.dumps(result, ensure_ascii=False).encode() + b"\n")
    file.flush()


def format_tables(results, baseline=BASELINE):
    """Tables for people, one for each corpus and error rate.

    A row is a loss, a column a condition: the mean over seeds, its standard
    deviation, and how much more that is than clean. Then the differences to
    one loss, where results have draws.

    Arguments
    ---------
    results : list of dict
        Of ``read_results``. Of a model that was measured again the last counts.
    baseline : str
        The loss that the others are compared with.

    Returns
    -------
    tables : str
        Markdown.

    Raises
    ------
    InputError
        If there are none.
    """
    if not results:
        raise InputError("there are no results: run the benchmark first")
    corpora = {}
    for result in results:
        key = tuple(result[name] for name in _TABLE)
        cell = result["loss"], result["condition"]
        of_corpus = corpora.setdefault(key, {})
        of_corpus.setdefault(cell, {})[result["model"]] = result
    parts = [_of_corpus(cells, baseline) for cells in corpora.values()]
    about = [f"{names}: {what}" for names, what in ABOUT.items()]
    return "\n\n".join([*parts, "; ".join(about) + "."])


def _of_corpus(cells, baseline):
    every = [result for seeds in cells.values() for result in seeds.values()]
    first = every[0]
    each = first["utterances_per_speaker"]
    chosen = f"the first {each} of each" if each else "all"
    degraded = (
        "the test utterance is degraded, the enrolled one is clean"
        if first["enrolment"] == "clean"
        else "both are degraded"
    )
    made = sorted({f"{r['commit']}; {r['machine']}" for r in every})
    lines = [
        f"### {first['corpus']}: {first['n_utterances']} utterances of "
        f"{first['n_speakers']} speakers ({chosen})",
        "",
        f"Cosine of all pairs of two utterances, of which {degraded}. Mean "
        "over seeds ± standard deviation, and how much more than clean.",
    ]
    for rate, (title, factor, digits) in _RATES.items():
        if all(result[rate] is not None for result in every):
            lines += ["", *_table(cells, rate, title, factor, digits)]
    for rate, (title, *_) in _RATES.items():
        differences = _differences(cells, rate, baseline)
        if differences:
            lines += [
                "",
                f"{title.removesuffix(' %')} against {baseline}, relative, "
                "with its 95 % interval over speakers and seeds, and p:",
                "",
                *differences,
            ]
    return "\n".join([*lines, "", "At commit " + "; ".join(made) + "."])


def _columns(cells):
    """The conditions, in the order of ours."""
    found = {condition for _, condition in cells}
    return [condition for condition in CONDITIONS if condition in found]


def _rows(*rows):
    """Lines of a table in Markdown, of its heading and rows."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _differences(cells, rate, baseline):
    """A table of what is more or less than the baseline; [] without draws."""
    with_draws = {
        cell: {
            result["seed"]: result
            for result in seeds.values()
            if rate in result.get("draws", {})
        }
        for cell, seeds in cells.items()
    }
    columns = _columns(cells)
    losses = sorted({loss for loss, _ in cells} - {baseline})
    rows = [
        [loss]
        + [
            _difference(
                with_draws.get((baseline, column), {}),
                with_draws.get((loss, column), {}),
                rate,
            )
            for column in columns
        ]
        for loss in losses
    ]
    rows = [row for row in rows if any(row[1:])]
    return _rows(["loss", *columns], *rows) if rows else []


def _difference(base, other, rate):
    shared = sorted(base.keys() & other.keys())
    if not shared:
        return ""
    figures = []
    for of_seeds in (base, other):
        chosen = [of_seeds[seed] for seed in shared]
        drawn = np.array([r["draws"][rate] for r in chosen], float)
        values = np.array([r[rate] for r in chosen])
        figures.append(Runs(100 * values, 100 * UNIT * drawn))
    return difference(*figures)


def _table(cells, rate, title, factor, digits):
    columns = _columns(cells)
    values = {
        cell: [factor * result[rate] for result in seeds.values()]
        for cell, seeds in cells.items()
    }
    rows = [[title, "seeds", *columns]]
    for loss in sorted({loss for loss, _ in cells}):
        of_loss = {c: values.get((loss, c)) for c in columns}
        seeds = max(len(v) for v in of_loss.values() if v)
        clean = of_loss.get("clean")
        rows.append(
            [loss, str(seeds)]
            + [_cell(v, clean, c, digits) for c, v in of_loss.items()]
        )
    return _rows(*rows)


def _cell(values, clean, condition, digits):
    if not values:
        return ""
    mean = statistics.mean(values)
    text = f"{mean:.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    if condition != "clean" and clean and statistics.mean(clean):
        text += f" ({mean / statistics.mean(clean) - 1:+.0%})"
    return text
