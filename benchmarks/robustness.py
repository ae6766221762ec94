"""Error rates of trained models when the test recordings are degraded.

> python -m benchmarks.robustness RUN_FOLDER... --data_folder CORPUS

A run folder is that of a training, with its model folder; runs whose names
differ only after the last dot (ham.1, ham.2) are one loss. Nobody who trained
one of the models is tested. The enrolled utterance is as recorded, the test
utterance is degraded.
"""

import collections
import hashlib
import io
import pathlib

import numpy as np
import scipy.signal
import soundfile
import torch
import tqdm

from benchmarks import commit, draws, machine, make_parser, table
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import read_corpus, speaker_of
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.evaluation.extraction import SHORTEST, Encoder
from speechbrain_hyperbolic.evaluation.metrics import eer
from speechbrain_hyperbolic.inference.model import load_model

RATE = 16000
_TELEPHONE = 8000
_BAND = scipy.signal.butter(
    6, (300, 3400), "bandpass", fs=_TELEPHONE, output="sos"
)
_VOICES = 6  # in babble
_POOL = 100  # speakers of whom babble is made
_DIRECT = 0.0025  # seconds of a room's response that are the direct path's


def telephone(speech, *_):
    """A call: 300 to 3400 Hz, sampled at 8 kHz, coded by G.711 (mu-law)."""
    narrow = scipy.signal.resample_poly(speech, 1, 2)
    narrow = scipy.signal.sosfiltfilt(_BAND, narrow)
    decoded = _code(narrow, _TELEPHONE, format="WAV", subtype="ULAW")
    return scipy.signal.resample_poly(decoded, 2, 1)[: len(speech)]


def mp3(speech, *_):
    """At 32 kbit/s; libsndfile has 0 for 160 and 1 for 8 kbit/s.

    LAME's delay is 1105 samples.
    """
    quality = {"bitrate_mode": "CONSTANT", "compression_level": 128 / 152}
    return _code(speech, RATE, delay=1105, format="MP3", **quality)


def opus(speech, *_):
    """At 12 kbit/s; libsndfile has 0 for 256 and 1 for 6 kbit/s."""
    quality = {"subtype": "OPUS", "compression_level": 244 / 250}
    return _code(speech, RATE, format="OGG", **quality)


def _code(speech, rate, delay=0, **options):
    """Encodes and decodes in memory, without the codec's delay in samples."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(speech, -1, 1), rate, **options)
    file.seek(0)
    decoded, _ = soundfile.read(file)
    return decoded[delay : delay + len(speech)]


def add(speech, noise, snr):
    """Adds noise at a ratio of powers in dB, both over the whole clip."""
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
    corpus = read_corpus(data_folder)
    splits = corpus.splits()
    seen, found = collections.Counter(), {}
    for utterance, path in corpus.paths().items():
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


def waveforms(condition, utterances):
    """Each utterance in a condition, at least as long as encoders need."""
    firsts = {speaker_of(u): utterances[u] for u in reversed(utterances)}
    chosen = sorted(firsts)[:_POOL]
    voices = {s: audio.load(firsts[s], RATE).numpy() for s in chosen}
    for utterance, path in tqdm.tqdm(utterances.items(), condition):
        speaker = speaker_of(utterance)
        others = [v for s, v in voices.items() if s != speaker]
        speech = audio.load(path, RATE).numpy()
        made = torch.from_numpy(degrade(condition, speech, utterance, others))
        yield audio.repeat_to(made, max(len(made), int(SHORTEST * RATE)))


def embed(encoders, condition, utterances):
    """Unit embeddings [N, D] of each encoder, which take turns."""
    found = [[] for _ in encoders]
    for wave in waveforms(condition, utterances):
        for encoder, its in zip(encoders, found, strict=True):
            its.append(encoder(wave[None]))
    return [
        torch.nn.functional.normalize(torch.cat(its)).numpy() for its in found
    ]


def load_encoder(folder, device):
    config, modules = load_model(folder / "model")
    if config.sample_rate != RATE:
        raise InputError(f"{folder} is for {config.sample_rate} Hz, not {RATE}")
    return Encoder(**modules, device=device)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--utterances_per_speaker", type=int, default=4)
    parser.add_argument(
        "--conditions", nargs="+", choices=CONDITIONS, default=[*CONDITIONS]
    )
    parser.add_argument("--against", default="am", metavar="LOSS")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    most = options.utterances_per_speaker
    utterances = find_utterances(options.data_folder, options.folders, most)
    speakers = [speaker_of(utterance) for utterance in utterances]
    _, number = np.unique(speakers, return_inverse=True)
    pairs = np.nonzero(~np.eye(len(number), dtype=bool))  # in both orders
    a, b = number[pairs[0]], number[pairs[1]]
    encoders = [load_encoder(f, options.device) for f in options.folders]
    names = [f.resolve().name.rpartition(".") for f in options.folders]
    compared = options.against in {loss for loss, *_ in names}
    enrolled = embed(encoders, "clean", utterances)
    # Loss -> condition -> seed -> EER in % and its draws
    losses = collections.defaultdict(lambda: collections.defaultdict(dict))
    for condition in options.conditions:
        tested = embed(encoders, condition, utterances)
        for name, *both in zip(names, enrolled, tested, strict=True):
            loss, _, seed = name
            seed = seed.partition("-")[0]  # ham.1-0123abcd is of seed 1
            scores = (both[0] @ both[1].T)[pairs]
            rate = 100 * eer(scores[a == b], scores[a != b])[0]
            drawn = draws.draw_eers(scores, a, b) if compared else None
            losses[loss or seed][condition][seed] = rate, drawn
    print(f"\n{len(utterances)} utterances of {len(set(speakers))} speakers")
    print(f"Commit {commit()}; {machine(options.device)}\n\nEER %\n")
    print(table([_means(loss, of) for loss, of in losses.items()]))
    base = losses.pop(options.against, None)
    if base and losses:
        print(f"\nAgainst {options.against}\n")
        rows = [_differences(name, of, base) for name, of in losses.items()]
        print(table(rows))


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
