"""Error rates of trained models when the test recordings are degraded.

> python -m benchmarks.robustness RUN_FOLDER... --data_folder CORPUS

A run folder is that of a training, with its model folder; runs whose names
differ only after the last dot (ham.1, ham.2) are one loss. Nobody who trained
one of the models is tested. Embeddings are kept, so the same command resumes.
The enrolled utterance is as recorded, the test utterance is degraded.
"""

import argparse
import collections
import hashlib
import io
import math
import pathlib

import av
import numpy as np
import scipy.signal
import torch
import tqdm

from benchmarks import commit, draws, machine
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import (
    list_audio,
    read_speakers,
    speaker_of,
)
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.evaluation.cache import identity
from speechbrain_hyperbolic.evaluation.extraction import SHORTEST, Encoder
from speechbrain_hyperbolic.evaluation.metrics import eer
from speechbrain_hyperbolic.inference.model import load_model

RATE = 16000
VERSION = 2  # raise it when a condition gives other waveforms than before
_TELEPHONE = 8000
_BAND = scipy.signal.butter(
    6, (300, 3400), "bandpass", fs=_TELEPHONE, output="sos"
)
_VOICES = 6  # in babble
_POOL = 100  # speakers of whom babble is made
_DIRECT = 0.0025  # seconds of a room's response that are the direct path's


