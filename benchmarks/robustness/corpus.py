"""The test utterances of a corpus, and what each condition makes of them."""

import collections
import hashlib
import json
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np
import torch
import tqdm
from speechbrain.lobes.features import Fbank
from speechbrain.utils.logger import get_logger

from benchmarks.robustness.conditions import RATE, VERSION, degrade
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import (
    list_audio,
    read_speaker_table,
    read_speakers,
    speaker_of,
)
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.scoring.cache import identity
from speechbrain_hyperbolic.scoring.extraction import SHORTEST

logger = get_logger(__name__)

_MOST_VOICES = 100  # speakers of whom noise is made
_SHORTEST = int(SHORTEST * RATE)


class Corpus(NamedTuple):
    """Test utterances.

    Arguments
    ---------
    name : str
        Of the folder; it says so where no person speaks in it.
    paths : dict
        Utterance id -> path, sorted.
    speakers : list of str
        Of each utterance.
    sexes : list of str
        Of each utterance; "" where it is not known.
    utterances_per_speaker : int
        At most; 0: all.
    """

    name: str
    paths: dict
    speakers: list
    sexes: list
    utterances_per_speaker: int

    def digest(self):
        """Tells these versions of these files from all others."""
        digest = hashlib.sha256()
        for utterance, path in self.paths.items():
            digest.update(utterance.encode() + b"\n" + identity(path))
        return digest.hexdigest()[:16]


def find_corpus(
    data_folder, run_folders, speakers_file=None, utterances_per_speaker=8
):
    """The utterances to test on.

    Arguments
    ---------
    data_folder : str or pathlib.Path
    run_folders : list of pathlib.Path
        Of models: nobody who trained one of them is tested, unless the file
        says so.
    speakers_file : str or pathlib.Path
        CSV with ``spk_id`` and ``split``: those with "test" are tested. None:
        all others than the training speakers are. ``sex`` is optional; without
        the file it is that of the corpus's own ``speakers.csv``.
    utterances_per_speaker : int
        The first in the order of their ids; 0: all.

    Returns
    -------
    corpus : Corpus

    Raises
    ------
    InputError
        If a file is missing, or what is left makes no trials.
    """
    if utterances_per_speaker < 0:
        raise InputError(
            f"utterances_per_speaker is {utterances_per_speaker}, expected 0 "
            "(all) or more"
        )
    by_speaker = {}
    for utterance, path in list_audio(data_folder).items():
        by_speaker.setdefault(speaker_of(utterance), {})[utterance] = path
    lists = [folder / "save" / "train.csv" for folder in run_folders]
    if speakers_file is None:
        table = read_speakers(data_folder)
        tested = by_speaker.keys() - _speakers_of(lists)
    else:
        table = read_speaker_table(speakers_file, ["split"])
        tested = by_speaker.keys() & {
            speaker
            for speaker, row in table.items()
            if row["split"].strip().lower() == "test"
        }
        known = tested & _speakers_of(filter(pathlib.Path.is_file, lists))
        if known:
            logger.warning(
                f"{len(known)} test speakers of {speakers_file} have names of "
                f"training speakers, e.g. {min(known)}: if they are the same "
                "people, error rates are too good"
            )
    paths = {
        utterance: path
        for speaker in sorted(tested)
        for utterance, path in list(by_speaker[speaker].items())[
            : utterances_per_speaker or None
        ]
    }
    speakers = [*map(speaker_of, paths)]
    counts = collections.Counter(speakers)
    if len(counts) < 2 or max(counts.values()) < 2:
        by = speakers_file or "the models' save/train.csv"
        raise InputError(
            f"data_folder {data_folder} has {len(paths)} utterances of "
            f"{len(tested)} test speakers by {by}: expected two speakers, one "
            "of them with two"
        )
    sexes = [table.get(s, {}).get("sex", "").strip() for s in speakers]
    return Corpus(
        _name(data_folder), paths, speakers, sexes, utterances_per_speaker
    )


def _name(data_folder):
    folder = pathlib.Path(data_folder).resolve()
    try:
        about = json.loads((folder / "corpus.json").read_text())["about"]
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name
    return f"{folder.name} ({about})"


def _speakers_of(lists):
    speakers = set()
    for path in lists:
        if not path.is_file():
            raise InputError(
                f"{path} is missing: name the folder of a run, or pass "
                "--speakers"
            )
        speakers.update(
            row["spk_id"] for _, row in read_table(path, ["spk_id"])
        )
    return speakers


class Features(NamedTuple):
    """What the encoders are given of the utterances in a condition.

    Arguments
    ---------
    frames : list of torch.Tensor
        Of each utterance, shape [frames, bands], not normalised.
    seconds : np.ndarray
        Their lengths, shape [utterances].
    """

    frames: list
    seconds: np.ndarray


def features(corpus, condition, front_end, cache_folder):
    """Degrades all utterances, once, and computes their filterbanks.

    Arguments
    ---------
    corpus : Corpus
    condition : str
    front_end : tuple of int
        Sample rate, of which only 16 kHz is known, and number of mel bands.
    cache_folder : pathlib.Path

    Returns
    -------
    features : Features
    """
    rate, n_mels = front_end
    if rate != RATE:
        raise InputError(f"a model is for {rate} Hz, expected {RATE}")
    name = f"features-{condition}-v{VERSION}-{n_mels}-{corpus.digest()}.npz"

    def compute():
        fbank = Fbank(n_mels=n_mels, sample_rate=rate)
        frames, seconds = [], []
        for waveform in degraded(corpus, condition):
            with torch.no_grad():
                frames.append(fbank(waveform.unsqueeze(0)).squeeze(0))
            seconds.append(len(waveform) / rate)
        return {
            "frames": torch.cat(frames).numpy(),
            "counts": [*map(len, frames)],
            "seconds": seconds,
        }

    arrays = cached(cache_folder / name, compute)
    frames = torch.from_numpy(arrays["frames"])
    frames = frames.split(arrays["counts"].tolist())
    return Features(frames, arrays["seconds"])


def degraded(corpus, condition):
    """Reads the utterances and degrades them, with a progress bar.

    Arguments
    ---------
    corpus : Corpus
    condition : str

    Yields
    ------
    waveform : torch.Tensor
        Shape [time].
    """
    rows = [*zip(corpus.paths.items(), corpus.speakers, strict=True)]
    firsts = {}
    for (_, path), speaker in rows:
        firsts.setdefault(speaker, path)
    voices = {s: _load(firsts[s]) for s in [*firsts][:_MOST_VOICES]}
    bar = tqdm.tqdm(
        rows, condition, unit="clip", leave=False, dynamic_ncols=True
    )
    for (utterance, path), speaker in bar:
        others = [voice for s, voice in voices.items() if s != speaker]
        waveform = degrade(condition, _load(path), utterance, others)
        yield torch.from_numpy(waveform)


def _load(path):
    """A waveform, repeated where an encoder couldn't take it."""
    waveform = audio.load(path, RATE)
    return audio.repeat_to(waveform, max(len(waveform), _SHORTEST)).numpy()


def cached(path, compute):
    """Arrays from a file, or computed and written to it.

    Arguments
    ---------
    path : pathlib.Path
        An npz file.
    compute : callable
        Gives a dict of arrays.

    Returns
    -------
    arrays : dict
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        pass
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it, it's made again"
        ) from error
    arrays = {name: np.asarray(value) for name, value in compute().items()}
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)
    return arrays
