"""Crops, labels, and what a training step is made of."""

import csv

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic.dataio.corpus import COLUMNS
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training import make_datasets

RATE = 16000
CROP = 1600


def hparams(folder, lengths, **changes):
    """CSV files of utterances whose samples are their own index / 1e5."""
    for split in ("train", "dev"):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for number, length in enumerate(lengths):
                path = folder / f"{number}.wav"
                ramp = np.arange(length, dtype=np.float32) / 1e5
                soundfile.write(path, ramp, RATE, subtype="FLOAT")
                row = [number, length / RATE, path, 0, length, f"s{number}"]
                writer.writerow(row)
    return {
        "data_folder": str(folder),
        "save_folder": str(folder),
        "train_annotation": str(folder / "train.csv"),
        "valid_annotation": str(folder / "dev.csv"),
        "sample_rate": RATE,
        "sentence_len": CROP / RATE,
        "random_chunk": True,
        "out_n_neurons": len(lengths),
        **changes,
    }


def indices(row):
    return (row["sig"] * 1e5).round().long()


def test_random_crops_are_everywhere(tmp_path):
    train, _, _ = make_datasets(hparams(tmp_path, [CROP + 9, 5 * CROP]))
    starts = [indices(train[0])[0].item() for _ in range(300)]
    assert set(starts) == set(range(10))
    for _ in range(20):
        crop = indices(train[1])
        assert torch.equal(crop, crop[0] + torch.arange(CROP))


@pytest.mark.parametrize("length", [1, 700, CROP - 1, CROP])
def test_shorter_utterances_are_wrapped(tmp_path, length):
    train, valid, _ = make_datasets(hparams(tmp_path, [length, CROP]))
    expected = torch.arange(CROP) % length
    assert torch.equal(indices(train[0]), expected)
    assert torch.equal(indices(valid[0]), expected)


def test_validation_takes_the_middle(tmp_path):
    _, valid, _ = make_datasets(hparams(tmp_path, [CROP + 100, CROP]))
    assert torch.equal(indices(valid[0]), 50 + torch.arange(CROP))


def test_fixed_crops(tmp_path):
    train, _, _ = make_datasets(
        hparams(tmp_path, [CROP + 100, CROP], random_chunk=False)
    )
    assert indices(train[0])[0] == 50


def test_labels(tmp_path):
    train, valid, encoder = make_datasets(hparams(tmp_path, [CROP] * 3))
    labels = {row["id"]: row["spk_id_encoded"].item() for row in train}
    assert sorted(labels.values()) == [0, 1, 2]
    assert {r["id"]: r["spk_id_encoded"].item() for r in valid} == labels
    assert encoder.decode_ndim(labels["1"]) == "s1"


@pytest.mark.parametrize("given", [1, 3, 5994])
def test_wrong_number_of_speakers(tmp_path, given):
    with pytest.raises(
        InputError, match=f"out_n_neurons is {given}, .* --out_n_neurons=2"
    ):
        make_datasets(hparams(tmp_path, [CROP] * 2, out_n_neurons=given))
