"""Noise, music, speech and room responses for augmentation, as the stock's CSV
files.

Each comes from one of three sources: a folder that the user has (MUSAN,
RIRS_NOISES, or any folder of wav files), the stock recipe's download, or,
where there is neither, a generator.
"""

import csv
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence

import numpy as np
import soundfile
import tqdm
from speechbrain.utils.data_utils import download_file
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import Stamp, atomic_path
from speechbrain_hyperbolic.dataio.run_lock import wait_for_lock
from speechbrain_hyperbolic.errors import InputError

# Makes samples
_Generate = Callable[[np.random.Generator], np.ndarray]


logger = get_logger(__name__)

RATE = 16000
GENERATED = 40  # files of a kind
# Seconds of a long file that one row holds, and to which a shorter file of
# noise is repeated: the stock AddNoise starts all noises of a batch at 0 where
# one of them is shorter than the crop, and pads that one with silence.
PIECE = 10
# The columns that speechbrain.augment.preparation writes.
COLUMNS = ["ID", "duration", "wav", "wav_format", "wav_opts"]


def prepare_noise(
    source: str,
    url: str,
    work_folder: str | pathlib.Path,
    noise_csv: str | pathlib.Path,
    music_csv: str | pathlib.Path,
    speech_csv: str | pathlib.Path | None = None,
) -> None:
    """Writes the CSV files of noise, of music, and of speech for babble.

    Arguments
    ---------
    source : str
        A folder; with subfolders ``noise``, ``music`` and ``speech`` (MUSAN)
        each serves its file; of a folder without, all serves noise and music.
        Or "download" (the archive at
        ``url``; generated where that fails, with a warning), or "generate".
    url : str
        Archive of noise, as in the stock recipe.
    work_folder : str or pathlib.Path
        Where the archive is unpacked, and copies go of files that are not
        mono, not at 16 kHz, long (the stock AddNoise reads whole files), or
        shorter than ``PIECE``.
    noise_csv : str or pathlib.Path
        File to write; one that was made from the same source is kept.
    music_csv : str or pathlib.Path
        Likewise.
    speech_csv : str or pathlib.Path
        Likewise; there is none where the source has no ``speech``.
    """
    _prepare(
        source,
        url,
        work_folder,
        {noise_csv: (("noise",), _noise), music_csv: (("music",), _music)},
        shortest=PIECE,
    )
    if speech_csv and (pathlib.Path(source) / "speech").is_dir():
        _prepare(
            str(pathlib.Path(source) / "speech"),
            url,
            work_folder,
            {speech_csv: ((), None)},
            shortest=PIECE,
        )
    elif speech_csv:
        pathlib.Path(speech_csv).unlink(missing_ok=True)
        logger.info(
            f"{source} has no folder speech: babble is mixed of the training "
            "utterances of each batch."
        )


def prepare_rirs(
    source: str,
    url: str,
    work_folder: str | pathlib.Path,
    rir_csv: str | pathlib.Path,
) -> None:
    """Writes the CSV file of room impulse responses.

    Arguments
    ---------
    source : str
        A folder; of RIRS_NOISES the simulated rooms are taken, of another
        everything. Or "download" or "generate", as in ``prepare_noise``.
    url : str
        Archive of room responses, as in the stock recipe.
    work_folder : str or pathlib.Path
        As in ``prepare_noise``.
    rir_csv : str or pathlib.Path
        File to write; one that was made from the same source is kept.
    """
    _prepare(source, url, work_folder, {rir_csv: (("simulated_rirs",), _rir)})


def _prepare(
    source: str | pathlib.Path,
    url: str,
    work_folder: str | pathlib.Path,
    wanted: dict[str | pathlib.Path, tuple[Sequence[str], _Generate | None]],
    shortest: float = 0,
) -> None:
    missing = []
    for path, (subfolders, generate) in wanted.items():
        path = pathlib.Path(path)
        stamp = Stamp(path.with_suffix(".json"), [str(source), url])
        if not (path.is_file() and stamp.is_there()):
            missing.append((path, stamp, subfolders, generate))
    if missing and source == "download":
        source = _download(url, pathlib.Path(work_folder) / "archive")
    for path, stamp, subfolders, generate in missing:
        stamp.remove()
        folder = source
        if source == "generate" and generate:
            logger.info(
                f"Generating {GENERATED} files of synthetic {path.stem}."
            )
            folder = path.parent / "generated" / path.stem
            _generate(generate, folder)
        write_noise_csv(folder, path, work_folder, subfolders, shortest)
        stamp.write()


