"""Error rates of trained models on any corpus, and over degraded channels.

> python -m benchmarks.robustness OUTPUT_FOLDER [...] --data_folder=CORPUS
> python -m benchmarks.robustness table RESULTS.jsonl [--against LOSS]
> python -m benchmarks.robustness radii RADII.csv

An output folder is that of train_speaker_embeddings.py, named LOSS.SEED. The
same command goes on after an interruption.
"""

import argparse
import pathlib
import sys
from collections import Counter

from speechbrain.utils.distributed import infer_device

from benchmarks.robustness.conditions import CONDITIONS
from benchmarks.robustness.corpus import find_corpus
from benchmarks.robustness.models import load_map
from benchmarks.robustness.radii import format_radii
from benchmarks.robustness.results import (
    BASELINE,
    format_tables,
    read_results,
)
from benchmarks.robustness.run import System, run, write_radii
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error


def parse(arguments):
    """Of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.robustness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="OUTPUT_FOLDER")
    parser.add_argument(
        "--data_folder", required=True, help="speaker/[session/]utterance"
    )
    parser.add_argument(
        "--speakers",
        help="CSV with spk_id, split and sex: those of the split test are "
        "tested; default: all who trained no model",
    )
    parser.add_argument(
        "--utterances_per_speaker",
        type=int,
        default=8,
        help="the first of each; 0: all; default: 8",
    )
    parser.add_argument(
        "--conditions", nargs="+", choices=CONDITIONS, default=[*CONDITIONS]
    )
    parser.add_argument(
        "--matched",
        action="store_true",
        help="enrol in the same condition, not clean",
    )
    parser.add_argument("--results", default="results/robustness/results.jsonl")
    parser.add_argument("--radius", help="CSV file to write, of all radii")
    parser.add_argument("--cache_folder", default="results/robustness/cache")
    parser.add_argument("--device", default=infer_device())
    return parser.parse_args(arguments)


def main(arguments):
    """Runs the benchmark, or prints the tables of its results."""
    if arguments[:1] == ["table"]:
        parser = argparse.ArgumentParser(
            prog="python -m benchmarks.robustness table"
        )
        parser.add_argument("results", metavar="RESULTS.jsonl")
        parser.add_argument("--against", default=BASELINE, metavar="LOSS")
        options = parser.parse_args(arguments[1:])
        print(format_tables(read_results(options.results), options.against))
        return
    if arguments[:1] == ["radii"] and len(arguments) == 2:
        print(format_radii(arguments[1]))
        return
    options = parse(arguments)
    folders = [pathlib.Path(folder) for folder in options.folders]
    for name, count in Counter(f.resolve().name for f in folders).items():
        if count > 1:
            raise InputError(
                f"{count} OUTPUT_FOLDERs are named {name}, which is how models "
                "are told apart: rename them"
            )
    corpus = find_corpus(
        options.data_folder,
        folders,
        options.speakers,
        options.utterances_per_speaker,
    )
    cache_folder = pathlib.Path(options.cache_folder)
    systems = [
        System(folder, corpus, cache_folder, options.device)
        for folder in folders
    ]
    # Now, to fail before anything is computed
    maps = [*map(load_map, folders)] if options.radius else []
    conditions = options.conditions
    run(systems, corpus, options.results, conditions, options.matched)
    if options.radius:
        write_radii(systems, maps, corpus, options.radius, conditions)
    print(format_tables(read_results(options.results)))


if __name__ == "__main__":
    with exit_on_input_error():
        main(sys.argv[1:])
