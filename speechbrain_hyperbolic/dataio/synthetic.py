"""A synthetic multi-speaker corpus for trying things without any data.

Every voice in it is made by the eSpeak NG synthesizer: no person speaks.
Results on it say that the code works, not how well a method does on speech.

From a shell: ``python -m speechbrain_hyperbolic.dataio.synthetic FOLDER``
"""

# Only the standard library is imported up here: each speaker is spoken by a
# fresh interpreter that runs this file, and it has to start at once.
import argparse
import base64
import csv
import ctypes
import dataclasses
import json
import math
import pathlib
import shutil
import subprocess
import sys
import wave
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the process that speaks has no packages
    import numpy as np


SAMPLE_RATE = 16000
ESPEAK_RATE = 22050
FORMAT_VERSION = 1

# 7 accents, 19 male and 11 female variants: groups of speakers go round all of
# these at once, and turn about by sex. As no two of 2, 7 and 11, nor of 2, 7
# and 19, share a divisor, no accent meets a variant twice in 2 x 77 groups.
ACCENTS = (
    "en-us",
    "en-us-nyc",
    "en-029",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
)

# eSpeak NG variants that are neither whispered nor robotic, nor clip.
FAMILIES = {
    "male-numbered": ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    "male-named": ("Alex", "Denis", "Diogo", "Lee", "Michael", "boris", "max"),
    "male-klatt": ("adam", "david", "edward2", "klatt3"),
    "female-numbered": ("f1", "f2", "f3", "f4", "f5"),
    "female-named": ("Alicia", "Annie", "aunty", "grandma", "linda", "steph"),
}

