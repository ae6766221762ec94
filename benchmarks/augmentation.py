"""Augmentation against SpeechBrain's: work of the host, and mixing on the CPU.

> OMP_NUM_THREADS=1 python -m benchmarks.augmentation

Host work is what the training process does between two steps: to draw, read
and copy the sounds of a batch of 256. The stock readers have no workers, as the
hparams files of version 0.1 had it. A call augments 32 utterances: with what is
read from files, which are in the page cache, and with sounds in memory.
"""

import argparse
import csv
import pathlib
import statistics
import tempfile
import time

import numpy as np
import soundfile
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import AddNoise, AddReverb

from benchmarks import commit, machine
from speechbrain_hyperbolic.augment import SpeakerAugmenter

RATE, TIME = 16000, 32240  # 200 frames
FILES, SECONDS = 100, 10  # of each kind
SNR = {"noise": (0, 15), "music": (5, 15), "speech": (13, 20)}
# The most that ours may take: ms of the host, and shares of the stock's time
MOST_MS, MOST_HOST, MOST_CALL = 25, 1 / 15, 0.5


def make_files(folder):
    """Sounds and rooms, and the CSV files that the stock classes read."""
    generator = np.random.default_rng(0)
    for kind in (*SNR, "rir"):
        (folder / kind).mkdir()
        with open(folder / f"{kind}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ID", "duration", "wav", "wav_format", "wav_opts"])
            for number in range(FILES):
                samples = generator.standard_normal(SECONDS * RATE) / 10
                if kind == "rir":
                    decay = np.exp(-np.arange(0.6 * RATE) / 2000)
                    samples = samples[: len(decay)] * decay
                path = folder / kind / f"{number}.wav"
                soundfile.write(path, samples, RATE)
                seconds = len(samples) / RATE
                writer.writerow([f"{kind}{number}", seconds, path, "wav", ""])


def stock_classes(folder):
    """Of each kind. They read all of a batch's files at once."""
    added = {
        kind: AddNoise(folder / f"{kind}.csv", snr_low=low, snr_high=high)
        for kind, (low, high) in SNR.items()
    }
    return {**added, "rir": AddReverb(folder / "rir.csv")}


def read_by_stock(classes, batch):
    """A quarter of the batch gets each kind, and all of it one room."""
    lengths = torch.full((batch // 4, 1), float(TIME))
    for kind in SNR:
        classes[kind]._load_noise(lengths, TIME)
    classes["rir"]._load_rir(torch.zeros(1, 1))


def read_by_ours(augment, batch):
    draws = augment.draw(batch)
    augment.step += 1
    noise, rooms, _ = augment.read(draws, TIME)
    # On CUDA, to the GPU. Here the copy stays in memory.
    return noise.clone(), rooms.clone()


def keep_sounds(classes):
    """Puts sounds for 32 utterances in the place of the stock readers."""
    lengths = torch.full((32, 1), float(TIME))
    for kind in SNR:
        noises, long = classes[kind]._load_noise(lengths, TIME)

        def read(*_, kind=kind, noises=noises, long=long):
            return (
                babble(noises) if kind == "speech" else noises.clone()
            ), long

        classes[kind]._load_noise = read
    room = classes["rir"]._load_rir(torch.zeros(1, 1))
    classes["rir"]._load_rir = lambda *_: room


def babble(pool):
    """3 to 8 voices each, which the stock classes do not have."""
    mixed = torch.zeros_like(pool)
    for row in mixed:
        for _ in range(int(torch.randint(3, 9, ()))):
            voice = pool[int(torch.randint(len(pool), ()))]
            row += voice.roll(int(torch.randint(TIME, ())))
    return mixed


def stock_calls(folder, batch, in_memory):
    """A call of the stock Augmenter for each kind: a batch has one."""
    classes = stock_classes(folder)
    if in_memory:
        keep_sounds(classes)
    options = {"parallel_augment": True, "concat_original": True}
    options |= {"min_augmentations": 1, "max_augmentations": 1}
    augmenters = {
        k: Augmenter(augmentations=[c], **options) for k, c in classes.items()
    }
    return {k: lambda a=a: a(*batch) for k, a in augmenters.items()}


def our_call(augment, batch, in_memory):
    if not in_memory:
        return lambda: augment(*batch)
    noise, rooms, direct = augment.read(augment.draw(len(batch[0])), TIME)
    step = augment.step

    def call():
        augment.go_to(0, step)
        augment(*batch)

    augment.read = lambda *_: (noise.clone(), rooms, direct)
    return call


def seconds(work):
    begin = time.process_time()  # what other processes do does not count
    work()
    return time.process_time() - begin


def in_turns(cases, rounds):
    """Median processor seconds of each case, without the first rounds."""
    found = [
        {n: seconds(work) for n, work in cases.items()} for _ in range(rounds)
    ]
    return {
        name: statistics.median(f[name] for f in found[2:]) for name in cases
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds + 2
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_files(folder)
        augment = SpeakerAugmenter(
            folder, folder / "rir", folder / "bank", RATE
        )
        augment.prepare()
        classes = stock_classes(folder)
        host = in_turns(
            {
                "stock": lambda: read_by_stock(classes, 256),
                "ours": lambda: read_by_ours(augment, 256),
            },
            rounds,
        )
        batch = torch.randn(32, TIME), torch.ones(32)
        calls = []
        for in_memory in (False, True):
            cases = stock_calls(folder, batch, in_memory)
            cases["ours"] = our_call(augment, batch, in_memory)
            found = in_turns(cases, rounds)
            ours = found.pop("ours")
            calls.append(
                {"stock": statistics.fmean(found.values()), "ours": ours}
            )
    print(
        f"Commit {commit()}; {machine()}; processor time, "
        f"medians of {rounds - 2} rounds\n"
    )
    print("| work | stock, ms | ours, ms | ours / stock | must be at most |")
    print("|---|---|---|---|---|")
    for work, took, most in (
        ("host, 256 x 2 s", host, f"{MOST_HOST:.3f} and {MOST_MS} ms"),
        ("a call on the CPU, 32 x 2 s", calls[0], MOST_CALL),
        ("the same, sounds in memory", calls[1], MOST_CALL),
    ):
        stock, ours = took["stock"] * 1000, took["ours"] * 1000
        found = f"{stock:.1f} | {ours:.1f} | {ours / stock:.3f}"
        print(f"| {work} | {found} | {most} |")


if __name__ == "__main__":
    main()
