"""Trains one encoder with every loss, several seeds each, and compares.

> python -m benchmarks.losses run --data_folder=CORPUS --work_folder=FOLDER
> python -m benchmarks.losses table FOLDER/cells [--plot=FILE.png]

A run leaves FOLDER/losses.md and losses.png; it goes on where it was. Several,
on machines that share the folder, take different cells. The corpus is
speaker/[session/]utterance; a speakers.csv in it (spk_id and any of split,
sex, age_group) says who is tested.
"""

import argparse
import contextlib
import difflib
import io
import pathlib
import signal
import sys

from benchmarks.losses import cells, features, report, training
from benchmarks.losses.systems import COMPARED, SYSTEMS
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error

OTHERS = [name for name in SYSTEMS if name not in COMPARED]


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.losses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="trains what is not yet trained")
    run.add_argument(
        "--systems",
        nargs="+",
        default=COMPARED,
        metavar="SYSTEM",
        help=f"default: {' '.join(COMPARED)}; or one of {' '.join(OTHERS)}",
    )
    run.add_argument("--seeds", nargs="+", type=_count, default=[1, 2, 3])
    run.add_argument(
        "--folds",
        nargs="+",
        type=int,
        choices=range(training.FOLDS),
        help="of the training speakers, to choose by; default: the test",
    )
    run.add_argument("--jobs", type=_count, default=2)
    cell = commands.add_parser("cell", help="one cell")
    cell.add_argument("system")
    cell.add_argument("seed", type=int)
    cell.add_argument("fold", type=lambda f: None if f == "-" else int(f))
    for command in (run, cell):
        command.add_argument("--data_folder", required=True)
        command.add_argument("--work_folder", required=True)
    table = commands.add_parser("table", help="what the cells have found")
    table.add_argument("results", nargs="+", help="JSON lines, or a folder")
    table.add_argument("--plot", help="a PNG")
    table.add_argument(
        "--against",
        nargs="+",
        default=report.BASELINES,
        metavar="SYSTEM",
        help=f"default: {' '.join(report.BASELINES)}",
    )
    options = parser.parse_args()
    if options.command == "table":
        results = cells.read_results(options.results)
        report.write(results, options.plot, options.against)
        return
    data_folder = pathlib.Path(options.data_folder).resolve()
    work_folder = pathlib.Path(options.work_folder).resolve()
    asked = options.systems if options.command == "run" else [options.system]
    for name in asked:
        if name not in SYSTEMS:
            near = difflib.get_close_matches(name, SYSTEMS) or COMPARED
            raise InputError(
                f"there is no system {name}: try {', '.join(near)}"
            )
    if options.command == "cell":
        cells.run_cell(
            options.system, options.seed, options.fold, data_folder, work_folder
        )
        return
    # So that what is running ends with this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    features.prepare(data_folder, cells.HPARAMS / "ham_ecapa.yaml", work_folder)
    # Seed by seed: wherever it is stopped, the systems can be compared.
    todo = [
        (system, seed, fold)
        for seed in options.seeds
        for fold in options.folds or [None]
        for system in options.systems
    ]
    failed, elsewhere = cells.run_all(
        list(dict.fromkeys(todo)), data_folder, work_folder, options.jobs
    )
    if failed:
        sys.exit(f"failed, see {work_folder}/logs: {', '.join(failed)}")
    if elsewhere:
        sys.exit(f"others are at work on {', '.join(elsewhere)}")
    summary = io.StringIO()
    with contextlib.redirect_stdout(summary):
        report.write(
            cells.read_results([work_folder / "cells"]),
            work_folder / "losses.png",
        )
    with atomic_path(work_folder / "losses.md") as temporary:
        temporary.write_text(summary.getvalue())
    print(summary.getvalue())


def _count(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


if __name__ == "__main__":
    with exit_on_input_error():
        main()
