"""Examples per second of training, by the stock script and by this one.

> SPEECHBRAIN_CLONE=/path/to/speechbrain python -m benchmarks.throughput \
      --data_folder=/path/to/corpus

Both train the same encoder on the same utterances, in batches of the same size
and with the same augmentation, each in a process of its own, in turn. What is
printed is for docs/throughput.md. With --quick all is only tried.
"""

import argparse
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import commit, machine, row, title
from benchmarks.throughput import runs
from benchmarks.throughput.runs import HPARAMS, STOCK_AAM, Side
from speechbrain_hyperbolic.errors import exit_on_input_error

HAM, AAM = HPARAMS / "ham_ecapa.yaml", HPARAMS / "aam_ecapa.yaml"
WARM_UP = 2  # batches of a round
# What glibc's malloc is told by the environment, before a process starts
KEEP = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}


class Pair(NamedTuple):
    """A row of the table.

    Arguments
    ---------
    label : str
    stock, ours : Side
    channels : int
        Of ECAPA.
    rounds : int
        Of each side.
    batches : int
        Of a round, after the warm-up.
    environment : dict
        Of both processes.
    """

    label: str
    stock: Side
    ours: Side
    channels: int
    rounds: int
    batches: int
    environment: dict = {}


def pairs(channels, rounds, batches):
    """The rows of the table."""
    ham = Side("stock", HAM), Side("ours", HAM)
    stock_head = Side("stock", STOCK_AAM), Side("ours", STOCK_AAM)
    recipes = Side("stock", STOCK_AAM), Side("ours", AAM)
    small = channels, rounds, batches
    return [
        Pair("AAM-Softmax: stock head and loss, and ours", *recipes, *small),
        Pair("HAM-Softmax: ham_ecapa.yaml in both", *ham, *small),
        Pair("stock head and loss in both", *stock_head, *small),
        Pair("HAM-Softmax, both with MALLOC_*_THRESHOLD_", *ham, *small, KEEP),
        Pair("HAM-Softmax, 1024 channels", *ham, 1024, 2, 2),
    ]


def compare(pair, overrides, data_folder, work_folder, device):
    """Trains both sides in turn.

    Returns
    -------
    rounds : dict
        "stock" and "ours" -> list of (steps, losses), see ``Run.round``.
    loading : dict
        Seconds to make a batch.
    memory : dict
        Bytes that were resident at most.
    """
    run_overrides = {
        "data_folder": str(data_folder),
        "channels": pair.channels,
        "noise_source": "generate",
        "rir_source": "generate",
        "data_folder_noise": str(work_folder / "noise"),
        "data_folder_rir": str(work_folder / "rir"),
        **overrides,
    }
    length = overrides["sentence_len"]
    rows = (WARM_UP + pair.batches) * overrides["batch_size"]
    table = str(runs.prepare(data_folder, work_folder, rows, length))
    run_overrides |= {"train_annotation": table, "valid_annotation": table}
    before = dict(os.environ)
    os.environ.update(pair.environment)
    pools = {}
    try:
        for side in (pair.stock, pair.ours):
            output = work_folder / side.script
            (output / "save").mkdir(parents=True, exist_ok=True)
            (output / "save" / "label_encoder.txt").unlink(missing_ok=True)
            pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            pools[side.script] = pool
            own = run_overrides | {"output_folder": str(output)}
            pool.submit(runs.start, side, own, device).result()
        rounds = {name: [] for name in pools}
        for _ in range(pair.rounds):
            for name, pool in pools.items():
                rounds[name].append(pool.submit(runs.train).result())
        loading, memory = (
            {name: pool.submit(of).result() for name, pool in pools.items()}
            for of in (runs.load, runs.peak)
        )
    finally:
        for pool in pools.values():
            pool.shutdown()
        os.environ.clear()
        os.environ.update(before)
    return rounds, loading, memory


