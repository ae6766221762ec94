"""From a folder of audio to train.csv and dev.csv, against the stock recipe.

> python -m benchmarks.preparation [--files 10000]

With SPEECHBRAIN_CLONE, a clone of SpeechBrain, its voxceleb_prepare is timed
on the same files.
"""

import functools
import pathlib
import shutil
import statistics
import tempfile

from benchmarks import in_turns, read_options, stock_module, table
from benchmarks.corpus import write_recordings
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus

ROUNDS, SECONDS = 3, 4
# VoxCeleb's shape: sessions of ten files, and speakers of ten sessions
PER_FOLDER = 10
TEST_SPEAKER = "id00000"


def make_corpus(folder, files):
    """Copies of a few recordings."""
    originals = write_recordings(folder / "noise", 20, (SECONDS, SECONDS))
    for number in range(files):
        speaker, session = divmod(number // PER_FOLDER, PER_FOLDER)
        below = folder / "corpus" / "wav" / f"id{speaker:05d}" / f"s{session}"
        below.mkdir(parents=True, exist_ok=True)
        path = below / f"{number % PER_FOLDER:05d}.wav"
        shutil.copyfile(originals[number % len(originals)], path)
    return folder / "corpus"


def main():
    files = read_options(__doc__, files=10_000).files
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        corpus = make_corpus(folder, files)
        trials = folder / "trials.txt"
        trials.write_text(f"1 {TEST_SPEAKER}/s0/0.wav {TEST_SPEAKER}/s0/1.wav")
        cases = {
            f"this package, check_audio {check}": functools.partial(
                prepare_corpus,
                corpus,
                test_speakers=[TEST_SPEAKER],
                check_audio=check,
            )
            for check in ("header", "decode")
        }
        if stock := stock_module("voxceleb_prepare"):
            cases["stock voxceleb_prepare"] = functools.partial(
                stock.prepare_voxceleb,
                str(corpus),
                verification_pairs_file=str(trials),
                splits=["train", "dev"],
                split_ratio=[90, 10],
                seg_dur=3.0,
            )

        def run(prepare):
            with tempfile.TemporaryDirectory(dir=folder) as save:
                prepare(save_folder=save)

        runs = {n: functools.partial(run, case) for n, case in cases.items()}
        rows = []
        for system, seconds in in_turns(runs, ROUNDS, warm_up=0).items():
            median = statistics.median(seconds)
            row = {"system": system, "s": median}
            rows.append(row | {"files / s": round(files / median)})
    print(table(rows))


if __name__ == "__main__":
    main()
