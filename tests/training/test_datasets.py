"""Crops and labels, from files and from shards."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.dataio.crops import Crop, SharedEpochCounter
from speechbrain_hyperbolic.dataio.preparation import (
    Utterance,
    prepare_corpus,
    read_csv,
    write_csv,
)
from speechbrain_hyperbolic.dataio.shards import pack
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training.checkpoints import RecentCheckpointer
from speechbrain_hyperbolic.training.datasets import (
    make_datasets,
    prepare,
    save_labels,
)
from tests.corpora import make_corpus

RATE, CROP = 16000, 1600


def hparams(folder, lengths, **changes):
    """CSV files of utterances whose samples are their own index / 1e5."""
    utterances = []
    for number, length in enumerate(lengths):
        path = folder / f"{number}.wav"
        ramp = np.arange(length, dtype=np.float32) / 1e5
        soundfile.write(path, ramp, RATE, subtype="FLOAT")
        utterances.append(
            Utterance(number, length / RATE, path, 0, length, f"s{number}")
        )
    for split in ("train", "dev"):
        write_csv(utterances, folder / f"{split}.csv")
    return {
        "data_folder": "",
        "save_folder": folder,
        "train_annotation": folder / "train.csv",
        "valid_annotation": folder / "dev.csv",
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


def test_crops_and_labels(tmp_path):
    """Drawn in each epoch, or the middle; shorter utterances are repeated."""
    counter = EpochCounter(200)
    lengths = [CROP + 9, 700]
    values = hparams(tmp_path, lengths, epoch_counter=counter)
    train, valid, encoder = make_datasets(values)
    for dataset in (train, valid):
        assert [row["spk_id_encoded"].item() for row in dataset] == [0, 1]
    assert encoder.decode_ndim(1) == "s1"
    starts = {indices(train[0])[0].item() for _ in counter}
    assert starts == set(range(10))
    fixed, _, _ = make_datasets({**values, "random_chunk": False})
    for dataset in (valid, fixed):
        assert torch.equal(indices(dataset[0]), 4 + torch.arange(CROP))
        assert torch.equal(indices(dataset[1]), torch.arange(CROP) % 700)


def test_a_crop_is_a_function_of_seed_epoch_and_name(tmp_path):
    hparams(tmp_path, [16000])
    counter = SharedEpochCounter(1000)

    def place(seed, name):
        crop = Crop(CROP, RATE, seed, counter)
        crop = crop(name, tmp_path / "0.wav", 100, 15900)
        return indices({"sig": crop})[0].item()

    found = [place(1, "a/1") for _ in counter]
    assert place(1, "a/1") == found[-1]
    assert len({found[-1], place(2, "a/1"), place(1, "a/2")}) == 3
    # All places of the part of the file are equally likely.
    assert min(found) >= 100 and max(found) <= 15900 - CROP
    assert min(found) < 200 and max(found) > 15800 - CROP
    assert abs(sum(found) / len(found) - 7200) < 600


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
        "epoch_counter": SharedEpochCounter(3),
    }
    next(values["epoch_counter"])
    from_files = make_datasets(values)
    values["shards_folder"] = packed
    from_shards = make_datasets(values)
    for files, shards in zip(from_files[:2], from_shards[:2], strict=True):
        expected = {row["id"]: row for row in files}
        for row in shards:
            item = expected.pop(row["id"])
            assert torch.equal(row["spk_id_encoded"], item["spk_id_encoded"])
            assert torch.equal(row["sig"], item["sig"])
        assert not expected
    values["sample_rate"] = 8000
    with pytest.raises(InputError, match="has the sample_rate 16000, expected"):
        make_datasets(values)


def test_enrolled_speakers_do_not_train(tmp_path, caplog):
    """Nor those that are only in the enrollment map, under another name."""
    make_corpus(tmp_path, speakers=2, utterances=3)
    (tmp_path / "trials.txt").write_text("m1 s0/2 1\nm2 s0/2 0\n")
    (tmp_path / "map").write_text("m1 s0/0 s0/1\nm2 s1/0 s1/1\n")
    values = hparams(tmp_path, [CROP], skip_prep=False, split_ratio=[90, 10])
    values["data_folder"] = tmp_path / "corpus"
    values["save_folder"] = tmp_path / "save"
    values["verification_file"] = tmp_path / "trials.txt"
    prepare({**values, "enrollment_file": tmp_path / "map"})
    rows = read_csv(tmp_path / "save" / "train.csv").values()
    assert {row["spk_id"] for row in rows} == {"s2", "s3"}
    prepare({"shards_folder": "shards"})  # nothing to do
    values |= {"skip_prep": True, "train_annotation": tmp_path / "own.csv"}
    (tmp_path / "own.csv").write_text("ID,spk_id\na,s0\nb,s2\n")
    with caplog.at_level("WARNING"):
        prepare(values)
    assert "1 speakers of" in caplog.text and "such as s0" in caplog.text


def test_a_balanced_sampler(tmp_path):
    """Every speaker is drawn equally often, in another order each epoch."""
    values = hparams(tmp_path, [CROP] * 3, sampler="balanced")
    rows = [
        Utterance(f"s{s}/{n}", 0.1, tmp_path / "0.wav", 0, CROP, f"s{s}")
        for s, count in enumerate((2, 20, 20))
        for n in range(count)
    ]
    write_csv(rows, tmp_path / "train.csv")
    epochs = []
    for epoch in [*range(30), 29]:
        dataset, _, _ = make_datasets(values)
        dataset.sampler.set_epoch(epoch)
        epochs.append([dataset.data_ids[row] for row in dataset.sampler])
    assert epochs[0] != epochs[1] and epochs[-2] == epochs[-1]
    counts = Counter(name[:2] for epoch in epochs for name in epoch)
    assert all(abs(3 * n / counts.total() - 1) < 0.2 for n in counts.values())
    with pytest.raises(InputError, match="sampler is fair, expected balanced"):
        make_datasets({**values, "sampler": "fair"})


def save_labels_of(folder, speakers):
    folder.mkdir(exist_ok=True)
    values = hparams(folder, [CROP] * speakers)
    values["checkpointer"] = RecentCheckpointer(folder)
    save_labels(make_datasets(values)[2], values)
    return values["checkpointer"]


def test_other_speakers_are_refused(tmp_path):
    """To resume a run."""
    run = tmp_path / "run"
    save_labels_of(run, 2).save_checkpoint()
    labels = (run / "label_encoder.txt").read_text()
    save_labels_of(run, 2)
    with pytest.raises(InputError, match="a run on other speakers: pass an"):
        save_labels_of(run, 3)
    assert (run / "label_encoder.txt").read_text() == labels


def test_validation_on_a_strange_speaker(tmp_path):
    values = hparams(tmp_path, [CROP] * 2)
    text = (tmp_path / "dev.csv").read_text()
    (tmp_path / "dev.csv").write_text(text.replace(",s1", ",s9"))
    with pytest.raises(InputError, match="dev.csv has the speaker s9, which"):
        make_datasets(values)
