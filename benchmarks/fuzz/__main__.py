"""Fuzzes the readers, each in a process of its own, and prints markdown.

> python -m benchmarks.fuzz [reader ...] [--inputs 10000] [--seed 0]

What fails, in whichever way, is kept with its traceback in a folder, one input
for each place in the code; the command then exits with 1.
"""

import argparse
import os
import pathlib
import re
import sys
from collections import Counter

import tqdm
from hypothesis import HealthCheck, Phase, given, seed, settings
from speechbrain.utils.importutils import LazyModule

from benchmarks.fuzz.readers import READERS
from benchmarks.fuzz.worker import ACCEPTED, REFUSED, Worker, write
from benchmarks.measure import commit, machine, row, title

# Hypothesis asks every loaded module for its file; SpeechBrain's lazy modules
# would import optional packages to answer.
LazyModule.__file__ = None

COLUMNS = ("reader", "inputs", "accepted", "refused with InputError", "other")
COLUMNS += ("slowest, s", "peak memory, MiB")
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')


def fuzz(name, reader, inputs, number, folder):
    """Prints a row of the table.

    Arguments
    ---------
    name : str
    reader : Reader
    inputs : int
    number : int
        Seed of hypothesis.
    folder : pathlib.Path
        Where failures go.

    Returns
    -------
    failures : int
    """
    counts, slowest, most = Counter(), 0, 0
    bar = tqdm.tqdm(total=inputs, desc=name, unit="input", dynamic_ncols=True)
    with bar, Worker(reader.read) as read:

        @seed(number)
        @settings(
            max_examples=inputs,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(reader.files)
        def each(files):
            nonlocal slowest, most
            outcome = read(files)
            counts["other" if outcome.failed else outcome.kind] += 1
            slowest = max(slowest, outcome.seconds)
            most = max(most, outcome.memory)
            if outcome.failed:
                _keep(files, outcome, folder / name)
            bar.update()

        each()
    row(
        name,
        counts.total(),
        f"{counts[ACCEPTED]} ({counts[ACCEPTED] / counts.total():.0%})",
        counts[REFUSED],
        counts["other"],
        f"{slowest:.2f}",
        most >> 20,
    )
    return counts["other"]


def _keep(files, outcome, folder):
    """Of each place the first input."""
    places = _PLACE.findall(outcome.text) or [("nowhere", "0")]
    file, line = next(
        (p for p in places[::-1] if "speechbrain_hyperbolic" in p[0]), places[0]
    )
    kind = outcome.kind.replace(" ", "-")
    folder = folder / f"{kind}-{pathlib.Path(file).stem}-{line}"
    if not folder.exists():
        write(folder, files)
        (folder / "traceback.txt").write_text(
            f"{outcome.kind}, {outcome.seconds:.2f} s, "
            f"{outcome.memory >> 20} MiB\n{outcome.text}",
            errors="replace",
        )
        tqdm.tqdm.write(f"{outcome.kind}: see {folder}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("readers", nargs="*", help=", ".join(READERS))
    parser.add_argument("--inputs", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--failures", type=pathlib.Path, default="results/fuzz", metavar="DIR"
    )
    args = parser.parse_args()
    for name in args.readers:
        if name not in READERS:
            parser.error(f"{name} is not one of {', '.join(READERS)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"commit {commit()}; {machine()}")
    title(f"Seed {args.seed}", *COLUMNS)
    failures = sum(
        fuzz(name, READERS[name], args.inputs, args.seed, args.failures)
        for name in args.readers or READERS
    )
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
