#!/usr/bin/env python3
"""Makes a corpus of synthetic speakers, to try things without any data.

> python synthetic_speech.py FOLDER

Every voice is made by the eSpeak NG synthesizer: no person speaks. Results on
it show that the code works, not how well a method does on speech.
"""

import argparse
import csv
import ctypes
import json
import math
import multiprocessing
import pathlib
import shutil
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from speechbrain_hyperbolic.errors import InputError, exit_on_error, requires

SAMPLE_RATE = 16000
ESPEAK_RATE = 22050
FORMAT_VERSION = 1

# 7 accents, 19 male and 11 female variants. Groups of speakers cycle through
# all of them and alternate between the sexes. No two of 2, 7, 11 and 19 share a
# divisor, so no accent meets a variant twice in 2 x 77 groups.
ACCENTS = (
    "en-us",
    "en-us-nyc",
    "en-029",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
)

# eSpeak NG variants that neither whisper nor sound robotic, and do not clip
FAMILIES = {
    "male-numbered": ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    "male-named": ("Alex", "Denis", "Diogo", "Lee", "Michael", "boris", "max"),
    "male-klatt": ("adam", "david", "edward2", "klatt3"),
    "female-numbered": ("f1", "f2", "f3", "f4", "f5"),
    "female-named": ("Alicia", "Annie", "aunty", "grandma", "linda", "steph"),
}

# On eSpeak's scale of 0 to 99; some 20 % apart in F0
PITCHES = (40, 60)
MOST_SPEAKERS = len(PITCHES) * 77

WHEN = (
    "on Monday, at midday, after lunch, before dawn, last autumn, years ago,"
    " this morning, at sunset, in the spring, once again, by moonlight,"
    " every week"
)
WHO = (
    "the old baker, my neighbour, a tall sailor, her cousin, our doctor,"
    " the new teacher, a quiet child, the farmer, his uncle, a stranger,"
    " the young painter, their captain, the clever thief, some actor,"
    " the judge, a tired clerk"
)
DID = (
    "carried, painted, found, repaired, sold, dropped, wanted, noticed,"
    " forgot, bought, measured, borrowed, hid, chose, admired, cleaned"
)
WHAT = (
    "a heavy basket, three green bottles, the wooden chair, some fresh bread,"
    " a broken clock, two silver spoons, the yellow coat, a paper map,"
    " five small boxes, the copper kettle, a warm blanket, nine red apples,"
    " the leather gloves, a pair of shoes, the garden gate, a strange machine"
)
WHERE = (
    "near the river, behind the station, in the village, across the field,"
    " under the bridge, beside the harbour, at the market, on the hillside,"
    " by the white church, inside the tower, along the beach, in a dark room,"
    " outside the school, above the valley, close to the mill,"
    " past the fountain"
)


class Speaker(NamedTuple):
    """A row of speakers.csv. Accent, family, variant, pitch: a hierarchy."""

    spk_id: str
    sex: str
    split: str
    accent: str
    family: str
    variant: str
    pitch: int


