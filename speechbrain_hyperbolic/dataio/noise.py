"""The sounds of augmentation, memory-mapped.

A bank is one file of 16-bit samples at the recipe's sample rate and an index of
the sounds in it. It is made once of each source; then a crop of a noise is a
slice of an array, and nothing is decoded while a model trains.
"""

import functools
import hashlib
import json
import os
import pathlib
import shutil

import filelock
import numpy as np
import tqdm
from speechbrain.utils.data_utils import download_file
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path, write_text
from speechbrain_hyperbolic.errors import InputError

logger = get_logger(__name__)

GENERATED = 40  # sounds of a kind
SECONDS = 10  # of a generated noise

# A file, or kind and number of a generated sound
_Sound = pathlib.Path | tuple[str, int]


class SoundBank:
    """Noise, music and speech of a ``noise_source``, or rooms of a
    ``rir_source``: a folder, "download" or "generate".
    """

    def __init__(
        self,
        option: str,
        source: StrPath,
        url: str,
        folder: StrPath,
        sample_rate: int,
    ) -> None:
        self.option, self.url, self.sample_rate = option, url, sample_rate
        self.source = str(source)
        if self.source not in ("download", "generate"):
            self.source = str(pathlib.Path(source).resolve())
        where = url if self.source == "download" else self.source
        made_from = json.dumps([where, sample_rate])
        key = hashlib.sha256(made_from.encode()).hexdigest()[:12]
        name = option.removesuffix("_source")
        self.path = pathlib.Path(folder) / f"{name}_{key}.int16"
        self.archive = self.path.with_name(f"{name}_archive")
        self.index = self.path.with_suffix(".json")

    @functools.cached_property
    def spans(self) -> dict[str, list[list[int]]]:
        """Start and length of each sound of a kind."""
        if not self.index.is_file():
            self.prepare()
        return json.loads(self.index.read_text())["spans"]

    @functools.cached_property
    def samples(self) -> np.ndarray:
        # A plain array, since slicing a memmap takes ten times as long
        return np.asarray(np.memmap(self.path, np.int16, "r"))

    def sound(self, kind: str, which: float) -> np.ndarray:
        """The sound at ``which`` in [0, 1) of a kind, int16 [time]."""
        spans = self.spans[kind]
        start, length = spans[int(which * len(spans))]
        return self.samples[start : start + length]

    def crop(
        self, kind: str, which: float, place: float, samples: int
    ) -> np.ndarray:
        """A piece from ``place`` in [0, 1) of a sound; a short one repeats."""
        sound = self.sound(kind, which)
        if len(sound) < samples:
            return np.resize(np.roll(sound, -int(place * len(sound))), samples)
        start = int(place * (len(sound) - samples + 1))
        return sound[start : start + samples]

    def prepare(self) -> None:
        """Makes the bank, unless it was made of as many files and bytes."""
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f"{self.option}.lock"):
            sounds = self._find()
            every = [s for group in sounds.values() for s in group]
            files = [s for s in every if isinstance(s, pathlib.Path)]
            size = [len(every), sum(map(os.path.getsize, files))]
            if self.index.is_file():
                if json.loads(self.index.read_text())["size"] == size:
                    return
                self.index.unlink()
            self._write(sounds, size)

    def _find(self) -> dict[str, list[_Sound]]:
        rooms = self.option == "rir_source"
        if self.source == "generate":
            kinds = ["reverb"] if rooms else ["noise", "music"]
            return {k: [(k, n) for n in range(GENERATED)] for k in kinds}
        folder = pathlib.Path(self.source)
        if self.source == "download":
            folder = self._download()
        if rooms:
            simulated = _files(folder, "simulated_rirs")
            return {"reverb": simulated or _files(folder)}
        found = {k: _files(folder, k) for k in ("noise", "music", "speech")}
        others = sorted({*_files(folder)} - {*found["speech"]})
        for kind in ("noise", "music"):
            found[kind] = found[kind] or others
        return found

    def _download(self) -> pathlib.Path:
        """Unpacks the archive, which banks of several sample rates share."""
        partial = self.archive.with_suffix(".partial")
        try:
            if not self.archive.is_dir():
                shutil.rmtree(partial, ignore_errors=True)  # a killed run's
                packed = partial / "archive.zip"
                download_file(self.url, str(packed), unpack=True)
                packed.unlink()
                os.replace(partial, self.archive)
        except (OSError, shutil.ReadError) as error:
            raise InputError(
                f"can't download {self.url} ({error}): pass --{self.option}="
                "FOLDER with sounds of your own, e.g. MUSAN or RIRS_NOISES, or "
                f"--{self.option}=generate for synthetic ones"
            ) from error
        return self.archive

    def _write(self, sounds: dict[str, list[_Sound]], size: list[int]) -> None:
        # A file that is both noise and music is stored once.
        every = dict.fromkeys(s for group in sounds.values() for s in group)
        spans, left_out, end = {}, [], 0
        what = f"Reading {self.option}"
        bar = tqdm.tqdm(every, what, unit="sound", dynamic_ncols=True)
        with atomic_path(self.path) as temporary:
            with open(temporary, "wb") as file:
                for sound in bar:
                    try:
                        samples = self._read(sound)
                    except InputError as error:
                        left_out.append(str(error))
                        continue
                    file.write(samples.tobytes())
                    spans[sound] = end, len(samples)
                    end += len(samples)
            if not spans:
                raise InputError(
                    f"{self.source} has no audio files for augmentation: pass "
                    f"a folder, 'download' or 'generate' as --{self.option}"
                )
        of_kinds = {
            kind: [spans[sound] for sound in group if sound in spans]
            for kind, group in sounds.items()
        }
        index = {"size": size, "spans": of_kinds, "left_out": left_out}
        write_text(self.index, json.dumps({"source": self.source, **index}))
        counts = ", ".join(f"{len(v)} of {k}" for k, v in of_kinds.items() if v)
        logger.info(f"Sounds of {self.source} ({counts}) are in {self.path}.")
        if left_out:
            logger.warning(
                f"{len(left_out)} of {len(every)} files in {self.source} are "
                f"not used: {self.index} says why"
            )

    def _read(self, sound: _Sound) -> np.ndarray:
        """int16, scaled by a power of two: files of 16 bits stay as they are,
        but for rooms, whose level does not matter and whose tails are quiet.
        """
        if isinstance(sound, tuple):
            generator = np.random.default_rng(sound[1])
            samples = _GENERATORS[sound[0]](generator, self.sample_rate)
            samples = samples / np.abs(samples).max() / 2
        else:
            # A room's first microphone: the mean of several would smear it.
            channel = None if self.option == "noise_source" else 0
            loaded = audio.load(sound, self.sample_rate, channel=channel)
            samples = loaded.numpy()
        peak = np.abs(samples).max()
        if peak == 0:
            raise InputError(f"{sound} is silent")
        bits = np.floor(np.log2(2**15 / peak))
        if self.option == "noise_source":
            bits = min(bits, 15)
        scaled = np.rint(np.ldexp(samples, int(bits)))
        return np.clip(scaled, -(2**15), 2**15 - 1).astype(np.int16)


