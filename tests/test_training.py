"""Crops, labels, and what a training step is made of."""

import csv

import numpy as np
import pytest
import soundfile
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.nnet.losses import AngularMargin, LogSoftmaxWrapper
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.dataio.corpus import COLUMNS
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training import (
    SpeakerBrain,
    make_datasets,
    prepare,
)
from tests.dataio.test_corpus import add
from tests.test_systems import load

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
        "seed": 0,
        "epoch_counter": EpochCounter(1),
        "out_n_neurons": len(lengths),
        **changes,
    }


def indices(row):
    return (row["sig"] * 1e5).round().long()


def test_random_crops_are_everywhere(tmp_path):
    counter = EpochCounter(300)
    train, _, _ = make_datasets(
        hparams(tmp_path, [CROP + 9, 5 * CROP], epoch_counter=counter)
    )
    starts = [indices(train[0])[0].item() for _ in counter]
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


class Echo(torch.nn.Module):
    def forward(self, waveforms):
        return 0.5 * waveforms.roll(7, 1)


def test_losses_of_the_views_are_added(tmp_path):
    """Loss and gradient of a step, against the stock loss of each view."""
    hparams = load("ham_ecapa", tmp_path)
    hparams["wav_augment"] = Augmenter(
        parallel_augment=True,
        concat_original=True,
        min_augmentations=1,
        max_augmentations=1,
        augmentations=[Echo()],
    )
    brain = SpeakerBrain(hparams["modules"], hparams=hparams)
    brain.optimizer = torch.optim.SGD(brain.modules.parameters(), lr=0.1)
    brain.on_stage_start(sb.Stage.TRAIN)
    brain.modules.train()
    torch.manual_seed(0)
    batch = PaddedBatch(
        [
            {
                "id": str(number),
                "sig": torch.randn(8000),
                "spk_id_encoded": torch.tensor([number]),
            }
            for number in range(4)
        ]
    )

    torch.manual_seed(1)
    outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
    loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
    loss.backward()
    gradient = {
        name: parameter.grad.clone()
        for name, parameter in brain.modules.named_parameters()
    }

    brain.modules.zero_grad()
    torch.manual_seed(1)
    waveforms, lengths = hparams["wav_augment"](*batch.sig)
    assert torch.equal(waveforms[:4], batch.sig.data)
    features = brain.modules.compute_features(waveforms)
    features = brain.modules.mean_var_norm(features, lengths)
    embeddings = brain.modules.embedding_model(features, lengths)
    distances = brain.modules.classifier(embeddings)
    stock = LogSoftmaxWrapper(AngularMargin(margin=0.2, scale=30))
    labels = torch.arange(4)[:, None]
    clean = stock(distances[:4], labels)
    augmented = stock(distances[4:], labels)
    expected = clean + augmented
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    scale = max(g.abs().max().item() for g in gradient.values())
    for name, parameter in brain.modules.named_parameters():
        assert torch.allclose(
            gradient[name], parameter.grad, rtol=1e-3, atol=1e-5 * scale
        ), name


def test_enrolled_speakers_do_not_train(tmp_path):
    """Nor those that are only in the enrolment map, under another name."""
    data = tmp_path / "data"
    add(data, *(f"{s}/{i}.wav" for s in "abcd" for i in range(3)))
    (tmp_path / "trials.txt").write_text("m1 a/2 1\nm2 a/2 0\n")
    (tmp_path / "map").write_text("m1 a/0 a/1\nm2 b/0 b/1\n")
    prepare(
        {
            "data_folder": data,
            "save_folder": tmp_path / "save",
            "verification_file": tmp_path / "trials.txt",
            "enrolment_file": tmp_path / "map",
            "split_ratio": [90, 10],
            "sample_rate": RATE,
            "check_audio": "header",
            "seed": 0,
            "skip_prep": False,
        }
    )
    with open(tmp_path / "save" / "train.csv", newline="") as file:
        assert {row["spk_id"] for row in csv.DictReader(file)} == {"c", "d"}