def rates(steps, batch_size):
    """Examples per second of a round, and CPU milliseconds an example."""
    measured = steps[WARM_UP:]
    examples = batch_size * len(measured)
    cpu = sum(step["CPU"] for step in measured)
    seconds = sum(sum(step.values()) for step in measured) - cpu
    return examples / seconds, 1e3 * cpu / examples


def profile(rounds):
    """Median milliseconds of a batch by part, over all rounds."""
    steps = [step for steps, _ in rounds for step in steps[WARM_UP:]]
    return {
        part: 1e3 * statistics.median(step[part] for step in steps)
        for part in steps[0]
        if part != "CPU"
    }


def write_rates(pair, found, batch_size):
    """The row of a pair: medians of its rounds, and their range."""
    rounds, _, memory = found
    by_side = {
        name: [rates(steps, batch_size) for steps, _ in of]
        for name, of in rounds.items()
    }
    ratios, cpu_ratios = (
        sorted(
            ours[i] / stock[i]
            for stock, ours in zip(*by_side.values(), strict=True)
        )
        for i in (0, 1)
    )
    speeds, cpu = (
        [statistics.median(of[i] for of in by_side[s]) for s in by_side]
        for i in (0, 1)
    )
    # Of the first round: both start from the same weights.
    first = [rounds[name][0][1][0] for name in rounds]
    row(
        pair.label,
        pair.channels,
        *(f"{speed:.1f}" for speed in speeds),
        f"**{statistics.median(ratios):.2f}** "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
        *(f"{value:.1f}" for value in cpu),
        f"{statistics.median(cpu_ratios):.2f}",
        *(round(memory[name] / 1e6) for name in rounds),
        *(f"{loss:.3f}" for loss in first),
    )


def write_profile(pair, found):
    """Where the time of a batch goes, by part and side."""
    rounds, loading, _ = found
    parts = {name: profile(of) for name, of in rounds.items()}
    totals = {name: sum(of.values()) for name, of in parts.items()}
    title(
        f"A batch: {pair.label}, {pair.channels} channels",
        "part",
        "stock, ms",
        "ours, ms",
        "ours, share",
    )
    for part in parts["ours"]:
        row(
            part,
            *(f"{of[part]:.1f}" for of in parts.values()),
            f"{parts['ours'][part] / totals['ours']:.1%}",
        )
    row("sum", *(f"{total:.0f}" for total in totals.values()), "")
    made = (f"{1e3 * seconds:.0f}" for seconds in loading.values())
    row("a batch made by a worker meanwhile", *made, "")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--work_folder", help="default: a temporary one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        choices=range(1, 6),
        default=range(1, 6),
        help="of the table; default: all",
    )
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    table = pairs(options.channels, options.rounds, options.batches)
    table = [table[number - 1] for number in options.rows]
    if options.quick:
        tiny = {"channels": 8, "rounds": 1, "batches": 1}
        table = [pair._replace(**tiny) for pair in table]
        options.batch_size = 4
    overrides = {
        "batch_size": options.batch_size,
        "num_workers": options.num_workers,
        "sentence_len": 2.015,
    }
    print(f"Commit {commit()}; {machine()}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        work_folder = Path(options.work_folder or temporary).resolve()
        data_folder = Path(options.data_folder).resolve()
        title(
            f"Examples per second, batch {options.batch_size}, "
            f"{options.num_workers} workers; median of {options.rounds} "
            f"rounds of {options.batches} batches",
            "what",
            "channels",
            "stock",
            "ours",
            "ours / stock",
            "stock, CPU ms an example",
            "ours",
            "ours / stock",
            "stock, MB at most",
            "ours",
            "stock, loss of the first batch",
            "ours",
        )
        profiles = []
        for pair in table:
            found = compare(
                pair, overrides, data_folder, work_folder, options.device
            )
            write_rates(pair, found, options.batch_size)
            profiles.append((pair, found))
        for pair, found in profiles:
            write_profile(pair, found)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
