"""Pictures of trained models, from the output folders of their trainings.

For each folder: the speakers on the Poincare disk, as a PNG file and as a page
for the browser, and histograms of their radii. (TensorBoard shows the training
curves, see the key tensorboard_folder.) The folder's hyperparams.yaml is
executed: give only folders of your own trainings.
"""

import argparse
import os
import pathlib
from collections.abc import Sequence

from speechbrain_hyperbolic.analysis.columns import columns_of
from speechbrain_hyperbolic.analysis.disk import draw_disk
from speechbrain_hyperbolic.analysis.figures import draw_radii
from speechbrain_hyperbolic.analysis.page import write_page
from speechbrain_hyperbolic.analysis.runs import (
    Run,
    embed_training,
    is_hyperbolic,
    read_run,
)
from speechbrain_hyperbolic.dataio.corpus import read_speaker_table
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.evaluation.plots import save_figure


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
        metavar="COLUMN",
        help="the column of that table to color by (default: sex, if present)",
    )
    parser.add_argument(
        "--data_folder",
        help="the corpus, to draw the radii of the training utterances too; "
        "their embeddings are kept in OUTPUT_FOLDER/embeddings",
    )
    parser.add_argument(
        "--output",
        help="where to write (default: 'analysis' in OUTPUT_FOLDER, or in "
        "the folder that contains all of them)",
    )
    options = parser.parse_args(arguments)
    folders = [pathlib.Path(folder).resolve() for folder in options.folders]
    common = pathlib.Path(os.path.commonpath(folders))
    output = pathlib.Path(options.output or common / "analysis")
    for folder in dict.fromkeys(folders):
        run = read_run(folder)
        name = "-".join(folder.relative_to(common).parts) or folder.name
        target = output if len(folders) == 1 else output / name
        _draw_run(run, name, target, options)


def _draw_run(
    run: Run, name: str, folder: pathlib.Path, options: argparse.Namespace
) -> None:
    table = {}
    corpus = pathlib.Path(str(run.nodes.get("data_folder"))) / "speakers.csv"
    if options.speakers or corpus.is_file():
        table = read_speaker_table(options.speakers or corpus)
    columns = columns_of(table, run.speakers)
    color = options.color or "sex"
    if options.color and color not in columns:
        raise InputError(
            f"--color is {color}, which no speaker of {name} has: choose from "
            f"{', '.join(columns) or 'no column at all'}"
        )
    points, column = run.centers(), columns.pop(color, None)
    title, cap = f"{name}: {len(run.speakers)} centers", None
    if is_hyperbolic(run.head):
        cap = run.head.similarity.cap
    else:
        title += " (directions only, drawn at one radius)"
    figures = {
        "disk.png": draw_disk(
            points, run.speakers, cap=cap, column=column, title=title
        )
    }
    if cap is not None:
        radii = {"centers": points.radius.numpy()}
        if options.data_folder:
            corpus = pathlib.Path(options.data_folder)
            radii["embeddings"] = embed_training(run, corpus).radius.numpy()
        figures["radii.png"] = draw_radii(radii, cap, name)
    for file, figure in figures.items():
        save_figure(figure, folder / file)
        print(folder / file)
    shown = [c for c in (column, *columns.values()) if c]
    page = folder / "disk.html"
    write_page(page, points, run.speakers, title, shown, cap)
    print(page)


if __name__ == "__main__":
    with exit_on_error():
        main()
