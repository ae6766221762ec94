"""Pictures of what training made, from the folders that it left.

> python -m speechbrain_hyperbolic.analysis OUTPUT_FOLDER [OUTPUT_FOLDER ...]

Of each folder: the speakers on the Poincare disk, as a PNG for each colour
and as a page for the browser, and histograms of their radii. Of all of them
together: training curves, where runs that differ by their seed only are one.
The hyperparams.yaml of a folder is evaluated: give folders of your own.
"""

import argparse
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from speechbrain_hyperbolic.analysis.columns import Column, columns_of
from speechbrain_hyperbolic.analysis.curves import draw_curves, group_by_seed
from speechbrain_hyperbolic.analysis.disk_figure import draw_speakers
from speechbrain_hyperbolic.analysis.disk_page import write_page
from speechbrain_hyperbolic.analysis.figures import save
from speechbrain_hyperbolic.analysis.radii import draw_radii
from speechbrain_hyperbolic.analysis.trained import (
    Trained,
    embed_training,
    read_trained,
)
from speechbrain_hyperbolic.dataio.corpus import read_speaker_table
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error

# Of those that the table has.
_DEFAULT_COLOURS = ("sex", "age")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command.

    Arguments
    ---------
    arguments : list of str
        None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.analysis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="OUTPUT_FOLDER")
    parser.add_argument(
        "--speakers",
        metavar="CSV",
        help="spk_id and what else is known (default: speakers.csv of the "
        "data_folder that it was trained on)",
    )
    parser.add_argument(
        "--colour",
        nargs="+",
        metavar="COLUMN",
        help="columns of speakers.csv to colour by (default: sex and age, as "
        "far as they are there); the first also splits the histograms",
    )
    parser.add_argument(
        "--data_folder",
        help="the corpus, to draw the radii of the training utterances too: "
        "they are embedded, or found in OUTPUT_FOLDER/embeddings",
    )
    parser.add_argument("--device", default="cpu", help="for embeddings")
    parser.add_argument(
        "--output",
        help="folder to write to (default: 'analysis' in OUTPUT_FOLDER, of "
        "several in the folder that all of them are in)",
    )
    options = parser.parse_args(arguments)
    folders = [pathlib.Path(folder).resolve() for folder in options.folders]
    names = _names(folders)
    output = _output(folders, options.output)
    runs = [
        read_trained(folder, name)
        for folder, name in zip(folders, names, strict=True)
    ]
    for run in runs:
        folder = output if len(runs) == 1 else output / run.name
        for path in _draw_run(run, folder, options):
            print(path)
    print(save(draw_curves(group_by_seed(runs)), output / "curves.png"))


def _names(folders: list[pathlib.Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    if len(set(folders)) < len(folders):
        raise InputError("an OUTPUT_FOLDER is given twice: give each once")
    depth = 1
    while True:
        names = ["-".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
        depth += 1


def _output(folders: list[pathlib.Path], given: str | None) -> pathlib.Path:
    if given:
        return pathlib.Path(given)
    if len(folders) == 1:
        return folders[0] / "analysis"
    return pathlib.Path(os.path.commonpath(folders)) / "analysis"


def _draw_run(
    run: Trained, folder: pathlib.Path, options: argparse.Namespace
) -> Iterator[str | pathlib.Path]:
    """Yields the files of one run."""
    table = _table(run, options.speakers)
    columns = columns_of(table, run.speakers)
    colours = _colours(columns, options)
    labels = _labels(run.speakers)
    drawn: dict[str, Any] = {"cap": run.cap, "has_radius": run.has_radius}
    points = run.points
    several: list[str | None] = [*colours]
    for name in several or [None]:
        figure = draw_speakers(
            points, labels, run.name, columns.get(name), **drawn
        )
        ending = "-" + re.sub(r"\W+", "-", name) if name else ""
        yield save(figure, folder / f"disk{ending}.png")
    ordered = {name: columns[name] for name in (*colours, *columns)}
    write_page(
        folder / "disk.html",
        points,
        labels,
        f"{run.name}: {len(run.speakers)} speakers",
        ordered,
        **drawn,
    )
    yield folder / "disk.html"
    if not run.has_radius:
        return
    by = colours[0] if colours else None
    panels = {"centres": (points.radius, _groups(columns, by))}
    if options.data_folder:
        embedded, speakers = embed_training(
            run, options.data_folder, options.device
        )
        groups = _groups(columns_of(table, speakers), by)
        panels["embeddings"] = (embedded.radius.cpu(), groups)
    yield save(draw_radii(panels, run.cap, run.name), folder / "radii.png")


def _table(run: Trained, given: str | None) -> dict[str, dict[str, str]]:
    if given:
        return read_speaker_table(given)
    table: dict = {}
    for folder in str(run.nodes.get("data_folder")).split(","):
        path = pathlib.Path(folder.strip()) / "speakers.csv"
        if path.is_file():
            table |= read_speaker_table(path)
    return table


def _colours(
    columns: dict[str, Column], options: argparse.Namespace
) -> list[str]:
    if options.colour is None:
        return [name for name in _DEFAULT_COLOURS if name in columns]
    for name in options.colour:
        if name not in columns:
            known = ", ".join(columns) or "none: pass --speakers"
            raise InputError(
                f"--colour is {name}, which is no column that says something "
                f"of the speakers: choose of {known}"
            )
    return options.colour


def _groups(
    columns: dict[str, Column], name: str | None
) -> dict[str, np.ndarray]:
    return columns[name].groups() if name in columns else {}


def _labels(speakers: list[str]) -> list[str]:
    """Names; of several centres of a speaker with their number."""
    seen: dict[str, int] = {}
    labels = []
    several = len(set(speakers)) < len(speakers)
    for speaker in speakers:
        seen[speaker] = seen.get(speaker, 0) + 1
        labels.append(f"{speaker} #{seen[speaker]}" if several else speaker)
    return labels


if __name__ == "__main__":
    with exit_on_input_error():
        main()
