"""Training crops from single files and from shards, side by side.

> python -m benchmarks.shards [--files 5000] [--folder /path] [--quick]

The corpus is of noise, in 16-bit wav files of 4 to 12 s, in folders of ten as
VoxCeleb's are; both ways read the same crops of it. "Cold": each round begins
with the pages of all files dropped from the page cache (posix_fadvise), which
a disk with a cache of its own does not notice.
"""

import argparse
import csv
import itertools
import os
import pathlib
import random
import statistics
import tempfile
import time

import numpy as np
import soundfile
import torch
from speechbrain.dataio.dataloader import make_dataloader

from benchmarks.measure import commit, machine, ratio, row, title
from benchmarks.million import resident
from speechbrain_hyperbolic.dataio.corpus import COLUMNS
from speechbrain_hyperbolic.dataio.crops import SharedEpochCounter
from speechbrain_hyperbolic.dataio.shards import pack
from speechbrain_hyperbolic.training import make_datasets

RATE = 16000
PER_FOLDER = 10
WORKERS = (0, 2)
BATCH = 64


def make(folder, files):
    """The files, and the CSV files of a preparation."""
    generator = np.random.default_rng(0)
    noise = generator.normal(scale=0.1, size=20 * RATE)
    rows = []
    for number in range(files):
        session = number // PER_FOLDER
        speaker = f"id{session // PER_FOLDER:05d}"
        name = f"{speaker}/s{session}/{number:06d}"
        path = folder / "corpus" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples, start = generator.integers(
            [4 * RATE, 0], [12 * RATE, 8 * RATE]
        )
        soundfile.write(path, noise[start : start + samples], RATE)
        rows.append([name, samples / RATE, path, 0, samples, speaker])
    for split, own in (("train", rows), ("dev", rows[:1])):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *own])
    return len({own[-1] for own in rows})


def drop(folder):
    """Drops the pages of all files below a folder."""
    for path in folder.rglob("*"):
        if path.suffix in (".wav", ".tar"):
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def measure(folder, speakers, shards, workers, epoch):
    """Crops a second of one epoch, with the start of its workers, and ms of
    processor time a crop.
    """
    counter = SharedEpochCounter(epoch)
    counter.current = epoch
    options = {"batch_size": BATCH, "shuffle": True, "num_workers": workers}
    data, _, _ = make_datasets(
        {
            "data_folder": str(folder),
            "train_annotation": folder / "train.csv",
            "valid_annotation": folder / "dev.csv",
            "shards_folder": shards,
            "shuffle_buffer": None,
            "dataloader_options": options,
            "sample_rate": RATE,
            "sentence_len": 2.015,
            "random_chunk": True,
            "seed": 0,
            "epoch_counter": counter,
            "out_n_neurons": speakers,
        }
    )
    if shards:  # they make the batches
        options |= {"batch_size": None, "shuffle": False}
    began, cpu = time.perf_counter(), sum(os.times()[:4])
    read = sum(len(batch.id) for batch in make_dataloader(data, **options))
    seconds = time.perf_counter() - began
    return read / seconds, 1e3 * (sum(os.times()[:4]) - cpu) / read


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="only tries it")
    args = parser.parse_args()
    if args.quick:
        args.files, args.rounds = 200, 1
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = pathlib.Path(name)
        speakers = make(folder, args.files)
        began = time.perf_counter()
        pack(folder, folder / "shards")
        seconds = time.perf_counter() - began
        size = sum(p.stat().st_size for p in folder.rglob("*.tar"))
        print(f"{machine()}; commit {commit()}; {args.rounds} rounds")
        print(
            f"{args.files} files, {size / 1e6:.0f} MB of shards, packed in "
            f"{seconds:.1f} s, {resident('VmHWM') / 1e6:.0f} MB at the most"
        )
        title(
            "Crops a second, and ms of processor time a crop",
            *("page cache", "workers", "files", "shards", "shards / files"),
            *("files, ms", "shards, ms", "shards / files"),
        )
        ways = {"files": None, "shards": str(folder / "shards")}
        for cache, workers in itertools.product(("warm", "cold"), WORKERS):
            found = {way: [] for way in ways}
            for number in range(args.rounds + 1):
                for way in random.sample(list(ways), 2):
                    if cache == "cold":
                        drop(folder)
                    figures = measure(
                        folder, speakers, ways[way], workers, 1 + number
                    )
                    if number:  # the first warms up
                        found[way].append(figures)
            speeds, costs = (
                [statistics.median(f[which] for f in found[w]) for w in ways]
                for which in range(2)
            )
            row(
                *(cache, workers, *(f"{speed:.0f}" for speed in speeds)),
                ratio(*reversed(speeds)),
                *(f"{cost:.2f}" for cost in costs),
                ratio(*reversed(costs)),
            )


if __name__ == "__main__":
    main()
