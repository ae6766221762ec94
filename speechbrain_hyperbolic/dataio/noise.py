"""Noise, music, speech and room responses for augmentation, as CSV files.

They come from a folder of wav files (MUSAN, RIRS_NOISES or your own), from the
stock recipe's download, or from a generator.
"""

import csv
import functools
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable

import filelock
import numpy as np
import soundfile
import torch
import tqdm
from speechbrain.utils.data_utils import download_file
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import Stamp, StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError

logger = get_logger(__name__)

_Generate = Callable[[np.random.Generator], np.ndarray]
RATE = 16000
GENERATED = 40  # files of a kind
# Seconds to which files are cut and noises repeated: the stock AddNoise reads
# whole files, and pads a noise that is shorter than the crop with silence.
PIECE = 10


def prepare_noise(
    source: str,
    url: str,
    work_folder: StrPath,
    noise_csv: StrPath,
    music_csv: StrPath,
    speech_csv: StrPath | None = None,
) -> None:
    """Writes the CSV files of noise, music, and speech for babble.

    A file that was made from the same source is kept.

    Arguments
    ---------
    source : str
        A folder, with subfolders ``noise``, ``music`` and ``speech`` (MUSAN)
        or of any wav files, for both noise and music. Or "download", the
        archive at ``url``; or "generate".
    url : str
        Archive of noise, as in the stock recipe.
    work_folder : str or pathlib.Path
        For the archive, and for copies in the right format and length.
    noise_csv : str or pathlib.Path
        File to write.
    music_csv : str or pathlib.Path
        File to write.
    speech_csv : str or pathlib.Path
        File to write if the source has a folder ``speech``; without it,
        ``AddBabble`` mixes utterances of the batch.

    Raises
    ------
    InputError
        If the download fails, or the source has no wav files.

    Example
    -------
    >>> folder = pathlib.Path(getfixture("tmpdir"))
    >>> (folder / "musan").mkdir()
    >>> soundfile.write(folder / "musan" / "a.wav", np.zeros(160000), 16000)
    >>> files = folder / "noise.csv", folder / "music.csv"
    >>> prepare_noise(str(folder / "musan"), "", folder, *files)
    >>> files[0].read_text().splitlines()[0]
    'ID,duration,wav,wav_format,wav_opts'
    """
    prepare = functools.partial(
        _prepare, "noise_source", source, url, work_folder, PIECE
    )
    prepare(noise_csv, "noise", _noise)
    prepare(music_csv, "music", _music)
    if speech_csv and pathlib.Path(source, "speech").is_dir():
        prepare(speech_csv, "speech", None)
    elif speech_csv:
        pathlib.Path(speech_csv).unlink(missing_ok=True)


def prepare_rirs(
    source: str, url: str, work_folder: StrPath, rir_csv: StrPath
) -> None:
    """Writes the CSV file of room impulse responses.

    Arguments
    ---------
    source : str
        A folder: the simulated rooms of RIRS_NOISES, or all of another
        folder. Or "download" or "generate", as in ``prepare_noise``.
    url : str
        Archive of room impulse responses, as in the stock recipe.
    work_folder : str or pathlib.Path
        As in ``prepare_noise``.
    rir_csv : str or pathlib.Path
        File to write; one that was made from the same source is kept.

    Raises
    ------
    InputError
        If the download fails, or the source has no wav files.

    Example
    -------
    >>> folder = pathlib.Path(getfixture("tmpdir"))
    >>> prepare_rirs("generate", "", folder, folder / "rir.csv")
    >>> len((folder / "rir.csv").read_text().splitlines())
    41
    """
    arguments = "rir_source", source, url, work_folder, 0
    _prepare(*arguments, rir_csv, "simulated_rirs", _rir)


def _prepare(
    option: str,
    source: StrPath,
    url: str,
    work_folder: StrPath,
    shortest: float,
    csv_file: StrPath,
    subfolder: str,
    generate: _Generate | None,
) -> None:
    path = pathlib.Path(csv_file)
    stamp = Stamp(
        path.with_suffix(".json"), {"source": str(source), "url": url}
    )
    if path.is_file() and stamp.matches():
        return
    stamp.path.unlink(missing_ok=True)
    if source == "download":
        folder = _download(url, pathlib.Path(work_folder) / "archive", option)
    elif source == "generate" and generate:
        logger.info(f"Generating {GENERATED} files of synthetic {path.stem}.")
        folder = path.parent / "generated" / path.stem
        _generate(generate, folder)
    else:
        folder = pathlib.Path(source)
    if (folder / subfolder).is_dir():
        folder = folder / subfolder
    write_noise_csv(folder, path, work_folder, shortest)
    stamp.write()


