"""Noise, music and room responses for augmentation, as the stock's CSV files.

Each comes from one of three sources: a folder that the user has (MUSAN,
RIRS_NOISES, or any folder of wav files), the stock recipe's download, or,
where there is neither, a generator.
"""

import csv
import os
import pathlib

import numpy as np
import soundfile
from speechbrain.augment.preparation import prepare_dataset_from_URL
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError

logger = get_logger(__name__)

RATE = 16000
GENERATED = 40  # files of a kind
# The columns that speechbrain.augment.preparation writes.
COLUMNS = ["ID", "duration", "wav", "wav_format", "wav_opts"]


def prepare_noise(source, url, download_folder, noise_csv, music_csv):
    """Writes the CSV files of noise and of music.

    Arguments
    ---------
    source : str
        A folder; with subfolders ``noise`` and ``music`` (MUSAN) each serves
        its file, else all of it serves both. Or "download" (the archive at
        ``url``; generated where that fails, with a warning), or "generate".
    url : str
        Archive of noise, as in the stock recipe.
    download_folder : str or pathlib.Path
        Where the archive goes; generated files go beside the CSV files.
    noise_csv : str or pathlib.Path
        File to write. One that is there is kept.
    music_csv : str or pathlib.Path
        Likewise.
    """
    _prepare(
        source,
        url,
        download_folder,
        {noise_csv: (("noise",), _noise), music_csv: (("music",), _music)},
    )


def prepare_rirs(source, url, download_folder, rir_csv):
    """Writes the CSV file of room impulse responses.

    Arguments
    ---------
    source : str
        A folder; of RIRS_NOISES the simulated rooms are taken, of another
        everything. Or "download" or "generate", as in ``prepare_noise``.
    url : str
        Archive of room responses, as in the stock recipe.
    download_folder : str or pathlib.Path
        Where the archive goes.
    rir_csv : str or pathlib.Path
        File to write. One that is there is kept.
    """
    _prepare(
        source, url, download_folder, {rir_csv: (("simulated_rirs",), _rir)}
    )


def _prepare(source, url, download_folder, wanted):
    wanted = {
        pathlib.Path(path): how
        for path, how in wanted.items()
        if not os.path.isfile(path)
    }
    if not wanted:
        return
    if source == "download":
        source = _download(url, download_folder, next(iter(wanted)))
    for path, (subfolders, generate) in wanted.items():
        if source == "generate":
            kind = path.stem
            logger.info(f"Generating {GENERATED} files of synthetic {kind}.")
            folder = path.parent / "generated" / kind
            _generate(generate, folder)
            write_noise_csv(folder, path)
        else:
            write_noise_csv(source, path, subfolders)


def _download(url, folder, csv_path):
    """The folder, or "generate" where the archive can't be had."""
    try:
        prepare_dataset_from_URL(
            url, str(folder), "wav", f"{csv_path}.download"
        )
    except OSError as error:
        logger.warning(
            f"can't download {url} ({error}): augmenting with generated "
            "sounds instead; pass the path of a folder you have, e.g. MUSAN or "
            "RIRS_NOISES, as --noise_source or --rir_source"
        )
        return "generate"
    return folder


def write_noise_csv(folder, path, subfolders=()):
    """Lists the wav files of a folder for the stock AddNoise and AddReverb.

    Arguments
    ---------
    folder : str or pathlib.Path
    path : str or pathlib.Path
        The CSV file to write.
    subfolders : sequence of str
        Where one of them is in the folder, only that one is listed.

    Raises
    ------
    InputError
        If there is no such folder, or no wav file in it.
    """
    folder = pathlib.Path(folder)
    chosen = next(
        (folder / s for s in subfolders if (folder / s).is_dir()), folder
    )
    files = sorted(chosen.rglob("*.wav"))
    if not files:
        raise InputError(
            f"{chosen} holds no wav files for augmentation: pass a folder, "
            "'download' or 'generate' as --noise_source or --rir_source"
        )
    with atomic_path(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(COLUMNS)
            for number, file in enumerate(files):
                header = audio.info(file)
                seconds = header.frames / header.sample_rate
                writer.writerow(
                    [f"{file.stem}_{number}", seconds, file, "wav", ""]
                )


def _generate(generate, folder):
    for number in range(GENERATED):
        samples = generate(np.random.default_rng(number))
        samples = 0.5 * samples / np.abs(samples).max()
        with atomic_path(folder / f"{number:03d}.wav") as temporary:
            soundfile.write(temporary, samples, RATE)


def _noise(generator, seconds=6):
    """Noise with a spectral slope of 0 to -9 dB per octave."""
    spectrum = np.fft.rfft(generator.standard_normal(seconds * RATE))
    frequency = np.fft.rfftfreq(seconds * RATE, 1 / RATE)
    slope = generator.uniform(0, 1.5)
    return np.fft.irfft(spectrum / np.maximum(frequency, 30) ** slope)


def _music(generator, seconds=6):
    """Decaying chords of harmonic tones."""
    samples = np.zeros(seconds * RATE)
    time = np.arange(len(samples)) / RATE
    for onset in np.arange(0, seconds, generator.uniform(0.2, 0.6)):
        after = np.maximum(time - onset, 0)
        envelope = (time >= onset) * np.exp(-3 * after)
        for _ in range(3):
            pitch = 110 * 2 ** (generator.integers(0, 36) / 12)
            for harmonic in range(1, 5):
                samples += (
                    envelope
                    * np.sin(2 * np.pi * harmonic * pitch * after)
                    / harmonic
                )
    return samples


def _rir(generator):
    """A direct path and a tail that decays by 60 dB in 0.2 to 0.8 s."""
    decay = generator.uniform(0.2, 0.8)
    time = np.arange(round(decay * RATE)) / RATE
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail *= generator.uniform(0.02, 0.2)
    tail[: round(0.002 * RATE)] = 0
    tail[0] = 1
    return tail
