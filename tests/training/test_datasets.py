"""Crops and labels, from files and from shards."""

import csv

import numpy as np
import pytest
import soundfile
import torch
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


def test_crops(tmp_path):
    """Drawn in each epoch, or the middle; shorter utterances are repeated."""
    counter = EpochCounter(200)
    lengths = [CROP + 9, 700]
    values = hparams(tmp_path, lengths, epoch_counter=counter)
    train, valid, _ = make_datasets(values)
    starts = {indices(train[0])[0].item() for _ in counter}
    assert starts == set(range(10))
    fixed, _, _ = make_datasets({**values, "random_chunk": False})
    for dataset in (valid, fixed):
        assert torch.equal(indices(dataset[0]), 4 + torch.arange(CROP))
        assert torch.equal(indices(dataset[1]), torch.arange(CROP) % 700)


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


def test_shards_give_what_files_give(tmp_path):
    """The same crops of an epoch, by the same labels."""
    make_corpus(tmp_path, speakers=3, utterances=4)
    save, packed = tmp_path / "save", tmp_path / "shards"
    prepare_corpus(tmp_path / "corpus", save, ["s3", "s4"], [75, 25])
    pack(save, packed, shard_size=5)
    values = hparams(tmp_path, [CROP] * 3)
    values |= {
        "train_annotation": save / "train.csv",
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
