"""Trains one encoder with every loss, with several seeds, and compares.

> python -m benchmarks.losses features W --data_folders CORPUS...
> python -m benchmarks.losses trials W
> python -m benchmarks.losses run W --systems am ham --seeds 1 2 3 4
> python -m benchmarks.losses table W [--plot FILE.png] [--growth FILE.png]

W is a work folder. A run does what is not yet done; several, on machines that
share the folder, take different cells. A corpus is a folder with speakers.csv
and audio/SPEAKER/[SESSION/]UTTERANCE.
"""

import argparse
import pathlib

from benchmarks import make_parser, table
from benchmarks.losses import cells, features, training
from benchmarks.losses.report import Report
from benchmarks.losses.systems import SYSTEMS, find_system, parse_options
from benchmarks.losses.trials import describe
from speechbrain_hyperbolic.errors import exit_on_error


def main():
    """Reads the command line."""
    options = _parser().parse_args()
    folder = options.work_folder.resolve()
    if options.command == "features":
        hparams = cells.HPARAMS / "ham_ecapa.yaml"
        corpora = options.data_folders
        features.prepare(corpora, folder, hparams, options.most_speakers)
    elif options.command == "trials":
        rows = features.read(folder).rows
        print(table([*describe(training.select(rows, options.fold)[2])]))
    elif options.command == "run":
        for name in options.systems:
            find_system(name)
        # Seed by seed: wherever it is stopped, the systems can be compared.
        todo = dict.fromkeys(
            cells.Cell(system, seed, fold, classes)
            for seed in options.seeds
            for fold in options.folds
            for classes in options.classes
            for system in options.systems
        )
        common = parse_options(options.set)
        device, jobs = options.device, options.jobs
        cells.run_all(list(todo), folder, common, device, jobs)
    else:
        report = Report(folder, options.against, options.condition)
        report.tables()
        for name in ("plot", "growth", "csv"):
            if path := getattr(options, name):
                getattr(report, f"write_{name}")(path)


def _parser():
    parser = make_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make, trials, run, report = map(
        commands.add_parser, ("features", "trials", "run", "table")
    )
    for command in (make, trials, run, report):
        command.add_argument("work_folder", type=pathlib.Path)
    make.add_argument("--data_folders", nargs="+", required=True)
    help = "of each corpus and split, for a quick try"
    make.add_argument("--most_speakers", type=_count, help=help)
    folds = {"type": int, "choices": range(training.FOLDS)}
    trials.add_argument("--fold", **folds)
    help = f"some of {', '.join(SYSTEMS)}, also as in am:margin=0.35,scale=45"
    run.add_argument("--systems", nargs="+", default=["am", "ham"], help=help)
    run.add_argument("--seeds", nargs="+", type=_count, default=[1, 2, 3, 4])
    help = "of the training speakers, to tune on; default: the test speakers"
    run.add_argument("--folds", nargs="+", default=[None], **folds, help=help)
    help = "numbers of training speakers, or all"
    classes = {"type": lambda n: None if n == "all" else _count(n)}
    run.add_argument(
        "--classes", nargs="+", default=[None], **classes, help=help
    )
    run.add_argument("--jobs", type=_count, default=1)
    run.add_argument("--device", default="cpu")
    help = f"keys of all hparams files; default: {training.SMALL}"
    run.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help=help
    )
    report.add_argument("--against", default="am", metavar="SYSTEM")
    report.add_argument("--condition", default="cross")
    report.add_argument("--csv", help="writes a row for each cell")
    report.add_argument("--plot", help="a PNG: EER of each system")
    report.add_argument("--growth", help="a PNG: differences by classes")
    return parser


def _count(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


if __name__ == "__main__":
    with exit_on_error():
        main()