def _files(folder: pathlib.Path, kind: str = "") -> list[_Sound]:
    """All but hidden ones, or those in folders named as the kind, at any level;
    reading them tells which are audio.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and kind in ["", *map(str.lower, path.relative_to(folder).parts[:-1])]
    )


def _noise(generator: np.random.Generator, rate: int) -> np.ndarray:
    """Noise with a spectral slope of 0 to -9 dB per octave."""
    spectrum = np.fft.rfft(generator.standard_normal(SECONDS * rate))
    frequency = np.fft.rfftfreq(SECONDS * rate, 1 / rate)
    slope = generator.uniform(0, 1.5)
    return np.fft.irfft(spectrum / np.maximum(frequency, 30) ** slope)


def _music(generator: np.random.Generator, rate: int) -> np.ndarray:
    """Decaying chords of harmonic tones."""
    samples = np.zeros((SECONDS + 1) * rate)
    gap = generator.uniform(0.2, 0.6)
    for onset in range(0, SECONDS * rate, round(gap * rate)):
        for semitone in generator.integers(0, 36, size=3):
            samples[onset : onset + rate] += _tone(int(semitone), rate)
    return samples[: SECONDS * rate]


@functools.cache
def _tone(semitone: int, rate: int) -> np.ndarray:
    time = np.arange(rate) / rate
    harmonics = np.arange(1, 5)[:, None]
    phase = 2 * np.pi * 110 * 2 ** (semitone / 12) * harmonics * time
    return np.exp(-4 * time) * (np.sin(phase) / harmonics).sum(0)


def _room(generator: np.random.Generator, rate: int) -> np.ndarray:
    """A direct path and a tail that decays by 60 dB in 0.2 to 0.8 s."""
    decay = generator.uniform(0.2, 0.8)
    time = np.arange(round(decay * rate)) / rate
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail *= generator.uniform(0.02, 0.2)
    tail[: round(0.002 * rate)] = 0
    tail[0] = 1
    return tail


_GENERATORS = {"noise": _noise, "music": _music, "reverb": _room}
