"""Decoded crops per second of one data loader worker, by format.

> OMP_NUM_THREADS=1 python -m benchmarks.decoding

Crops of 2 s of 8 s of noise, by seconds of processor time: the formats take
turns, so that ratios hold on a busy machine.
"""

import pathlib
import random
import statistics
import tempfile
import time

import av
import numpy as np
import soundfile

from benchmarks import in_turns, read_options, table
from benchmarks.corpus import RATE
from speechbrain_hyperbolic.dataio import audio

SECONDS, CROP = 8, 2
FORMATS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}


def write_m4a(path, samples):
    """AAC, as VoxCeleb2 is released."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)


def read_crops(path, count):
    """Reads crops at random places, as the training does."""
    for _ in range(count):
        start = random.randrange((SECONDS - CROP) * RATE)
        audio.load(path, RATE, start, start + CROP * RATE)


def main():
    options = read_options(__doc__, rounds=5, crops=100)
    samples = np.random.default_rng(0).normal(scale=0.1, size=SECONDS * RATE)
    samples = samples.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        paths = {k: pathlib.Path(folder, f"a.{k}") for k in (*FORMATS, "m4a")}
        for kind, name in FORMATS.items():
            soundfile.write(paths[kind], samples, RATE, format=name)
        write_m4a(paths["m4a"], samples)
        cases = {
            kind: lambda path=path: read_crops(path, options.crops)
            for kind, path in paths.items()
        }
        found = in_turns(cases, options.rounds, clock=time.process_time)
        rows = []
        for kind, seconds in found.items():
            rate = options.crops / statistics.median(seconds)
            rows.append({"format": kind, "crops / s": round(rate)})
    print(table(rows))


if __name__ == "__main__":
    main()
