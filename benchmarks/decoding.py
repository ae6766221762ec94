"""Decoded crops per second of one data loader worker, by format.

python -m benchmarks.decoding [RECORDING]

Crops of 2 s of an 8 s recording, noise if none is given, by seconds of
processor time: the formats take turns, so that ratios hold on a busy machine.
"""

import pathlib
import random
import statistics
import sys
import tempfile
import time

import av
import numpy as np
import soundfile
import torch

from speechbrain_hyperbolic.dataio import audio

RATE = 16000
SECONDS, CROP = 8, 2
ROUNDS, CROPS = 5, 100
FORMATS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}


def write_m4a(path, samples):
    """AAC, as VoxCeleb2 is released."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)


def crops_per_second(path, random):
    """Reads crops at random places, as the training does."""
    began = time.process_time()
    for _ in range(CROPS):
        start = random.randrange((SECONDS - CROP) * RATE)
        audio.load(path, RATE, start, start + CROP * RATE)
    return CROPS / (time.process_time() - began)


def is_exact(path):
    """Whether crops are slices of the whole file, bit by bit."""
    whole = audio.load(path, RATE)
    return all(
        torch.equal(audio.load(path, RATE, a, a + RATE), whole[a : a + RATE])
        for a in range(0, len(whole) - RATE, 7001)
    )


def main(recording=None):
    """Prints a table."""
    torch.set_num_threads(1)  # as in a worker
    samples = np.random.default_rng(0).normal(scale=0.1, size=SECONDS * RATE)
    if recording:
        speech = audio.load(recording, RATE)
        samples = audio.repeat_to(speech, SECONDS * RATE).numpy()
    samples = samples.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        paths = {k: pathlib.Path(folder, f"a.{k}") for k in (*FORMATS, "m4a")}
        for kind, name in FORMATS.items():
            soundfile.write(paths[kind], samples, RATE, format=name)
        write_m4a(paths["m4a"], samples)
        rates = {kind: [] for kind in paths}
        for seed in range(ROUNDS):
            for kind, found in rates.items():
                found.append(crops_per_second(paths[kind], random.Random(seed)))
        print("| format | crops / s | exact |\n|---|---|---|")
        for kind, found in rates.items():
            exact = "yes" if is_exact(paths[kind]) else "no"
            print(f"| {kind} | {statistics.median(found):.0f} | {exact} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
