"""The log-mel features of the corpora, made once for all trainings."""

import hashlib
import json
import random
from typing import NamedTuple

import filelock
import numpy as np
import torch
import tqdm
from torch.nn.utils.rnn import pad_sequence

from benchmarks.losses.corpora import read_corpora
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import load_hparams

COPIES = 3  # augmented ones of each training utterance
SEED = 1986
FRAMES, INDEX = "features.float16", "features.json"
_BATCH = 32  # recordings that are augmented together, and babble
_DEV_EVERY = 20  # one in so many utterances is held out of training


class Features(NamedTuple):
    """The features of the corpora and the labels of their utterances."""

    frames: np.ndarray  # float16 [frames, mels], one utterance after another
    # Those of corpora.read_corpora, with "part" (train, dev or test) and
    # "spans": (start, stop) of the recording and of its augmented copies
    rows: list
    made_from: dict


def prepare(data_folders, work_folder, hparams_file, most_speakers=None):
    """Writes the features and their index, unless they are there."""
    rows = read_corpora(data_folders, most_speakers)
    _hold_out(rows)
    prepared = work_folder / "prepared"
    overrides = {
        "data_folder": "corpora",
        "output_folder": str(prepared),
        "data_folder_noise": str(prepared),
        "noise_source": "generate",
        "rir_source": "generate",
    }
    hparams = load_hparams(hparams_file, overrides)
    listed = json.dumps([row | {"path": ""} for row in rows])
    made_from = {
        "corpora": sorted({row["corpus"] for row in rows}),
        "utterances": hashlib.sha256(listed.encode()).hexdigest()[:12],
        "copies": COPIES,
        "seed": SEED,
        "sample_rate": hparams["sample_rate"],
        "n_mels": hparams["n_mels"],
    }
    work_folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(work_folder / "features.lock"):
        if not (work_folder / INDEX).is_file():
            _write(rows, hparams, work_folder, made_from)
        if not made_from.items() <= read(work_folder).made_from.items():
            raise InputError(
                f"{work_folder} has features of other corpora or settings: "
                "pass another work folder"
            )


def read(work_folder):
    """What ``prepare`` wrote, the frames mapped into memory."""
    path = work_folder / INDEX
    if not path.is_file():
        raise InputError(
            f"{path} is missing: run python -m benchmarks.losses features"
        )
    index = json.loads(path.read_text())
    shape = -1, index["made_from"]["n_mels"]
    frames = np.memmap(work_folder / FRAMES, np.float16, "r").reshape(shape)
    return Features(frames, index["rows"], index["made_from"])


def _hold_out(rows):
    """Makes some training rows dev; every speaker keeps one to train on."""
    seen = set()
    for number, row in enumerate(rows):
        known = row["part"] == "train" and row["speaker"] in seen
        if known and number % _DEV_EVERY == 0:
            row["part"] = "dev"
        seen.add(row["speaker"])


def _write(rows, hparams, work_folder, made_from):
    hparams["prepare_noise_data"]()
    fbank = hparams["compute_features"]
    # Neighbors are of one speaker, whose own voice would be babble.
    rows_in_batches = random.Random(SEED).sample(rows, len(rows))
    position, digest = 0, hashlib.sha256()
    with (
        atomic_path(work_folder / FRAMES) as temporary,
        open(temporary, "wb") as file,
    ):
        for first in tqdm.trange(0, len(rows), _BATCH, desc="features"):
            batch = rows_in_batches[first : first + _BATCH]
            for row, signals in zip(
                batch, _signals(batch, hparams), strict=True
            ):
                row["spans"] = []
                for signal in signals:
                    frames = fbank(signal[None])[0].numpy().astype(np.float16)
                    file.write(frames.tobytes())
                    digest.update(frames.tobytes())
                    row["spans"].append((position, position + len(frames)))
                    position += len(frames)
    # Machines round differently: this tells whose features they are.
    made_from = made_from | {"digest": digest.hexdigest()[:12]}
    with atomic_path(work_folder / INDEX) as temporary:
        temporary.write_text(json.dumps({"made_from": made_from, "rows": rows}))


def _signals(batch, hparams):
    """Each recording, and if it is for training its augmented copies."""
    signals = [audio.load(row["path"], hparams["sample_rate"]) for row in batch]
    found = [[signal] for signal in signals]
    padded = pad_sequence(signals, batch_first=True)
    lengths = torch.tensor([len(s) for s in signals]) / padded.shape[1]
    for _ in range(COPIES):
        both, _ = hparams["wav_augment"](padded, lengths)
        copies = both[len(batch) :]
        for row, copy, each in zip(batch, copies, found, strict=True):
            if row["part"] == "train":
                each.append(copy[: len(each[0])])
    return found
