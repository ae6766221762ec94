"""Trains one encoder with every loss, several seeds each, and compares.

> python -m benchmarks.losses run --data_folder=CORPUS --work_folder=FOLDER
> python -m benchmarks.losses table FOLDER/cells [--plot=FILE.png]

A run goes on where it was; several, on machines that share the folder, take
different cells.
"""

import argparse
import pathlib
import sys

from benchmarks.losses import cells, features, report
from benchmarks.losses.systems import COMPARED, SYSTEMS
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.losses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="trains what is not yet trained")
    run.add_argument("--systems", nargs="+", default=COMPARED)
    run.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    run.add_argument(
        "--folds",
        nargs="+",
        type=int,
        help="of the training speakers, to choose by; default: the test",
    )
    run.add_argument("--jobs", type=int, default=2)
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
    options = parser.parse_args()
    if options.command == "table":
        report.write(cells.read_results(options.results), options.plot)
        return
    data_folder = pathlib.Path(options.data_folder).resolve()
    work_folder = pathlib.Path(options.work_folder).resolve()
    asked = options.systems if options.command == "run" else [options.system]
    for name in asked:
        if name not in SYSTEMS:
            raise InputError(f"{name} is not one of {', '.join(SYSTEMS)}")
    if options.command == "cell":
        cells.run_cell(
            options.system, options.seed, options.fold, data_folder, work_folder
        )
        return
    work_folder.mkdir(parents=True, exist_ok=True)
    features.prepare(data_folder, cells.HPARAMS / "ham_ecapa.yaml", work_folder)
    # Seed by seed: wherever it is stopped, the systems can be compared.
    todo = [
        (system, seed, fold)
        for seed in options.seeds
        for fold in options.folds or [None]
        for system in options.systems
    ]
    failed = cells.run_all(todo, data_folder, work_folder, options.jobs)
    if failed:
        sys.exit(f"failed, see {work_folder}/logs: {', '.join(failed)}")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
