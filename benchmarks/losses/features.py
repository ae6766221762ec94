"""The log-mel features of a corpus, made once for all trainings."""

import csv
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
from speechbrain_hyperbolic.hparams import load_hparams

# Augmented copies of each training utterance, beside the recording itself
COPIES = 3
SEED = 1986
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

    Arguments
    ---------
    data_folder : pathlib.Path
        With its test speakers in ``speakers.csv``, or a fifth are drawn.
    hparams_file : pathlib.Path
        For the features and the augmentations.
    work_folder : pathlib.Path
    """
    index = work_folder / "features.json"
    if index.is_file():
        return
    torch.manual_seed(SEED)
    paths = list_audio(data_folder)
    test = choose_test_speakers(data_folder, set(map(speaker_of, paths)))
    hparams = load_hparams(
        hparams_file,
        {
            "data_folder": str(data_folder),
            "output_folder": str(work_folder / "prepared"),
            "noise_source": "generate",
            "rir_source": "generate",
        },
    )
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
    rows, arrays, position = [], [], 0
    for utterance in tqdm.tqdm(utterances, desc="features"):
        copies = COPIES if utterance["part"] == "train" else 0
        waveform = audio.load(utterance.pop("wav"), hparams["sample_rate"])
        for copy, frames in enumerate(_views(waveform[None], copies, hparams)):
            start, position = position, position + len(frames)
            span = {"copy": copy, "start": start, "stop": position}
            rows.append(utterance | span)
            arrays.append(frames)
    with atomic_path(work_folder / "features.npy") as temporary:
        with open(temporary, "wb") as file:
            np.save(file, np.concatenate(arrays))
    with atomic_path(index) as temporary:
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
    """What ``prepare`` has written, the frames mapped into memory."""
    return Features(
        np.load(work_folder / "features.npy", mmap_mode="r"),
        json.loads((work_folder / "features.json").read_text()),
        read_speakers(data_folder),
    )
