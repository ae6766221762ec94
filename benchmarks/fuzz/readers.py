"""What is fuzzed: for each reader its files, and what it must keep to.

A reader takes the folder of the files. It raises InputError, or what it has
read must hold: that is asserted.
"""

import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from hypothesis.strategies import SearchStrategy
from speechbrain.utils.epoch_loop import EpochCounter

from benchmarks.fuzz import files
from benchmarks.fuzz.audio_files import AUDIO
from speechbrain_hyperbolic.dataio import audio, trials, windows
from speechbrain_hyperbolic.dataio.corpus import read_speakers, read_splits
from speechbrain_hyperbolic.dataio.scores import read_score_table, write_scores
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import load_hparams, resolve
from speechbrain_hyperbolic.inference.model_folder import (
    ModelConfig,
    load_model,
)
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from speechbrain_hyperbolic.scoring.extraction import Encoder
from speechbrain_hyperbolic.scoring.scorer import read_cohort
from speechbrain_hyperbolic.training import make_datasets


class Reader(NamedTuple):
    """Of one kind of file.

    Arguments
    ---------
    files : SearchStrategy
        Of dicts: name -> bytes.
    read : callable
        Takes a folder with such files.
    """

    files: SearchStrategy
    read: Callable


def _lines(path):
    """Those with anything on them."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line for line in text.split("\n") if line.split()]


def read_trial_list(folder):
    path, enrolment = folder / "trials.txt", folder / "enrol.map"
    found = trials.read_trials(path, enrolment if enrolment.exists() else None)
    assert len(found) == len(_lines(path))
    assert set(found.labels.tolist()) <= {0, 1}
    assert len(found.models) == len(found.members)
    for utterance in found.utterances:  # all are below the corpus
        assert not utterance.startswith("/")
        assert ".." not in pathlib.PurePosixPath(utterance).parts
    of_models, of_tests = found.speakers()
    assert len(of_models) == len(of_tests) == len(found)
    # An id is written without the extension; one may look as if it had one.
    if not any(u.lower().endswith(audio.EXTENSIONS) for u in found.utterances):
        trials.write_trials(found, folder / "again.txt")
        again = trials.read_trials(
            folder / "again.txt", enrolment if enrolment.exists() else None
        )
        assert list(again) == list(found)


def read_scores(folder):
    path = folder / "scores.txt"
    table = read_score_table(path)
    assert len(table.scores) == len(_lines(path))
    assert np.isfinite(table.scores).all()
    write_scores(folder / "again.txt", *table)
    again = read_score_table(folder / "again.txt")
    assert (again.enrol, again.test) == (table.enrol, table.test)
    np.testing.assert_array_equal(again.labels, table.labels)
    np.testing.assert_array_equal(again.scores, table.scores)


def read_speaker_table(folder):
    speakers = read_speakers(folder)
    for name, row in speakers.items():
        assert row["spk_id"] == name != ""
        assert all(isinstance(x, str) for pair in row.items() for x in pair)
    if "split" not in next(iter(speakers.values()), {}):
        return
    splits = read_splits(folder)
    assert splits.keys() <= speakers.keys()
    assert set(splits.values()) <= {"train", "test"}


def read_prepared(folder):
    """Both readers of these files may take what the other refuses."""
    cohort, refusal = None, None
    try:
        cohort = read_cohort(folder / "train.csv", per_speaker=2)
    except InputError as error:
        refusal = error
    train, valid, encoder = make_datasets(
        {
            "data_folder": str(folder),
            "train_annotation": str(folder / "train.csv"),
            "valid_annotation": str(folder / "dev.csv"),
            "sample_rate": 16000,
            "sentence_len": 0.05,
            "random_chunk": True,
            "seed": 0,
            "epoch_counter": EpochCounter(1),
            "out_n_neurons": 2,
        }
    )
    if refusal is not None:  # an audio file of two speakers
        raise refusal
    speakers = {row["spk_id"] for row in train.data.values()}
    assert set(cohort.speakers) == speakers == set(encoder.lab2ind)
    assert len(cohort.paths) == len(cohort.speakers)
    for data in (train, valid):
        for index in range(min(len(data), 3)):
            try:
                item = data[index]
            except InputError as error:  # the audio; its path may be any text
                path = pathlib.Path(data.data[data.data_ids[index]]["wav"])
                assert str(path) in str(error)
                continue
            assert item["sig"].shape == (800,) and item["sig"].isfinite().all()
            assert item["spk_id_encoded"] in (0, 1)


def read_model(folder):
    config, modules = load_model(folder)
    again = ModelConfig.from_json(config.to_json(), folder)
    assert again == config
    assert json.loads(config.to_json())["sample_rate"] == config.sample_rate
    with torch.inference_mode():
        embedding = Encoder(**modules)(torch.ones(1, 1600))
    assert embedding.ndim == 2 and len(embedding) == 1


def read_voiceprints(folder):
    store = VoiceprintStore.load(folder / "store.safetensors", files.MODEL)
    assert store.vectors.dtype == np.float32
    assert len(store.vectors) == len(store.names) == len({*store.names})
    assert all(name.isprintable() for name in store.names)
    assert np.isfinite(store.vectors).all()
    store.save(folder / "again.safetensors")
    again = VoiceprintStore.load(folder / "again.safetensors", files.MODEL)
    assert again.names == store.names
    np.testing.assert_array_equal(again.vectors, store.vectors)


def read_audio(folder):
    """All of it, a part of it, and its windows."""
    (path,) = folder.iterdir()
    header = audio.info(path)
    assert header.frames > 0 and header.channels > 0
    part = audio.load(path, 16000, start=100, stop=900)
    # At once and resampled nothing reads what is long.
    long = windows.is_long(header.frames, header.sample_rate)
    rate = header.sample_rate if long else 16000
    whole = audio.load(path, rate)
    for waveform in (whole, part):
        assert waveform.ndim == 1 and waveform.dtype == torch.float32
        assert waveform.isfinite().all()
    assert 0 < len(part) <= 800
    wanted = header.frames * rate / header.sample_rate
    slack = audio.AAC_SLACK if path.suffix in audio.BY_AV else 0
    assert len(whole) >= wanted - 1 - slack * rate / header.sample_rate
    count, parts = windows.read_windows(path, 16000)
    parts = list(parts)
    assert len(parts) == count


def read_overrides(folder):
    text = (folder / "overrides.yaml").read_text(encoding="utf-8")
    path = folder / "hparams.yaml"
    nodes = resolve(path, text)
    hparams = load_hparams(path, text)
    assert hparams.keys() == nodes.keys()


READERS = {
    "trials": Reader(files.TRIALS, read_trial_list),
    "scores": Reader(files.SCORES, read_scores),
    "speakers": Reader(files.SPEAKERS, read_speaker_table),
    "prepared": Reader(files.PREPARED, read_prepared),
    "model": Reader(files.MODELS, read_model),
    "overrides": Reader(files.OVERRIDES, read_overrides),
    "voiceprints": Reader(files.VOICEPRINTS, read_voiceprints),
    "audio": Reader(
        AUDIO.map(lambda file: {f"a{file[0]}": file[1]}), read_audio
    ),
}
