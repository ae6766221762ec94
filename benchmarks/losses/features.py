"""The log-mel features of the corpora, made once for all trainings."""

import hashlib
import json
import random
from typing import NamedTuple

import filelock
import numpy as np
import torch
import tqdm

from benchmarks.losses.corpora import read_corpora
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import load_hparams

COPIES = 3  # augmented ones of each training utterance
SEED = 1986
FRAMES, INDEX = "features.float16", "features.json"
_AUGMENTATIONS = ("add_reverb", "add_music", "add_babble", "add_noise")
_VOICES = 100  # recordings of training speakers, for babble
_DEV_EVERY = 20  # one in so many utterances is held out of training


class Features(NamedTuple):
    """The features of the corpora and the labels of their utterances."""

    frames: np.ndarray  # float16 [frames, mels], one utterance after another
    # "id", the fields of corpora.Utterance, "part" (train, dev or test) and
    # "spans": (start, stop) of the recording and of its augmented copies
    rows: list
    made_from: dict


def prepare(data_folders, work_folder, hparams_file, most_speakers=None):
    """Writes the features and their index, unless they are there."""
    utterances = read_corpora(data_folders, most_speakers)
    parts = _parts(utterances)
    hparams = load_hparams(
        hparams_file,
        {
            "data_folder": "corpora",
            "output_folder": str(work_folder / "prepared"),
            "data_folder_noise": str(work_folder / "prepared" / "noise"),
            "data_folder_rir": str(work_folder / "prepared" / "rir"),
            "noise_source": "generate",
            "rir_source": "generate",
        },
    )
    listed = [(u.id, parts[u.id]) for u in utterances]
    made_from = {
        "corpora": sorted({u.corpus for u in utterances}),
        "utterances": hashlib.sha256(json.dumps(listed).encode()).hexdigest(),
        "copies": COPIES,
        "seed": SEED,
        "sample_rate": hparams["sample_rate"],
        "n_mels": hparams["n_mels"],
    }
    work_folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(work_folder / "features.lock"):
        if (work_folder / INDEX).is_file():
            before = dict(read(work_folder).made_from)
            before.pop("digest")
            if before != made_from:
                raise InputError(
                    f"{work_folder} has features of other corpora or settings: "
                    "pass another --work_folder"
                )
            return
        _write(utterances, parts, hparams, work_folder, made_from)


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


def _parts(utterances):
    """Utterance id -> train, dev or test; every speaker keeps one to train."""
    parts, trained = {}, 0
    for before, u in zip([None, *utterances], utterances, strict=False):
        if u.split == "test":
            parts[u.id] = "test"
            continue
        trained += 1
        known = before is not None and before.speaker == u.speaker
        dev = known and trained % _DEV_EVERY == 0
        parts[u.id] = "dev" if dev else "train"
    return parts


def _write(utterances, parts, hparams, work_folder, made_from):
    hparams["prepare_noise_data"]()
    hparams["prepare_rir_data"]()
    rate = hparams["sample_rate"]
    torch.manual_seed(SEED)
    draw = random.Random(SEED)
    train = [u for u in utterances if parts[u.id] == "train"]
    voices = [
        audio.load(u.path, rate)
        for u in draw.sample(train, min(_VOICES, len(train)))
    ]
    rows, position, digest = [], 0, hashlib.sha256()
    with atomic_path(work_folder / FRAMES) as temporary:
        with open(temporary, "wb") as file:
            for u in tqdm.tqdm(utterances, "features", dynamic_ncols=True):
                waveform = audio.load(u.path, rate)[None]
                copies = COPIES if parts[u.id] == "train" else 0
                signals = [waveform]
                for _ in range(copies):
                    signals.append(_augment(waveform, voices, hparams, draw))
                spans = []
                for signal in signals:
                    with torch.no_grad():
                        frames = hparams["compute_features"](signal)[0]
                    data = frames.numpy().astype(np.float16).tobytes()
                    file.write(data)
                    digest.update(data)
                    spans.append((position, position + len(frames)))
                    position += len(frames)
                row = u._asdict() | {"part": parts[u.id], "spans": spans}
                del row["path"], row["split"]
                rows.append(row)
    # Machines round differently: this tells whose features they are.
    made_from = made_from | {"digest": digest.hexdigest()[:12]}
    with atomic_path(work_folder / INDEX) as temporary:
        temporary.write_text(json.dumps({"made_from": made_from, "rows": rows}))


@torch.no_grad()
def _augment(waveform, voices, hparams, draw):
    """A copy with a reverberation, music, babble or noise of the recipe."""
    name = draw.choice(_AUGMENTATIONS)
    if name == "add_reverb":
        return hparams[name](waveform)
    extra = {}
    if name == "add_babble":
        samples = waveform.shape[1]
        pool = [audio.repeat_to(voice, samples) for voice in voices]
        extra = {"pool": torch.stack(pool)}
    return hparams[name](waveform, torch.ones(1), **extra)
