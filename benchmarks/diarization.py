"""Diarization error on mixtures of a corpus's test speakers.

> python -m benchmarks.diarization --model=MODEL --corpus=CORPUS

One to five people take turns; the reference is the speech of their recordings,
with a collar of 0.25 s on each side. Needs pyannote.metrics.
"""

import random

import numpy as np
import torch
import tqdm
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate

from benchmarks import read_options, table
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import read_corpus
from speechbrain_hyperbolic.dataio.speech import speech_segments
from speechbrain_hyperbolic.inference.diarization import diarize
from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)


def mix(by_speaker, n_speakers, n_turns, rng, rate=16000):
    """A waveform [time], and its turns as (start, stop, speaker)."""
    speakers = rng.sample(sorted(by_speaker), n_speakers)
    order = list(speakers)
    while len(order) < n_turns:
        others = [s for s in speakers if s != order[-1]]
        order.append(rng.choice(others or speakers))
    pieces, turns, now = [], [], 0.0
    for speaker in order:
        waveform = audio.load(rng.choice(by_speaker[speaker]), rate)
        waveform /= 2 * waveform.abs().max()
        for start, stop in speech_segments(waveform, rate, 0.3, 0.05):
            turns.append((now + start / rate, now + stop / rate, speaker))
        pause = 1e-4 * torch.randn(int(rng.uniform(0, 0.8) * rate))
        pieces += [waveform, pause]
        now += (len(waveform) + len(pause)) / rate
    return torch.cat(pieces), turns


def error_rate(pairs):
    """The DER of (reference, found) turns, of all recordings together."""
    metric = DiarizationErrorRate(collar=0.5, skip_overlap=True)
    for pair in pairs:
        metric(*map(_annotation, pair))
    return abs(metric)


def _annotation(turns):
    annotation = Annotation()
    for number, (start, stop, speaker) in enumerate(turns):
        annotation[Segment(start, stop), number] = speaker
    return annotation


def main():
    options = read_options(__doc__, model="", corpus="", recordings=20, seed=0)
    rng = random.Random(options.seed)
    torch.manual_seed(options.seed)
    model = HyperbolicSpeakerRecognition.from_pretrained(options.model)
    corpus = read_corpus(options.corpus)
    splits = corpus.splits()
    by_speaker = {}
    for recording in corpus.recordings.values():
        if splits.get(recording.speaker, "test") == "test":
            paths = by_speaker.setdefault(recording.speaker, [])
            paths.append(recording.path)
    found = {"one speaker": [], "number given": [], "number estimated": []}
    right = []
    for number in tqdm.trange(options.recordings, unit="recording"):
        n = 1 + number % 5
        waveform, turns = mix(by_speaker, n, max(8, 4 * n), rng)
        given = diarize(model, waveform, speakers=n)
        estimated = diarize(model, waveform)
        one = [(*turn[:2], "one") for turn in estimated]
        systems = zip(found.values(), (one, given, estimated), strict=True)
        for pairs, its in systems:
            pairs.append((turns, its))
        right.append(len({turn.speaker for turn in estimated}) == n)
    rates = {name: error_rate(pairs) for name, pairs in found.items()}
    print(table([{"system": n, "DER": rate} for n, rate in rates.items()]))
    print(f"The estimated number is right in {np.mean(right):.0%}.")


if __name__ == "__main__":
    main()
