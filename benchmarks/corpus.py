"""Synthetic recordings and sounds, and tables to train with."""

import csv

import numpy as np
import soundfile

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.preparation import Utterance, write_csv

RATE = 16000


def write_recordings(folder, count, seconds):
    """Noise in wav files, of lengths between two; returns their paths."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05}.wav" for number in range(count)]
    for path in paths:
        length = int(RATE * generator.uniform(*seconds))
        samples = generator.normal(scale=0.1, size=length)
        soundfile.write(path, samples, RATE)
    return paths


def write_sounds(folder, count):
    """To augment with: folders noise, music, speech and rir, and of each a
    CSV file that the stock classes read. Sounds have 10 s, rooms 0.6 s.
    """
    generator = np.random.default_rng(0)
    for kind, seconds in dict(noise=10, music=10, speech=10, rir=0.6).items():
        (folder / kind).mkdir(parents=True)
        rows = [["ID", "duration", "wav", "wav_format", "wav_opts"]]
        for number in range(count):
            path = folder / kind / f"{number}.wav"
            samples = generator.normal(scale=0.1, size=int(seconds * RATE))
            if kind == "rir":
                samples *= np.exp(-np.arange(len(samples)) / 2000)
            soundfile.write(path, samples, RATE)
            rows.append([f"{kind}{number}", seconds, path, "wav", ""])
        with open(folder / f"{kind}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)


def write_tables(folder, paths, rows, speakers):
    """train.csv, dev.csv and trials.txt of recordings in turn, which count as
    so many speakers'.
    """
    lengths = [audio.info(path).frames for path in paths]
    utterances = []
    for number in range(rows):
        path = paths[number % len(paths)]
        length = lengths[number % len(paths)]
        speaker = f"s{number % speakers:05}"
        seconds = length / RATE
        name = f"{speaker}/{number}"
        utterances.append(Utterance(name, seconds, path, 0, length, speaker))
    write_csv(utterances, folder / "train.csv")
    write_csv(utterances[:10], folder / "dev.csv")
    (folder / "trials.txt").write_text("1 t/0 t/1\n")
