"""Crops and labels, from files and from shards."""

import csv
import random

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.dataio.crops import SharedEpochCounter
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus
from speechbrain_hyperbolic.dataio.shards import pack
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training.checkpoints import (
    AveragedPretrainer,
    RecentCheckpointer,
)
from speechbrain_hyperbolic.training.datasets import (
    make_datasets,
    prepare,
    save_labels,
)
from tests.corpora import make_corpus

RATE, CROP = 16000, 1600
COLUMNS = ["ID", "duration", "wav", "start", "stop", "spk_id"]


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
    crop = indices(train[1])
    assert torch.equal(crop, crop[0] + torch.arange(CROP))


@pytest.mark.parametrize("length", [1, 700, CROP - 1, CROP])
def test_shorter_utterances_are_repeated(tmp_path, length):
    train, valid, _ = make_datasets(hparams(tmp_path, [length, CROP]))
    expected = torch.arange(CROP) % length
    assert torch.equal(indices(train[0]), expected)
    assert torch.equal(indices(valid[0]), expected)


def test_validation_takes_the_middle(tmp_path):
    lengths = [CROP + 100, CROP]
    _, valid, _ = make_datasets(hparams(tmp_path, lengths))
    train, _, _ = make_datasets(hparams(tmp_path, lengths, random_chunk=False))
    for dataset in (train, valid):
        assert torch.equal(indices(dataset[0]), 50 + torch.arange(CROP))


def test_labels(tmp_path):
    train, valid, encoder = make_datasets(hparams(tmp_path, [CROP] * 3))
    labels = {row["id"]: row["spk_id_encoded"].item() for row in train}
    assert sorted(labels.values()) == [0, 1, 2]
    assert {r["id"]: r["spk_id_encoded"].item() for r in valid} == labels
    assert encoder.decode_ndim(labels["1"]) == "s1"


@pytest.mark.parametrize("given", [1, 5994])
def test_wrong_number_of_speakers(tmp_path, given):
    with pytest.raises(
        InputError, match=f"out_n_neurons is {given}, .* --out_n_neurons=2"
    ):
        make_datasets(hparams(tmp_path, [CROP] * 2, out_n_neurons=given))


def test_validation_on_a_strange_speaker(tmp_path):
    values = hparams(tmp_path, [CROP] * 2)
    text = (tmp_path / "dev.csv").read_text()
    (tmp_path / "dev.csv").write_text(text.replace(",s1", ",s9"))
    with pytest.raises(InputError, match="dev.csv has the speaker s9, which"):
        make_datasets(values)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_crops_of_an_epoch(tmp_path, start):
    """The same from persistent workers, however started, and in any order;
    other ones in each epoch.
    """
    counter = SharedEpochCounter(3)
    values = hparams(tmp_path, [9 * CROP] * 6, epoch_counter=counter)
    train, _, _ = make_datasets(values)
    loader = make_dataloader(
        train,
        batch_size=2,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=start,
    )
    found = []
    for _ in counter:
        order = random.sample(range(6), 6)
        alone = {row["id"]: row["sig"] for row in map(train.__getitem__, order)}
        for batch in loader:
            for name, crop in zip(batch.id, batch.sig.data, strict=True):
                assert torch.equal(crop, alone[name])
        found.append(torch.stack([alone[name] for name in sorted(alone)]))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (found[a][:, 0] != found[b][:, 0]).sum() >= 5


def test_shards_give_what_files_give(tmp_path):
    """The same crops of an epoch, by the same labels."""
    make_corpus(tmp_path, speakers=3, utterances=4)
    save, packed = tmp_path / "save", tmp_path / "shards"
    prepare_corpus(tmp_path / "corpus", save, ["s3", "s4"], [75, 25])
    pack(save, packed, shard_size=5)
    values = hparams(tmp_path, [CROP] * 3)
    values |= {f"{n}_annotation": save / f"{n[:5]}.csv" for n in ("train",)}
    values |= {
        "valid_annotation": save / "dev.csv",
        "dataloader_options": {"batch_size": 4},
        "epoch_counter": SharedEpochCounter(3),
    }
    next(values["epoch_counter"])
    from_files = make_datasets(values)
    values["shards_folder"] = packed
    from_shards = make_datasets(values)
    for files, shards in zip(from_files[:2], from_shards[:2], strict=True):
        expected = {row["id"]: row for row in files}
        count = 0
        for batch in shards:
            for row, name in enumerate(batch.id):
                label = expected[name]["spk_id_encoded"]
                assert torch.equal(batch.spk_id_encoded.data[row], label)
                assert torch.equal(batch.sig.data[row], expected[name]["sig"])
                count += 1
        assert count == len(expected)
    values["sample_rate"] = 8000
    with pytest.raises(InputError, match="has the sample_rate 16000, expected"):
        make_datasets(values)


def test_enrolled_speakers_do_not_train(tmp_path):
    """Nor those that are only in the enrollment map, under another name; the
    stock hparams files lack some of the keys.
    """
    for speaker in "abcd":
        for number in range(3):
            path = tmp_path / "data" / speaker / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.full(CROP, 0.1), RATE)
    (tmp_path / "trials.txt").write_text("m1 a/2 1\nm2 a/2 0\n")
    (tmp_path / "map").write_text("m1 a/0 a/1\nm2 b/0 b/1\n")
    values = {
        "data_folder": tmp_path / "data",
        "save_folder": tmp_path / "save",
        "verification_file": tmp_path / "trials.txt",
        "split_ratio": [90, 10],
        "sample_rate": RATE,
        "seed": 0,
        "skip_prep": False,
    }
    prepare({**values, "enrollment_file": tmp_path / "map"})
    with open(tmp_path / "save" / "train.csv", newline="") as file:
        assert {row["spk_id"] for row in csv.DictReader(file)} == {"c", "d"}
    (tmp_path / "trials.txt").write_text("1 a/0 a/1\n0 a/0 b/1\n")
    prepare({**values, "save_folder": tmp_path / "stock"})
    prepare({"shards_folder": "shards"})


# Labels of a run


def save_labels_of(folder, speakers, pretrainer=None):
    values = hparams(folder, [CROP] * speakers)
    _, _, encoder = make_datasets(values)
    module = torch.nn.Linear(1, 1)
    values["checkpointer"] = RecentCheckpointer(
        folder, recoverables={"classifier": module}, pretrainer=pretrainer
    )
    save_labels(encoder, values)
    return values["checkpointer"]


def test_a_run_is_not_resumed_on_other_speakers(tmp_path):
    save_labels_of(tmp_path, 2).save_checkpoint()
    labels = (tmp_path / "label_encoder.txt").read_text()
    save_labels_of(tmp_path, 2)
    with pytest.raises(InputError, match="a run on other speakers: pass an"):
        save_labels_of(tmp_path, 3)
    assert (tmp_path / "label_encoder.txt").read_text() == labels


def test_a_classifier_of_other_speakers_is_no_start(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    save_labels_of(tmp_path / "a", 2).save_checkpoint()
    loadables = {"classifier": torch.nn.Linear(1, 1), "encoder": None}
    start = AveragedPretrainer(tmp_path / "a", loadables=loadables)
    save_labels_of(tmp_path / "b", 2, start)
    with pytest.raises(InputError, match="so its centers do not fit"):
        save_labels_of(tmp_path / "b", 3, start)
    start = AveragedPretrainer(
        tmp_path / "a", loadables=loadables, names=["encoder"]
    )
    save_labels_of(tmp_path / "b", 3, start)