def telephone(speech, *_):
    """A call: 300 to 3400 Hz, sampled at 8 kHz, coded by G.711 (mu-law)."""
    narrow = scipy.signal.resample_poly(speech, 1, RATE // _TELEPHONE)
    narrow = scipy.signal.sosfiltfilt(_BAND, narrow)
    return _code(narrow, len(speech), _TELEPHONE, "wav", "pcm_mulaw")


def mp3(speech, *_):
    """At 32 kbit/s."""
    return _code(speech, len(speech), RATE, "mp3", "libmp3lame", 32000)


def opus(speech, *_):
    """At 12 kbit/s, as voice messages have it."""
    voip = {"application": "voip"}
    return _code(speech, len(speech), RATE, "ogg", "libopus", 12000, voip)


def _code(speech, samples, rate, container, codec, bits=None, options=None):
    """Encodes and decodes in memory; the containers tell a codec's delay."""
    pcm = np.round(np.clip(speech, -1, 1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = rate
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate, options or {}, layout="mono")
        if bits:
            stream.bit_rate = bits
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as coded:
        (stream,) = coded.streams.audio
        resampler = av.AudioResampler("fltp", "mono", stream.rate)
        blocks = [
            block.to_ndarray()[0]
            for frame in coded.decode(stream)
            for block in resampler.resample(frame)
        ]
        common = math.gcd(RATE, stream.rate)
        up, down = RATE // common, stream.rate // common
    decoded = scipy.signal.resample_poly(np.concatenate(blocks), up, down)
    missing = max(0, samples - len(decoded))
    return np.pad(decoded[:samples], (0, missing))


def add(speech, noise, snr):
    """Adds noise at a ratio of powers in dB, both over the whole clip.

    >>> add(np.ones(2), np.array([5.0, -5.0]), snr=20)
    array([1.1, 0.9])
    """
    power = np.mean(np.square(speech)) / np.mean(np.square(noise))
    return speech + noise * np.sqrt(power / 10 ** (snr / 10))


def babble(speech, random, voices):
    """Several other speakers, each of the same power."""
    mixed = np.zeros(len(speech))
    count = min(_VOICES, len(voices))
    for index in random.choice(len(voices), count, replace=False):
        voice = np.roll(voices[index], random.integers(len(voices[index])))
        # A silent recording stays silent.
        level = np.sqrt(np.mean(voice**2)) or 1
        mixed += np.resize(voice, len(speech)) / level
    return mixed


def speech_noise(speech, random, voices):
    """Stationary noise with the spectrum of speech: babble with new phases."""
    spectrum = np.fft.rfft(babble(speech, random, voices))
    turns = np.exp(2j * np.pi * random.random(len(spectrum)))
    return np.fft.irfft(np.abs(spectrum) * turns, len(speech))


def reverberate(speech, random, _):
    """A room: 60 dB of decay in 0.3 to 0.8 s, and as much energy in the
    direct path as in the tail, within 3 dB.
    """
    decay = random.uniform(0.3, 0.8)
    ratio = 10 ** (random.uniform(-3, 3) / 10)
    time = np.arange(round(decay * RATE)) / RATE
    tail = random.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail[time < _DIRECT] = 0
    response = tail / np.linalg.norm(tail)
    response[0] = np.sqrt(ratio)
    response /= np.linalg.norm(response)
    return scipy.signal.fftconvolve(speech, response)[: len(speech)]


def _noisy(make, snr):
    return lambda *given: add(given[0], make(*given), snr)


# Name -> function of a waveform, a random generator and others' waveforms
CONDITIONS = {
    "clean": lambda speech, *_: speech,
    "telephone": telephone,
    "mp3": mp3,
    "opus": opus,
    "noise15": _noisy(speech_noise, 15),
    "noise10": _noisy(speech_noise, 10),
    "noise5": _noisy(speech_noise, 5),
    "babble10": _noisy(babble, 10),
    "reverb": reverberate,
    "first2s": lambda speech, *_: speech[: 2 * RATE],
    "first1s": lambda speech, *_: speech[:RATE],
}


def degrade(name, speech, utterance, voices):
    """A recording in a condition, float32, the same whenever it is made."""
    # One kind of noise is the same at each level.
    seed = f"{name.rstrip('0123456789')}\n{utterance}".encode()
    digest = hashlib.sha256(seed).digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    return CONDITIONS[name](speech, random, voices).astype(np.float32)


def find_utterances(data_folder, run_folders, most):
    """Utterance -> path: the first ones of each speaker who did not train."""
    trained = set()
    for folder in run_folders:
        rows = read_table(folder / "save" / "train.csv", ["spk_id"])
        trained.update(row["spk_id"] for _, row in rows)
    splits = {s: r.get("split") for s, r in read_speakers(data_folder).items()}
    seen, found = collections.Counter(), {}
    for utterance, path in list_audio(data_folder).items():
        speaker = speaker_of(utterance)
        if speaker in trained or splits.get(speaker) == "train":
            continue
        seen[speaker] += 1
        if not most or seen[speaker] <= most:
            found[utterance] = path
    if len(seen) < 2 or max(seen.values()) < 2:
        raise InputError(
            f"data_folder {data_folder} has {len(seen)} speakers who trained "
            "none of the models, expected two, one of them with two utterances"
        )
    return found


class Corpus:
    """Test utterances, their waveforms and speakers."""

    def __init__(self, utterances):
        self.utterances = utterances
        self.speakers = np.array([*map(speaker_of, utterances)])
        names = "".join(utterances).encode()
        files = b"".join(map(identity, utterances.values()))
        self.digest = hashlib.sha256(names + files).hexdigest()[:16]
        firsts = {speaker_of(u): utterances[u] for u in reversed(utterances)}
        chosen = sorted(firsts)[:_POOL]
        self.voices = {s: audio.load(firsts[s], RATE).numpy() for s in chosen}

    def waveforms(self, condition):
        """Each utterance in a condition, at least as long as encoders need."""
        bar = tqdm.tqdm(self.utterances.items(), condition, mininterval=5)
        for utterance, path in bar:
            speaker = speaker_of(utterance)
            others = [v for s, v in self.voices.items() if s != speaker]
            speech = audio.load(path, RATE).numpy()
            made = torch.from_numpy(
                degrade(condition, speech, utterance, others)
            )
            shortest = max(len(made), int(SHORTEST * RATE))
            yield audio.repeat_to(made, shortest)


def embed(folder, corpus, condition, cache_folder, device):
    """Embeddings [N, D] of a run's model, computed once."""
    config, modules = load_model(folder / "model")
    if config.sample_rate != RATE:
        raise InputError(f"{folder} is for {config.sample_rate} Hz, not {RATE}")
    encoder = Encoder(**modules, device=device)
    name = f"{encoder.fingerprint()[:16]}-{corpus.digest}-{condition}"
    path = cache_folder / f"v{VERSION}-{name}.npy"
    if not path.is_file():
        waves = corpus.waveforms(condition)
        embeddings = torch.cat([encoder(wave[None]) for wave in waves])
        with atomic_path(path) as temporary:
            np.save(temporary, embeddings.numpy())
    embeddings = np.load(path)
    if not np.isfinite(embeddings).all():
        raise InputError(f"{folder}: its embeddings are not finite")
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def score(enrolled, tested, speakers):
    """Cosines of all ordered pairs, and the two speakers of each."""
    _, number = np.unique(speakers, return_inverse=True)
    pairs = np.nonzero(~np.eye(len(number), dtype=bool))
    return (enrolled @ tested.T)[pairs], number[pairs[0]], number[pairs[1]]


def main():
    """Reads the command line, measures, and prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.robustness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--utterances_per_speaker", type=int, default=4)
    parser.add_argument(
        "--conditions", nargs="+", choices=CONDITIONS, default=[*CONDITIONS]
    )
    parser.add_argument("--against", default="am", metavar="LOSS")
    cache = pathlib.Path("results/robustness")
    parser.add_argument("--cache_folder", type=pathlib.Path, default=cache)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    most = options.utterances_per_speaker
    found = find_utterances(options.data_folder, options.folders, most)
    corpus = Corpus(found)
    # Loss -> condition -> seed -> EER in % and its draws
    losses = collections.defaultdict(lambda: collections.defaultdict(dict))
    place = options.cache_folder, options.device
    names = {f.resolve().name.rpartition(".")[0] for f in options.folders}
    compared = options.against in names and len(names) > 1
    for folder in options.folders:
        loss, _, seed = folder.resolve().name.rpartition(".")
        clean = embed(folder, corpus, "clean", *place)
        for condition in options.conditions:
            tested = embed(folder, corpus, condition, *place)
            scores, a, b = score(clean, tested, corpus.speakers)
            rate = 100 * eer(scores[a == b], scores[a != b])[0]
            drawn = draws.draw_eers(scores, a, b) if compared else None
            losses[loss or seed][condition][seed] = rate, drawn
    print(f"\n{len(found)} utterances of {len(set(corpus.speakers))} speakers")
    print(f"Commit {commit()}; {machine(options.device)}\n\nEER %\n")
    draws.print_table([_means(loss, of) for loss, of in losses.items()])
    if compared:
        base = losses.pop(options.against)
        print(f"\nAgainst {options.against}\n")
        rows = [_differences(name, of, base) for name, of in losses.items()]
        draws.print_table(rows)


def _means(loss, conditions):
    row = {"loss": loss, "seeds": len(next(iter(conditions.values())))}
    for condition, seeds in conditions.items():
        row[condition] = draws.mean_text([rate for rate, _ in seeds.values()])
    return row


def _differences(loss, conditions, base):
    row = {"loss": loss}
    for condition, seeds in conditions.items():
        shared = sorted(seeds.keys() & base[condition].keys())
        row[condition] = "no seed in common"
        if shared:
            sides = [
                list(zip(*(of[seed] for seed in shared), strict=True))
                for of in (base[condition], seeds)
            ]
            row[condition] = draws.in_words(*draws.difference(*sides))
    return row


if __name__ == "__main__":
    with exit_on_error():
        main()