def _download(url: str, folder: pathlib.Path, option: str) -> pathlib.Path:
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_name(f"{folder.name}.lock")):
            if folder.is_dir():  # another run has downloaded it meanwhile
                return folder
            shutil.rmtree(partial, ignore_errors=True)  # of a killed run
            download_file(url, str(partial / "archive.zip"), unpack=True)
            (partial / "archive.zip").unlink()
            os.replace(partial, folder)
    except (OSError, shutil.ReadError) as error:
        raise InputError(
            f"can't download {url} ({error}): pass --{option}=FOLDER with "
            "sounds of your own, e.g. MUSAN or RIRS_NOISES, or "
            f"--{option}=generate for synthetic ones"
        ) from error
    return folder


def write_noise_csv(
    folder: StrPath, path: StrPath, work_folder: StrPath, shortest: float = 0
) -> None:
    """Lists a folder's wav files for the stock AddNoise and AddReverb."""
    folder = pathlib.Path(folder)
    # Without hidden ones, which a killed process may have left
    files = sorted(
        file for file in folder.rglob("*.wav") if not file.name.startswith(".")
    )
    if not files:
        raise InputError(
            f"{folder} has no wav files for augmentation: pass a folder, "
            "'download' or 'generate' as --noise_source or --rir_source"
        )
    copies = pathlib.Path(work_folder) / "copies"
    bar = tqdm.tqdm(files, desc=f"Listing {folder.name}", dynamic_ncols=True)
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as out,
    ):
        writer = csv.writer(out)
        writer.writerow(["ID", "duration", "wav", "wav_format", "wav_opts"])
        for number, file in enumerate(bar):
            for piece in _pieces(file, copies, shortest):
                header = audio.info(piece)
                seconds = header.frames / header.sample_rate
                name = f"{piece.stem}_{number}"
                writer.writerow([name, seconds, piece, "wav", ""])


def _pieces(
    file: pathlib.Path, copies: pathlib.Path, shortest: float
) -> list[pathlib.Path]:
    """The file itself, or copies: mono, at 16 kHz, of PIECE seconds."""
    header = audio.info(file)
    seconds = header.frames / header.sample_rate
    if (header.channels, header.sample_rate) == (1, RATE) and (
        shortest <= seconds <= 2 * PIECE
    ):
        return [file]
    key = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    count = max(1, int(seconds // PIECE))
    pieces = [copies / f"{file.stem}_{key}_{n}.wav" for n in range(count)]
    if not all(piece.is_file() for piece in pieces):
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        # The first channel: a mean over microphones would smear a room.
        channel = torch.from_numpy(samples[:, 0].copy())
        waveform = audio.resample(channel, rate, RATE)
        if len(waveform) < shortest * RATE:
            waveform = audio.repeat_to(waveform, int(shortest * RATE))
        for number, piece in enumerate(pieces):
            start = number * PIECE * RATE
            samples = waveform[start : start + PIECE * RATE]
            with atomic_path(piece) as temporary:
                soundfile.write(temporary, samples.numpy(), RATE)
    return pieces


def _generate(generate: _Generate, folder: pathlib.Path) -> None:
    for number in range(GENERATED):
        samples = generate(np.random.default_rng(number))
        samples = 0.5 * samples / np.abs(samples).max()
        with atomic_path(folder / f"{number:03d}.wav") as temporary:
            soundfile.write(temporary, samples, RATE)


def _noise(generator: np.random.Generator) -> np.ndarray:
    """Noise with a spectral slope of 0 to -9 dB per octave."""
    spectrum = np.fft.rfft(generator.standard_normal(PIECE * RATE))
    frequency = np.fft.rfftfreq(PIECE * RATE, 1 / RATE)
    slope = generator.uniform(0, 1.5)
    return np.fft.irfft(spectrum / np.maximum(frequency, 30) ** slope)


def _music(generator: np.random.Generator) -> np.ndarray:
    """Decaying chords of harmonic tones."""
    time = np.arange(RATE) / RATE
    decay = np.exp(-4 * time)
    harmonics = np.arange(1, 5)[:, None]
    samples = np.zeros((PIECE + 1) * RATE)
    gap = generator.uniform(0.2, 0.6)
    for onset in range(0, PIECE * RATE, round(gap * RATE)):
        for semitone in generator.integers(0, 36, size=3):
            phase = 2 * np.pi * 110 * 2 ** (semitone / 12) * harmonics * time
            tone = decay * (np.sin(phase) / harmonics).sum(0)
            samples[onset : onset + RATE] += tone
    return samples[: PIECE * RATE]


def _rir(generator: np.random.Generator) -> np.ndarray:
    """A direct path and a tail that decays by 60 dB in 0.2 to 0.8 s."""
    decay = generator.uniform(0.2, 0.8)
    time = np.arange(round(decay * RATE)) / RATE
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail *= generator.uniform(0.02, 0.2)
    tail[: round(0.002 * RATE)] = 0
    tail[0] = 1
    return tail
