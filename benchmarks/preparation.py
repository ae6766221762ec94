"""From a folder of audio to CSV files, against the stock preparation."""

import importlib.util
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.measure import fresh, ratio, row, times, title
from benchmarks.million import resident
from speechbrain_hyperbolic.dataio.corpus import prepare_corpus

FILES = 10_000
MANY = 1_100_000
SECONDS = 4
CONTENTS = 20  # ext4 allows 65,000 hard links to each
# VoxCeleb's shape: sessions of ten files, and of those ten a speaker.
PER_FOLDER = 10
TEST_SPEAKER = "id00000"


def make(folder, files, place):
    """A corpus of noise; place(source, path) puts one of a few files there."""
    random = np.random.default_rng(0)
    sources = []
    for number in range(CONTENTS):
        noise = random.normal(scale=0.1, size=16000 * SECONDS)
        sources.append(folder / f"{number}.wav")
        soundfile.write(sources[-1], noise, 16000)
    for number in range(0, files, PER_FOLDER):
        speaker, session = divmod(number // PER_FOLDER, PER_FOLDER)
        below = folder / "corpus" / "wav" / f"id{speaker:05d}" / f"s{session}"
        below.mkdir(parents=True)
        for index in range(PER_FOLDER):
            source = sources[(number + index) % CONTENTS]
            place(source, below / f"{index:05d}.wav")
    return folder / "corpus"


def copy(source, path):
    path.write_bytes(source.read_bytes())


def ours(corpus, folder, check_audio):
    with tempfile.TemporaryDirectory(dir=folder) as save:
        prepare_corpus(corpus, save, [TEST_SPEAKER], check_audio=check_audio)


def stock(corpus, folder, trials, prepare):
    with tempfile.TemporaryDirectory(dir=folder) as save:
        prepare(
            data_folder=str(corpus),
            save_folder=save,
            verification_pairs_file=str(trials),
            splits=["train", "dev"],
            split_ratio=[90, 10],
            seg_dur=3.0,
        )


def find_stock():
    """The stock function, or None."""
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    if not clone:
        return None
    path = Path(clone, "recipes/VoxCeleb/SpeakerRec/voxceleb_prepare.py")
    spec = importlib.util.spec_from_file_location("voxceleb_prepare", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.prepare_voxceleb


def compare(files, rounds):
    prepare = find_stock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = make(folder, files, copy)
        trials = folder / "trials.txt"
        trials.write_text(
            f"1 {TEST_SPEAKER}/s0/00000.wav {TEST_SPEAKER}/s0/00001.wav\n"
        )
        cases = {
            f"this package, check_audio {check}": (
                lambda check=check: ours(corpus, folder, check)
            )
            for check in ("header", "decode")
        }
        if prepare:
            cases["stock voxceleb_prepare"] = lambda: stock(
                corpus, folder, trials, prepare
            )
        seconds = times(cases, rounds)
    title(
        f"Preparation of {files} wav files of {SECONDS} s, {rounds} rounds",
        "system",
        "s",
        "files / s",
        "ours / it",
        "target",
    )
    first = next(iter(seconds.values()))
    for name, its in seconds.items():
        target = "≤ 1/20" if name.startswith("stock") else ""
        row(name, f"{its:.2f}", round(files / its), ratio(first, its), target)
    if not prepare:
        print(
            "\nThe stock preparation is skipped: SPEECHBRAIN_CLONE is not set "
            "to a clone of SpeechBrain."
        )


def measure(corpus, folder):
    """Seconds, and bytes: the most that was resident, and before."""
    before = resident("VmRSS")
    began = time.perf_counter()
    ours(corpus, folder, "header")
    return time.perf_counter() - began, resident("VmHWM"), before


def many(files):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = make(folder, files, os.link)
        seconds, most, before = fresh(measure, corpus, folder)
    title(
        f"Preparation of {files} wav files",
        "s",
        "files / s",
        "MiB",
        "MiB before",
    )
    row(
        f"{seconds:.1f}",
        round(files / seconds),
        f"{most / 2**20:.0f}",
        f"{before / 2**20:.0f}",
    )


def main(quick):
    compare(*(200, 1) if quick else (FILES, 3))
    if not quick:
        many(MANY)
