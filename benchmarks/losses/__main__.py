"""Trains one encoder with every loss, with several seeds, and compares.

> python -m benchmarks.losses features --data_folders CORPUS... --work_folder W
> python -m benchmarks.losses trials --work_folder W
> python -m benchmarks.losses run --work_folder W --systems am ham --seeds 1 2
> python -m benchmarks.losses table W [--plot=FILE.png] [--growth=FILE.png]

A run does what is not yet done; several, on machines that share the folder,
take different cells. A corpus is audio/SPEAKER/[SESSION/]UTTERANCE with a
speakers.csv. A system is a name, with changes as in am:margin=0.35,scale=45, or
the name of a list.
"""

import argparse
import json
import pathlib
import signal
import sys

from benchmarks.losses import cells, features, report, training
from benchmarks.losses.systems import SETS, SYSTEMS, find_system, parse_options
from benchmarks.losses.trials import describe
from speechbrain_hyperbolic.errors import InputError, exit_on_error


def main():
    """Reads the command line."""
    options = _parser().parse_args()
    if options.command == "table":
        report.write(options)
        return
    work_folder = pathlib.Path(options.work_folder).resolve()
    if options.command == "features":
        features.prepare(
            options.data_folders,
            work_folder,
            cells.HPARAMS / "ham_ecapa.yaml",
            options.most_speakers,
        )
    elif options.command == "trials":
        rows = features.read(work_folder).rows
        _, _, tested, _ = training.select(rows, options.fold)
        report.print_table([*describe(tested)])
    elif options.command == "cell":
        common = parse_options(options.set)
        cell = cells.Cell(*json.loads(options.cell))
        cells.run_cell(cell, work_folder, common, options.device)
    else:
        run(options, work_folder)


def run(options, work_folder):
    """Runs all cells that the command line asks for."""
    # So that the processes that are running end with this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    systems = [n for name in options.systems for n in SETS.get(name, [name])]
    for name in systems:
        find_system(name)
    common = parse_options(options.set)
    # Seed by seed: wherever it is stopped, the systems can be compared.
    todo = dict.fromkeys(
        cells.Cell(system, seed, fold, classes)
        for seed in options.seeds
        for fold in options.folds
        for classes in options.classes
        for system in systems
    )
    passed = [f"--work_folder={work_folder}", f"--device={options.device}"]
    passed += ["--set", *options.set]
    missing = cells.run_all(
        list(todo), work_folder, passed, common, options.jobs, options.device
    )
    if missing:
        raise InputError(
            f"{len(missing)} cells have failed or are at work elsewhere, such "
            f"as {missing[0]}: run the same command again to resume"
        )


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.losses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("features", help="makes the features, once")
    make.add_argument("--data_folders", nargs="+", required=True)
    make.add_argument(
        "--most_speakers",
        type=_count,
        help="of each corpus and split, for a quick try",
    )
    trials = commands.add_parser("trials", help="counts the trials")
    trials.add_argument("--fold", type=int, choices=range(training.FOLDS))
    launch = commands.add_parser("run", help="trains what is not yet trained")
    launch.add_argument(
        "--systems",
        nargs="+",
        default=["primary"],
        help=f"some of {', '.join(SYSTEMS)}, or the lists {', '.join(SETS)}",
    )
    launch.add_argument("--seeds", nargs="+", type=_count, default=[1, 2, 3, 4])
    launch.add_argument(
        "--folds",
        nargs="+",
        type=int,
        choices=range(training.FOLDS),
        default=[None],
        help="of the training speakers, to tune on; default: the test",
    )
    launch.add_argument(
        "--classes",
        nargs="+",
        type=lambda text: None if text == "all" else _count(text),
        default=[None],
        help="numbers of training speakers, or all",
    )
    launch.add_argument("--jobs", type=_count, default=1)
    cell = commands.add_parser("cell", help="one cell, for run")
    cell.add_argument("cell")
    for command in (launch, cell):
        command.add_argument("--device", default="cpu")
        command.add_argument(
            "--set",
            nargs="*",
            default=[],
            metavar="KEY=VALUE",
            help=f"in all hparams files; default: {training.SMALL}",
        )
    for command in (make, trials, launch, cell):
        command.add_argument("--work_folder", required=True)
    table = commands.add_parser("table", help="what the cells have found")
    table.add_argument("results", help="a work folder, or its results.jsonl")
    table.add_argument("--against", default="am", metavar="SYSTEM")
    table.add_argument("--condition", default="cross")
    table.add_argument("--csv", help="writes a row for each cell")
    table.add_argument("--plot", help="a PNG: the systems")
    table.add_argument("--growth", help="a PNG: differences by classes")
    return parser


def _count(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


if __name__ == "__main__":
    with exit_on_error():
        main()