# eSpeak's 0 to 99 scale, on which these are about 20 % apart in F0.
PITCHES = (40, 60)

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


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A speaker and its place in accent > family > variant > pitch.

    Arguments
    ---------
    spk_id : str
        Name of the speaker's folder.
    sex : str
        m or f.
    split : str
        train or test.
    accent : str
        An eSpeak NG voice.
    family : str
        Group of similar variants.
    variant : str
        An eSpeak NG variant, which sets formants and voice quality.
    pitch : int
        Base pitch on eSpeak's scale of 0 to 99.
    """

    spk_id: str
    sex: str
    split: str
    accent: str
    family: str
    variant: str
    pitch: int


def make_synthetic_corpus(
    folder: str | pathlib.Path,
    seed: int = 0,
    progress: bool = True,
    n_train: int = 50,
    n_test: int = 30,
    utterances: tuple[int, ...] = (16, 12),
) -> Path:
    """Make a corpus of synthetic speakers, or find it already made.

    It holds ``<spk_id>/<utt>.wav`` (16 kHz, mono, 16 bits, about 2 to 4 s),
    ``speakers.csv`` and ``corpus.json``. The columns ``accent``, ``family``,
    ``variant`` and ``pitch`` of ``speakers.csv`` are a known hierarchy, from
    coarse to fine. No speaker is in both splits, nor is any (accent, variant).

    The same arguments give the same bytes with the same version of
    ``espeakng-loader``. The folder appears only when it is complete.
    Two processes must not make the same folder at the same time.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where the corpus is, or is to be.
    seed : int
        Seed of all that is random, at least 0.
    progress : bool
        Whether to show a progress bar.
    n_train : int
        Number of training speakers, at least 2.
    n_test : int
        Number of test speakers, at least 2.
    utterances : tuple of int
        Number of utterances of a training and of a test speaker.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputError
        When ``espeakng-loader`` is missing or does not work, when the folder
        holds something else (which is left as it is), or when a number is
        out of range.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = make_synthetic_corpus(
    ...         f"{parent}/corpus",
    ...         progress=False,
    ...         n_train=2,
    ...         n_test=2,
    ...         utterances=(2, 1),
    ...     )
    ...     len(list(folder.glob("*/*.wav")))
    6
    """
    from tqdm import tqdm

    made_from = {
        "format": FORMAT_VERSION,
        "seed": seed,
        "n_train": n_train,
        "n_test": n_test,
        "utterances": list(utterances),
    }
    folder = Path(folder)
    if folder.exists():
        _check_same(folder, made_from)
        return folder

    speakers = _draw_speakers(seed, n_train, n_test, utterances)
    engine = _find_espeak()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)

    seconds = 0.0
    bar = tqdm(
        speakers, "synthetic corpus", unit="speaker", disable=not progress
    )
    for index, speaker in enumerate(bar):
        count = utterances[0 if speaker.split == "train" else 1]
        seconds += _render(unfinished, engine, speaker, seed, index, count)

    with open(unfinished / "speakers.csv", "w", newline="") as file:
        names = [field.name for field in dataclasses.fields(Speaker)]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(speaker) for speaker in speakers)
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


def _check_same(folder: Path, made_from: dict[str, Any]) -> None:
    from speechbrain_hyperbolic.errors import InputError

    try:
        found = json.loads((folder / "corpus.json").read_text())["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{folder}: expected a synthetic corpus or nothing, but something"
            " else is there; give another folder"
        ) from None
    if found != made_from:
        raise InputError(
            f"{folder}: holds a synthetic corpus made from {found}, not from"
            f" {made_from}; give another folder or delete this one"
        )


def _find_espeak() -> tuple[str, str]:
    from speechbrain_hyperbolic.errors import InputError

    try:
        import espeakng_loader
    except ImportError:
        raise InputError(
            "the synthetic corpus needs the package espeakng-loader:"
            " pip install speechbrain-hyperbolic[demo]"
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


def _draw_speakers(
    seed: int, n_train: int, n_test: int, utterances: tuple[int, ...]
) -> list[Speaker]:
    """List the speakers, training speakers first.

    A group of speakers shares accent and variant. Groups go round the accents
    and take turns at the sexes; each has one speaker per base pitch.
    """
    import numpy as np

    from speechbrain_hyperbolic.errors import InputError

    if seed < 0:
        raise InputError(f"seed: expected at least 0, not {seed}")
    if min(utterances) < 1:
        raise InputError(
            f"utterances: expected at least 1 each, not {utterances}"
        )
    if min(n_train, n_test) < 2:
        raise InputError(
            "n_train, n_test: expected at least 2 each,"
            f" not {n_train} and {n_test}"
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
    most = len(accents) * min(map(len, voices.values())) * len(PITCHES)
    if n_train + n_test > most:
        raise InputError(
            f"n_train, n_test: expected at most {most} in sum,"
            f" not {n_train} and {n_test}"
        )

    speakers: list[Speaker] = []
    turn = 0
    for split, n in (("train", n_train), ("test", n_test)):
        groups = []
        # Two groups at least, so that each split has both sexes.
        for _ in range(max(2, math.ceil(n / len(PITCHES)))):
            sex, accent = "mf"[turn % 2], accents[turn % len(accents)]
            mine = voices[sex]
            groups.append((sex, accent, *mine[turn // 2 % len(mine)]))
            turn += 1
        for place in range(n):
            level, group = divmod(place, len(groups))
            sex, accent, family, variant = groups[group]
            speakers.append(
                Speaker(
                    spk_id=f"spk{len(speakers) + 1:03d}",
                    sex=sex,
                    split=split,
                    accent=accent,
                    family=family,
                    variant=variant,
                    pitch=PITCHES[level],
                )
            )
    return speakers


def _render(
    root: Path,
    engine: tuple[str, str],
    speaker: Speaker,
    seed: int,
    index: int,
    count: int,
) -> float:
    """Write the utterances of one speaker; return their seconds."""
    import numpy as np

    # numpy pads seeds with zeros: counting from 1 keeps them all apart.
    own = np.random.default_rng([seed, index + 1])
    rate = own.uniform(170, 200)
    pitch_range = int(own.integers(35, 65))
    rngs = [
        np.random.default_rng([seed, index + 1, place + 1])
        for place in range(count)
    ]
    lines = [
        {
            "text": _sentence(rng),
            "rate": round(rate * rng.uniform(0.95, 1.05)),
            "pitch": speaker.pitch + int(rng.integers(-2, 3)),
            "range": pitch_range,
        }
        for rng in rngs
    ]
    seconds = 0.0
    (root / speaker.spk_id).mkdir()
    spoken = _speak(engine, speaker, index + 1, lines)
    for place, (pcm, rng) in enumerate(zip(spoken, rngs, strict=True)):
        samples = _record(pcm, rng)
        path = root / speaker.spk_id / f"utt{place + 1:02d}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(samples.tobytes())
        seconds += len(samples) / SAMPLE_RATE
    return seconds


def _sentence(rng: "np.random.Generator") -> str:
    when, who, did, what, where = (
        rng.choice(part.split(", ")) for part in (WHEN, WHO, DID, WHAT, WHERE)
    )
    order = (
        (when, who, did, what, where)
        if rng.random() < 0.5
        else (who, did, what, where, when)
    )
    return " ".join(order).capitalize() + "."


def _record(pcm: bytes, rng: "np.random.Generator") -> "np.ndarray":
    """Play dry speech through a random room and microphone, so to say.

    Arguments
    ---------
    pcm : bytes
        16-bit samples at 22050 Hz.
    rng : numpy.random.Generator
        Draws spectral tilt, noise and level.

    Returns
    -------
    numpy.ndarray
        16-bit samples at 16 kHz.
    """
    import numpy as np

    dry = np.frombuffer(pcm, "<i2").astype(np.float64)
    dry -= dry.mean()
    loud = np.flatnonzero(np.abs(dry) > 0.02 * np.abs(dry).max())
    dry = dry[loud[0] : loud[-1] + 1]

    # Resample and tilt in one transform, zero-padded to a size that is fast
    # and a multiple of both rates.
    old, new = ESPEAK_RATE // 50, SAMPLE_RATE // 50
    unit = 1 << (len(dry) // old).bit_length()
    octaves = np.log2(
        np.linspace(0, SAMPLE_RATE / 2, new * unit // 2 + 1).clip(60) / 1000
    )
    size = len(dry) * new // old

    def tilted(spectrum: "np.ndarray", db_per_octave: float) -> "np.ndarray":
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


def _speak(
    engine: tuple[str, str],
    speaker: Speaker,
    noise_seed: int,
    lines: list[dict[str, Any]],
) -> list[bytes]:
    """Have a fresh process speak, and return 22050 Hz PCM for each line.

    eSpeak keeps state between utterances (phase of its flutter, gain control,
    noise) that cannot be reset: only a fresh process always says the same.
    """
    from speechbrain_hyperbolic.errors import InputError

    library, data = engine
    # eSpeak takes an unknown variant for none, without a word.
    if not Path(data, "voices", "!v", speaker.variant).is_file():
        raise InputError(
            f"espeakng-loader has no voice variant {speaker.variant}:"
            " pip install espeakng-loader==0.2.4"
        )
    job = {
        "library": str(library),
        "data": str(data),
        "voice": f"{speaker.accent}+{speaker.variant}",
        "seed": noise_seed,
        "lines": lines,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__, "--speak"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        why = (done.stderr.strip() or f"exit {done.returncode}").splitlines()
        raise InputError(
            f"eSpeak NG in espeakng-loader does not work ({why[-1]}):"
            " pip install --force-reinstall espeakng-loader==0.2.4"
        )
    return [base64.b64decode(line) for line in done.stdout.splitlines()]


def _speak_here() -> None:
    """Read a job from standard input, print a line of base64 per utterance."""
    synchronous, dont_exit, by_character, utf8 = 2, 0x8000, 1, 1
    parameters = {"rate": 1, "pitch": 3, "range": 4}

    job = json.load(sys.stdin)
    espeak = ctypes.CDLL(job["library"])
    rate = espeak.espeak_Initialize(
        synchronous, 0, job["data"].encode(), dont_exit
    )
    if rate != ESPEAK_RATE:
        sys.exit(f"cannot read {job['data']}, or its path is too long")

    chunks = []

    @ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_short),
        ctypes.c_int,
        ctypes.c_void_p,
    )
    def keep(samples: Any, count: int, _: object) -> int:
        if samples and count:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    espeak.espeak_SetSynthCallback(keep)
    # It is the clock that seeds it otherwise.
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(job["seed"]))
    if espeak.espeak_SetVoiceByName(job["voice"].encode()):
        sys.exit(f"no voice {job['voice']}")
    for line in job["lines"]:
        for name, number in parameters.items():
            espeak.espeak_SetParameter(number, line[name], 0)
        text = line["text"].encode() + b"\0"
        size = ctypes.c_size_t(len(text))
        failed = espeak.espeak_Synth(
            text, size, 0, by_character, 0, utf8, None, None
        )
        if failed or not chunks:
            sys.exit(f"no sound from {job['voice']}")
        print(base64.b64encode(b"".join(chunks)).decode())
        chunks.clear()


def main() -> None:
    """Make the corpus from the command line."""
    from speechbrain_hyperbolic.errors import InputError

    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.dataio.synthetic",
        description="Make a corpus of synthetic speakers with eSpeak NG.",
    )
    parser.add_argument("folder", help="where the corpus is to be")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        folder = make_synthetic_corpus(arguments.folder, arguments.seed)
    except InputError as error:
        sys.exit(f"error: {error}")
    manifest = json.loads((folder / "corpus.json").read_text())
    sizes = manifest["made_from"]
    print(folder)
    print(
        f"synthetic speech, no recordings: {sizes['n_train']} train and"
        f" {sizes['n_test']} test speakers, {manifest['utterances']}"
        f" utterances, {manifest['hours']} hours, seed {sizes['seed']}"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--speak"]:
        _speak_here()
    else:
        main()
