"""From a folder of audio to train.csv and dev.csv, against the stock recipe.

python -m benchmarks.preparation [FILES]

With SPEECHBRAIN_CLONE, a clone of SpeechBrain, its voxceleb_prepare is timed
on the same files.
"""

import importlib.util
import os
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import soundfile

from speechbrain_hyperbolic.dataio.preparation import prepare_corpus

ROUNDS = 3
SECONDS = 4
# VoxCeleb's shape: sessions of ten files, and speakers of ten sessions
PER_FOLDER = 10
TEST_SPEAKER = "id00000"


def make_corpus(folder, files):
    """Copies of a few files of noise."""
    random = np.random.default_rng(0)
    contents = []
    for number in range(20):
        path = folder / f"{number}.wav"
        samples = random.normal(scale=0.1, size=16000 * SECONDS)
        soundfile.write(path, samples, 16000)
        contents.append(path.read_bytes())
    for number in range(files):
        speaker, session = divmod(number // PER_FOLDER, PER_FOLDER)
        below = folder / "corpus" / "wav" / f"id{speaker:05d}" / f"s{session}"
        below.mkdir(parents=True, exist_ok=True)
        path = below / f"{number % PER_FOLDER:05d}.wav"
        path.write_bytes(contents[number % len(contents)])
    return folder / "corpus"


def find_stock(corpus, trials):
    """The stock preparation as a function of a save folder, or None."""
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    if not clone:
        return None
    path = pathlib.Path(
        clone, "recipes/VoxCeleb/SpeakerRec/voxceleb_prepare.py"
    )
    spec = importlib.util.spec_from_file_location("voxceleb_prepare", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda save: module.prepare_voxceleb(
        data_folder=str(corpus),
        save_folder=save,
        verification_pairs_file=str(trials),
        splits=["train", "dev"],
        split_ratio=[90, 10],
        seg_dur=3.0,
    )


def main(files=10_000):
    """Prints a table; the systems take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        corpus = make_corpus(folder, files)
        trials = folder / "trials.txt"
        pair = [f"{TEST_SPEAKER}/s0/0000{n}.wav" for n in range(2)]
        trials.write_text(" ".join(["1", *pair]))
        cases = {
            f"this package, check_audio {check}": (
                lambda save, check=check: prepare_corpus(
                    corpus, save, [TEST_SPEAKER], check_audio=check
                )
            )
            for check in ("header", "decode")
        }
        cases["stock voxceleb_prepare"] = find_stock(corpus, trials)
        seconds = {system: [] for system, run in cases.items() if run}
        for _ in range(ROUNDS):
            for system, taken in seconds.items():
                with tempfile.TemporaryDirectory(dir=folder) as save:
                    began = time.perf_counter()
                    cases[system](save)
                    taken.append(time.perf_counter() - began)
    print(f"\n{files} wav files of {SECONDS} s, medians of {ROUNDS} rounds\n")
    print("| system | s | files / s |\n|---|---|---|")
    for system, taken in seconds.items():
        median = statistics.median(taken)
        print(f"| {system} | {median:.2f} | {files / median:.0f} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
