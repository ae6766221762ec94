"""Pictures of a trained model, from the output folder of its training.

In its folder "analysis": the speakers on the Poincare disk, as a PNG file and
as a page for the browser, colored by the columns of the corpus's speakers.csv,
and histograms of their radii. The folder's hyperparams.yaml is executed: give
only folders of your own trainings.
"""

import argparse
import pathlib
from collections.abc import Sequence

from speechbrain_hyperbolic.analysis.disk import draw_disk
from speechbrain_hyperbolic.analysis.groups import columns_of
from speechbrain_hyperbolic.analysis.page import write_page
from speechbrain_hyperbolic.analysis.radii import draw_radii
from speechbrain_hyperbolic.analysis.runs import (
    embed_training,
    is_hyperbolic,
    read_run,
)
from speechbrain_hyperbolic.dataio.corpus import read_speaker_table
from speechbrain_hyperbolic.errors import exit_on_error
from speechbrain_hyperbolic.evaluation.plots import save_figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; None: with the arguments of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.analysis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="OUTPUT_FOLDER")
    parser.add_argument(
        "--data_folder",
        help="the corpus, to draw the radii of the training utterances too; "
        "their embeddings are kept in OUTPUT_FOLDER/embeddings",
    )
    options = parser.parse_args(arguments)
    run = read_run(options.folder)
    corpus = pathlib.Path(
        options.data_folder or run.nodes.get("data_folder", "")
    )
    table = corpus / "speakers.csv"
    rows = read_speaker_table(table) if table.is_file() else {}
    columns = columns_of(rows, run.speakers)
    points, name, cap = run.centers(), run.folder.name, None
    title = f"{name}: {len(run.speakers)} centers"
    if is_hyperbolic(run.head):
        cap = run.head.similarity.cap
    else:
        title += " (directions only, drawn at one radius)"
    figures = {
        "disk.png": draw_disk(
            points,
            run.speakers,
            cap=cap,
            column=next(iter(columns), None),
            title=title,
        )
    }
    if cap is not None:
        radii = {"centers": points.radius.numpy()}
        if options.data_folder:
            radii["embeddings"] = embed_training(run, corpus).radius.numpy()
        figures["radii.png"] = draw_radii(radii, cap, name)
    folder = run.folder / "analysis"
    for file, figure in figures.items():
        save_figure(figure, folder / file)
        print(folder / file)
    page = folder / "disk.html"
    write_page(page, points, run.speakers, title, columns, cap)
    print(page)


if __name__ == "__main__":
    with exit_on_error():
        main()
