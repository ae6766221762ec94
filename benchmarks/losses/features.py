"""The log-mel features of a corpus, made once for all trainings."""

import csv
import fcntl
import hashlib
import json
from typing import NamedTuple

import numpy as np
import torch
import tqdm

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import (
    list_audio,
    prepare_corpus,
    read_speakers,
    speaker_of,
)
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.dataio.make_trials import choose_test_speakers
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import load_hparams

# Augmented copies of each training utterance, beside the recording itself
COPIES = 3
SEED = 1986
FRAMES, INDEX, DESCRIPTION = "features.npy", "features.json", "corpus.json"
PARTS = {"train": "train_annotation", "dev": "valid_annotation"}


class Features(NamedTuple):
    """The features of a corpus.

    Arguments
    ---------
    frames : np.ndarray
        All utterances one after the other, shape [frames, mels], float16.
    rows : list of dict
        One for each utterance and copy: "id", "speaker", "part" (train, dev or
        test), "copy" (0: as recorded), "start" and "stop" (frames).
    speakers : dict
        Speaker -> row of ``speakers.csv``; empty where there is none.
    """

    frames: np.ndarray
    rows: list
    speakers: dict


def prepare(data_folder, hparams_file, work_folder):
    """Writes the features and their index, unless they are there.

    One process does it; others that come meanwhile wait.

    Arguments
    ---------
    data_folder : pathlib.Path
        With its test speakers in ``speakers.csv``, or a fifth are drawn.
    hparams_file : pathlib.Path
        For the features and the augmentations.
    work_folder : pathlib.Path

    Raises
    ------
    InputError
        If those that are there are of another corpus, split or setting.
    """
    work_folder.mkdir(parents=True, exist_ok=True)
    paths = list_audio(data_folder, work_folder)
    test = choose_test_speakers(data_folder, set(map(speaker_of, paths)))
    hparams = load_hparams(
        hparams_file,
        {
            "data_folder": str(data_folder),
            "output_folder": str(work_folder / "prepared"),
            "data_folder_noise": str(work_folder / "noise"),
            "data_folder_rir": str(work_folder / "rir"),
            "noise_source": "generate",
            "rir_source": "generate",
        },
    )
    made_from = _description(data_folder, paths, test, hparams)
    with open(work_folder / "features.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (work_folder / INDEX).is_file():
            if describe(work_folder) != made_from:
                raise InputError(
                    f"{work_folder} has features of another corpus, split or "
                    f"setting than {data_folder}: give another --work_folder"
                )
            return
        _write(data_folder, paths, test, hparams, work_folder)
        with atomic_path(work_folder / DESCRIPTION) as temporary:
            temporary.write_text(json.dumps(made_from))


def describe(work_folder):
    """What the features of a folder were made from, as ``prepare`` wrote it."""
    path = work_folder / DESCRIPTION
    if not path.is_file():
        raise InputError(
            f"{path} is missing: run python -m benchmarks.losses run first"
        )
    return json.loads(path.read_text())


def digest(work_folder):
    """Which features those of a folder are: machines round differently."""
    frames = np.load(work_folder / FRAMES, mmap_mode="r")
    return hashlib.sha256(frames.reshape(-1)).hexdigest()[:12]


def _description(data_folder, paths, test, hparams):
    split = [(u, speaker_of(u) in test) for u in paths]
    return {
        "corpus": data_folder.name,
        "utterances": hashlib.sha256(json.dumps(split).encode()).hexdigest(),
        "copies": COPIES,
        "seed": SEED,
        "sample_rate": hparams["sample_rate"],
        "n_mels": hparams["n_mels"],
    }


def _write(data_folder, paths, test, hparams, work_folder):
    prepare_corpus(
        data_folder,
        hparams["save_folder"],
        test,
        split_ratio=[95, 5],
        sample_rate=hparams["sample_rate"],
        seed=SEED,
    )
    hparams["prepare_noise_data"]()
    hparams["prepare_rir_data"]()
    utterances = [
        {"id": u, "speaker": speaker_of(u), "part": "test", "wav": path}
        for u, path in paths.items()
        if speaker_of(u) in test
    ]
    for part, key in PARTS.items():
        with open(hparams[key], newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                utterances.append(
                    {
                        "id": row["ID"],
                        "speaker": row["spk_id"],
                        "part": part,
                        "wav": paths[row["ID"]],
                    }
                )
    utterances.sort(key=lambda utterance: utterance["id"])
    torch.manual_seed(SEED)
    rows, arrays, position = [], [], 0
    for utterance in tqdm.tqdm(utterances, desc="features"):
        copies = COPIES if utterance["part"] == "train" else 0
        waveform = audio.load(utterance.pop("wav"), hparams["sample_rate"])
        for copy, frames in enumerate(_views(waveform[None], copies, hparams)):
            start, position = position, position + len(frames)
            span = {"copy": copy, "start": start, "stop": position}
            rows.append(utterance | span)
            arrays.append(frames)
    with atomic_path(work_folder / FRAMES) as temporary:
        with open(temporary, "wb") as file:
            np.save(file, np.concatenate(arrays))
    with atomic_path(work_folder / INDEX) as temporary:
        temporary.write_text(json.dumps(rows))


@torch.no_grad()
def _views(waveform, copies, hparams):
    """The utterance's features, then those of its augmented copies."""
    augment = hparams["wav_augment"]
    augment.concat_original = False
    signals = [waveform]
    for _ in range(copies):
        # Babble takes its voices from a batch; alone, the recording is whole.
        signals.append(augment(waveform, torch.ones(1))[0])
    for signal in signals:
        yield hparams["compute_features"](signal)[0].numpy().astype(np.float16)


def read(data_folder, work_folder):
    """What ``prepare`` has written, the frames mapped into memory.

    Arguments
    ---------
    data_folder : pathlib.Path
        For its ``speakers.csv``.
    work_folder : pathlib.Path

    Returns
    -------
    features : Features
    """
    return Features(
        np.load(work_folder / FRAMES, mmap_mode="r"),
        json.loads((work_folder / INDEX).read_text()),
        read_speakers(data_folder),
    )