def make_synthetic_corpus(
    folder, seed=0, n_train=50, n_test=30, utterances=(16, 12)
):
    """Makes the corpus, unless the folder already holds it.

    It holds ``<spk_id>/<utt>.wav`` (16 kHz, mono, 16 bits, about 2 to 4 s),
    ``speakers.csv`` and ``corpus.json``. The columns accent, family, variant
    and pitch of ``speakers.csv`` are a known hierarchy, from coarse to fine. No
    speaker is in both splits, and no accent with the same variant is.

    The same arguments give the same bytes with the same version of
    espeakng-loader. The folder appears only when it is complete. Utterances are
    those of each training and of each test speaker.
    """
    made_from = {
        "format": FORMAT_VERSION,
        "seed": seed,
        "n_train": n_train,
        "n_test": n_test,
        "utterances": list(utterances),
    }
    folder = pathlib.Path(folder)
    if folder.exists():
        _check_same(folder, made_from)
        return folder
    with requires("demo", "the synthetic corpus"):
        import espeakng_loader
    engine = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    speakers = _draw_speakers(seed, n_train, n_test)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)

    counts = {"train": utterances[0], "test": utterances[1]}
    jobs = [
        (engine, speaker, seed, number, counts[speaker.split])
        for number, speaker in enumerate(speakers, 1)
    ]
    seconds = 0.0
    # eSpeak keeps state between utterances (the phase of its flutter, gain
    # control, noise) that cannot be reset: only a fresh process repeats itself.
    with multiprocessing.Pool(maxtasksperchild=1) as pool:
        made = pool.imap(_render, jobs)
        # disable=None: the bar is for terminals only.
        bar = tqdm(made, "synthetic corpus", len(jobs), disable=None)
        for speaker, recordings in zip(speakers, bar, strict=True):
            (unfinished / speaker.spk_id).mkdir()
            for place, samples in enumerate(recordings, 1):
                path = unfinished / speaker.spk_id / f"utt{place:02d}.wav"
                soundfile.write(path, samples, SAMPLE_RATE)
                seconds += len(samples) / SAMPLE_RATE

    with open(unfinished / "speakers.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Speaker._fields, *speakers])
    manifest = {
        "about": "synthetic speech made with eSpeak NG, no recordings",
        "made_from": made_from,
        "espeakng_loader": version("espeakng-loader"),
        "utterances": n_train * utterances[0] + n_test * utterances[1],
        "hours": round(seconds / 3600, 3),
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (unfinished / "corpus.json").write_text(text)
    unfinished.rename(folder)
    return folder


def _check_same(folder, made_from):
    try:
        found = json.loads((folder / "corpus.json").read_text())["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "something else"
    if found != made_from:
        raise InputError(
            f"{folder} holds {found}, expected a synthetic corpus made from "
            f"{made_from}, or nothing: name another folder or delete this one"
        )


def _draw_speakers(seed, n_train, n_test):
    """The speakers, training speakers first.

    A group of speakers shares accent and variant. Groups cycle through the
    accents and alternate between the sexes; each has a speaker per pitch.
    """
    if n_train + n_test > MOST_SPEAKERS:
        raise InputError(
            f"n_train is {n_train} and n_test {n_test}, expected at most "
            f"{MOST_SPEAKERS} speakers in all"
        )
    rng = np.random.default_rng(seed)
    accents = rng.permutation(ACCENTS).tolist()
    voices = {
        sex: rng.permutation(
            [
                (family, variant)
                for family, variants in FAMILIES.items()
                for variant in variants
                if family[0] == sex
            ]
        ).tolist()
        for sex in "mf"
    }
    speakers = []
    turn = 0
    for split, n in (("train", n_train), ("test", n_test)):
        groups = []
        # At least two groups, so that each split has both sexes
        for _ in range(max(2, math.ceil(n / len(PITCHES)))):
            sex, accent = "mf"[turn % 2], accents[turn % len(accents)]
            variants = voices[sex]
            groups.append((sex, accent, *variants[turn // 2 % len(variants)]))
            turn += 1
        for place in range(n):
            level, group = divmod(place, len(groups))
            sex, *voice = groups[group]
            spk_id = f"spk{len(speakers) + 1:03d}"
            speakers.append(Speaker(spk_id, sex, split, *voice, PITCHES[level]))
    return speakers


def _render(job):
    """The utterances of one speaker."""
    engine, speaker, seed, number, count = job
    # numpy pads seeds with zeros: counting from 1 keeps them all distinct.
    own = np.random.default_rng([seed, number])
    rate = own.uniform(170, 200)
    pitch_range = int(own.integers(35, 65))
    rngs = [
        np.random.default_rng([seed, number, place + 1])
        for place in range(count)
    ]
    lines = [
        (
            _sentence(rng),
            round(rate * rng.uniform(0.95, 1.05)),
            speaker.pitch + int(rng.integers(-2, 3)),
            pitch_range,
        )
        for rng in rngs
    ]
    voice = f"{speaker.accent}+{speaker.variant}"
    try:
        spoken = _speak(*engine, voice, number, lines)
    except OSError as error:
        raise InputError(
            f"eSpeak NG in espeakng-loader does not work ({error}): "
            "pip install --force-reinstall espeakng-loader==0.2.4"
        ) from error
    return [_record(pcm, rng) for pcm, rng in zip(spoken, rngs, strict=True)]


def _sentence(rng):
    when, who, did, what, where = (
        rng.choice(part.split(", ")) for part in (WHEN, WHO, DID, WHAT, WHERE)
    )
    order = (
        (when, who, did, what, where)
        if rng.random() < 0.5
        else (who, did, what, where, when)
    )
    return " ".join(order).capitalize() + "."


def _record(pcm, rng):
    """16 kHz samples of 22.05 kHz speech, with random tilt, noise, level."""
    dry = np.frombuffer(pcm, "<i2").astype(np.float64)
    dry -= dry.mean()
    loud = np.flatnonzero(np.abs(dry) > 0.02 * np.abs(dry).max())
    dry = dry[loud[0] : loud[-1] + 1]

    # Resample and tilt in one transform, padded with zeros to a size that is
    # fast and a multiple of both rates.
    old, new = ESPEAK_RATE // 50, SAMPLE_RATE // 50
    unit = 1 << (len(dry) // old).bit_length()
    octaves = np.log2(
        np.linspace(0, SAMPLE_RATE / 2, new * unit // 2 + 1).clip(60) / 1000
    )
    size = len(dry) * new // old

    def tilted(spectrum, db_per_octave):
        gain = 10 ** (db_per_octave * octaves / 20)
        return np.fft.irfft(spectrum * gain, new * unit)[:size]

    spectrum = np.fft.rfft(dry, old * unit)[: len(octaves)]
    speech = tilted(spectrum, rng.uniform(-1.5, 1.5))
    white = rng.standard_normal(2 * len(octaves)).view(np.complex128)
    noise = tilted(white, rng.uniform(-6, 0))
    snr_db = rng.uniform(15, 35)
    level_db = rng.uniform(-34, -24)
    mixed = speech + noise * speech.std() / noise.std() * 10 ** (-snr_db / 20)
    gain = min(10 ** (level_db / 20) / mixed.std(), 0.95 / np.abs(mixed).max())
    return np.round(mixed * gain * 32767).astype("<i2")


def _speak(library, data, voice, seed, lines):
    """The 22.05 kHz samples of each line."""
    espeak = ctypes.CDLL(str(library))
    synchronous, dont_exit, by_character, utf8 = 2, 0x8000, 1, 1
    rate = espeak.espeak_Initialize(
        synchronous, 0, str(data).encode(), dont_exit
    )
    if rate != ESPEAK_RATE:
        raise OSError(f"cannot read {data}, or its path is too long")

    chunks = []

    @ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_short),
        ctypes.c_int,
        ctypes.c_void_p,
    )
    def keep(samples, count, _):
        if samples and count:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    espeak.espeak_SetSynthCallback(keep)
    # By default the clock seeds it.
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    if espeak.espeak_SetVoiceByName(voice.encode()):
        raise OSError(f"no voice {voice}")
    spoken = []
    for text, *parameters in lines:
        # Of rate, pitch and range
        for parameter, value in zip((1, 3, 4), parameters, strict=True):
            espeak.espeak_SetParameter(parameter, value, 0)
        text = text.encode() + b"\0"
        size = ctypes.c_size_t(len(text))
        espeak.espeak_Synth(text, size, 0, by_character, 0, utf8, None, None)
        spoken.append(b"".join(chunks))
        chunks.clear()
    return spoken


def main():
    """Makes the corpus and says what it holds."""
    parser = argparse.ArgumentParser(
        description="Makes a corpus of synthetic speakers with eSpeak NG."
    )
    parser.add_argument("folder", help="the corpus")
    folder = make_synthetic_corpus(parser.parse_args().folder)
    print(folder)
    print((folder / "corpus.json").read_text())


if __name__ == "__main__":
    with exit_on_error():
        main()
