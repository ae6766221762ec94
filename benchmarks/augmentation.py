"""Augmentation against SpeechBrain's: work of the host, and mixing on the CPU.

> OMP_NUM_THREADS=1 python -m benchmarks.augmentation

Host work is what the training process does between two steps: to draw, read
and copy the sounds of a batch of 256; the stock readers have no workers. A call
augments 32 utterances: from files in the page cache, and with sounds in memory.
"""

import itertools
import pathlib
import statistics
import tempfile
import time

import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import AddNoise, AddReverb

from benchmarks import in_turns, read_options, table
from benchmarks.corpus import RATE, write_sounds
from speechbrain_hyperbolic.augment import SpeakerAugmenter

TIME = 32240  # 200 frames
FILES = 100  # of each kind
DRAWS = 50  # that take turns: rows with a room cost more than others
SNR = {"noise": (0, 15), "music": (5, 15), "speech": (13, 20)}


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
    return noise.clone(), rooms.clone()


def keep_sounds(classes):
    """Puts sounds for 32 utterances in the place of the stock readers."""
    lengths = torch.full((32, 1), float(TIME))
    for kind in SNR:
        noises, long = classes[kind]._load_noise(lengths, TIME)

        def read(*_, kind=kind, noises=noises, long=long):
            made = babble(noises) if kind == "speech" else noises.clone()
            return made, long

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
    # The stock classes overwrite noise, so theirs is a copy; ours do not.
    found = []
    for step in range(DRAWS):
        augment.go_to(0, step)
        found.append(augment.read(augment.draw(len(batch[0])), TIME))
    steps = itertools.cycle(range(DRAWS))

    def call():
        step = next(steps)
        augment.go_to(0, step)
        augment.read = lambda *_: found[step]
        augment(*batch)

    return call


def compare(work, cases, rounds):
    """The stock's cases, a batch has one of them, and ours."""
    # What other processes do does not count.
    seconds = in_turns(cases, rounds, clock=time.process_time)
    medians = {n: 1e3 * statistics.median(s) for n, s in seconds.items()}
    ours = medians.pop("ours")
    stock = statistics.fmean(medians.values())
    row = {"work": work, "stock, ms": stock, "ours, ms": ours}
    return row | {"ours / stock": ours / stock}


def main():
    rounds = read_options(__doc__, rounds=20).rounds
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_sounds(folder, FILES)
        bank = folder / "bank"
        augment = SpeakerAugmenter(folder, folder / "rir", bank, RATE)
        augment.prepare()
        classes = stock_classes(folder)
        host = {
            "stock": lambda: read_by_stock(classes, 256),
            "ours": lambda: read_by_ours(augment, 256),
        }
        rows = [compare("host, 256 x 2 s", host, rounds)]
        batch = torch.randn(32, TIME), torch.ones(32)
        for in_memory in (False, True):
            cases = stock_calls(folder, batch, in_memory)
            cases["ours"] = our_call(augment, batch, in_memory)
            work = f"a call, 32 x 2 s{', in memory' if in_memory else ''}"
            rows.append(compare(work, cases, rounds))
    print(table(rows))


if __name__ == "__main__":
    main()