def _download(url: str, folder: pathlib.Path) -> str | pathlib.Path:
    """The folder, or "generate" where the archive can't be had."""
    if folder.is_dir():  # where perhaps nothing can be written, a lock neither
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        with wait_for_lock(folder.with_name(f"{folder.name}.lock")):
            if folder.is_dir():  # another run has downloaded it
                return folder
            shutil.rmtree(partial, ignore_errors=True)  # what a kill left
            download_file(url, str(partial / "archive.zip"), unpack=True)
            (partial / "archive.zip").unlink()
            os.replace(partial, folder)
    except (OSError, shutil.ReadError) as error:
        logger.warning(
            f"can't download {url} ({error}): augmenting with generated "
            "sounds instead; pass the path of a folder you have, e.g. MUSAN or "
            "RIRS_NOISES, as --noise_source or --rir_source"
        )
        return "generate"
    return folder


def write_noise_csv(
    folder: str | pathlib.Path,
    path: str | pathlib.Path,
    work_folder: str | pathlib.Path,
    subfolders: Sequence[str] = (),
    shortest: float = 0,
) -> None:
    """Lists the wav files of a folder for the stock AddNoise and AddReverb.

    Arguments
    ---------
    folder : str or pathlib.Path
    path : str or pathlib.Path
        The CSV file to write.
    work_folder : str or pathlib.Path
        For copies of files that are not mono, not at 16 kHz, long or short.
    subfolders : sequence of str
        Where one of them is in the folder, only that one is listed.
    shortest : float
        Seconds up to which a shorter file is repeated.

    Raises
    ------
    InputError
        If there is no such folder, or no wav file in it.
    """
    folder = pathlib.Path(folder)
    chosen = next(
        (folder / s for s in subfolders if (folder / s).is_dir()), folder
    )
    # But for hidden ones, such as a kill may leave.
    files = sorted(
        file for file in chosen.rglob("*.wav") if not file.name.startswith(".")
    )
    if not files:
        raise InputError(
            f"{chosen} holds no wav files for augmentation: pass a folder, "
            "'download' or 'generate' as --noise_source or --rir_source"
        )
    copies = pathlib.Path(work_folder) / "copies"
    bar = tqdm.tqdm(files, desc=f"Listing {chosen.name}", dynamic_ncols=True)
    with atomic_path(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(COLUMNS)
            for number, file in enumerate(bar):
                for piece in _pieces(file, copies, shortest):
                    seconds = soundfile.info(str(piece)).duration
                    name = f"{piece.stem}_{number}"
                    writer.writerow([name, seconds, piece, "wav", ""])


def _pieces(
    file: pathlib.Path, copies: pathlib.Path, shortest: float
) -> list[pathlib.Path]:
    """The file itself, or its copies: mono, at 16 kHz, of PIECE seconds; or
    one that is repeated.
    """
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
        # The first channel: a mean over microphones would smear a room.
        waveform = audio.load(file, RATE, channel=0)
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


def _noise(generator: np.random.Generator, seconds: int = PIECE) -> np.ndarray:
    """Noise with a spectral slope of 0 to -9 dB per octave."""
    spectrum = np.fft.rfft(generator.standard_normal(seconds * RATE))
    frequency = np.fft.rfftfreq(seconds * RATE, 1 / RATE)
    slope = generator.uniform(0, 1.5)
    return np.fft.irfft(spectrum / np.maximum(frequency, 30) ** slope)


def _music(generator: np.random.Generator, seconds: int = PIECE) -> np.ndarray:
    """Decaying chords of harmonic tones."""
    time = np.arange(RATE) / RATE
    decay = np.exp(-4 * time)
    harmonics = np.arange(1, 5)[:, None]
    samples = np.zeros((seconds + 1) * RATE)
    gap = generator.uniform(0.2, 0.6)
    for onset in range(0, seconds * RATE, round(gap * RATE)):
        for semitone in generator.integers(0, 36, size=3):
            phase = 2 * np.pi * 110 * 2 ** (semitone / 12) * harmonics * time
            tone = decay * (np.sin(phase) / harmonics).sum(0)
            samples[onset : onset + RATE] += tone
    return samples[: seconds * RATE]


def _rir(generator: np.random.Generator) -> np.ndarray:
    """A direct path and a tail that decays by 60 dB in 0.2 to 0.8 s."""
    decay = generator.uniform(0.2, 0.8)
    time = np.arange(round(decay * RATE)) / RATE
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail *= generator.uniform(0.02, 0.2)
    tail[: round(0.002 * RATE)] = 0
    tail[0] = 1
    return tail
