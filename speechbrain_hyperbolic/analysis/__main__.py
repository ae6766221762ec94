"""Pictures of trained models, from the output folders of their trainings.

    python -m speechbrain_hyperbolic.analysis OUTPUT_FOLDER [OUTPUT_FOLDER ...]

For each folder: the speakers on the Poincare disk, as a PNG file for each color
and as a page for the browser, and histograms of their radii. For all of them
together: training curves. The folder's hyperparams.yaml is executed: give
folders of your own trainings only.
"""

import argparse
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from speechbrain_hyperbolic.analysis.columns import columns_of
from speechbrain_hyperbolic.analysis.disk import draw_disk
from speechbrain_hyperbolic.analysis.figures import (
    draw_curves,
    draw_radii,
    save_figure,
)
from speechbrain_hyperbolic.analysis.page import write_page
from speechbrain_hyperbolic.analysis.runs import (
    Run,
    embed_training,
    read_log,
    read_run,
)
from speechbrain_hyperbolic.dataio.corpus import read_speaker_table
from speechbrain_hyperbolic.errors import InputError, exit_on_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; None: with the arguments of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.analysis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="OUTPUT_FOLDER")
    parser.add_argument(
        "--speakers",
        metavar="CSV",
        help="a table with the column spk_id and others (default: the "
        "speakers.csv of the run's data_folder)",
    )
    parser.add_argument(
        "--color",
        nargs="+",
        metavar="COLUMN",
        help="columns of that table to color by (default: sex and age, if "
        "they are there); the first also splits the histograms",
    )
    parser.add_argument(
        "--data_folder",
        help="the corpus, to draw the radii of the training utterances too; "
        "their embeddings are kept in OUTPUT_FOLDER/embeddings",
    )
    parser.add_argument("--device", default="cpu", help="for the embeddings")
    parser.add_argument(
        "--output",
        help="where to write (default: 'analysis' in OUTPUT_FOLDER, or in "
        "the folder that holds all of them)",
    )
    options = parser.parse_args(arguments)
    folders = [pathlib.Path(folder).resolve() for folder in options.folders]
    together = pathlib.Path(os.path.commonpath(folders))
    output = pathlib.Path(options.output or together / "analysis")
    logs = {}
    for folder in dict.fromkeys(folders):
        run = read_run(folder)
        name = "-".join(folder.relative_to(together).parts) or folder.name
        logs[name] = read_log(folder / "train_log.txt", run.prefix)
        inside = output if len(folders) == 1 else output / name
        for path in _draw_run(run, name, inside, options):
            print(path)
    print(save_figure(draw_curves(logs), output / "curves.png"))


def _draw_run(
    run: Run, name: str, folder: pathlib.Path, options: argparse.Namespace
) -> Iterator[pathlib.Path]:
    table = {}
    corpus = pathlib.Path(str(run.nodes.get("data_folder"))) / "speakers.csv"
    if options.speakers or corpus.is_file():
        table = read_speaker_table(options.speakers or corpus)
    columns = columns_of(table, run.speakers)
    chosen = options.color or [c for c in ("sex", "age") if c in columns]
    if unknown := set(chosen) - set(columns):
        raise InputError(
            f"--color is {min(unknown)}, which says nothing about the "
            f"speakers: choose from {', '.join(columns) or 'no column at all'}"
        )
    points = run.centers()
    title = f"{name}: {len(run.speakers)} centers"
    drawn: dict[str, Any] = {"cap": run.cap, "has_radius": run.has_radius}
    for key in chosen or [""]:
        column = columns.get(key)
        figure = draw_disk(
            points,
            run.speakers,
            column=column,
            title=f"{title} by {key}" if key else title,
            **drawn,
        )
        ending = "-" + re.sub(r"\W+", "-", key) if key else ""
        yield save_figure(figure, folder / f"disk{ending}.png")
    ordered = [columns[key] for key in dict.fromkeys([*chosen, *columns])]
    path = folder / "disk.html"
    yield write_page(path, points, run.speakers, title, ordered, **drawn)
    if run.has_radius:
        by = chosen[0] if chosen else ""
        panels = {"centers": (points.radius.numpy(), columns.get(by))}
        if options.data_folder:
            embedded, speakers = embed_training(
                run, pathlib.Path(options.data_folder), options.device
            )
            column = columns_of(table, speakers).get(by)
            panels["embeddings"] = (embedded.radius.numpy(), column)
        figure = draw_radii(panels, run.cap, name)
        yield save_figure(figure, folder / "radii.png")


if __name__ == "__main__":
    with exit_on_error():
        main()
