"""Shards against the packed files, and against webdataset."""

import collections
import csv
import json
import os
import tarfile

import numpy as np
import pytest
import soundfile
import torch
import webdataset
from speechbrain.dataio.dataloader import make_dataloader

from speechbrain_hyperbolic.dataio.crops import Crop, SharedEpochCounter
from speechbrain_hyperbolic.dataio.preparation import COLUMNS, read_csv
from speechbrain_hyperbolic.dataio.shards import (
    ShardDataset,
    Shards,
    main,
    pack,
)
from speechbrain_hyperbolic.errors import InputError

RATE = 16000
CROP = 1600
TRAIN, DEV = 43, 5


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Synthetic: noise in files of three formats, and the CSV files."""
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    rows = []
    for number in range(TRAIN + DEV):
        suffix = ("wav", "flac", "ogg", "wav")[number % 4]
        path = folder / f"{number}.{suffix}"
        samples = int(RATE * generator.uniform(0.05, 0.4))
        soundfile.write(path, generator.uniform(-0.5, 0.5, samples), RATE)
        name = f"s{number % 4}/a.b/{number}"
        row = [name, samples / RATE, path, 0, samples, f"s{number % 4}"]
        if number % 5 == 0:  # a part of its file
            row[1:5] = (samples - 200) / RATE, path, 100, samples - 100
        rows.append(row)
    for split, own in (("train", rows[:-DEV]), ("dev", rows[-DEV:])):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *own])
    return folder


@pytest.fixture(scope="module")
def packed(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    pack(files, out, shard_size=8)
    return out


def content_of(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def encode(speaker):
    return torch.tensor([int(speaker[1:])])


def dataset(folder, buffer=16, rank=0, processes=1, counter=None):
    crop = Crop(CROP, RATE, 7, counter)
    made = ShardDataset(Shards(folder), crop, encode, 4, buffer, 7, counter)
    made.rank, made.processes = rank, processes
    return made


def batches(made, workers=0):
    """As lists of (id, crop, label)."""
    loader = make_dataloader(made, batch_size=None, num_workers=workers)
    return [
        [
            (name, crop.tolist(), label.item())
            for name, crop, label in zip(
                batch.id, batch.sig.data, batch.spk_id_encoded.data, strict=True
            )
        ]
        for batch in loader
    ]


def test_webdataset_reads_them(files, packed):
    """Its own reader finds the original bytes."""
    urls = sorted(str(path) for path in (packed / "train").glob("*.tar"))
    assert len(urls) == 6
    reader = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    found = {}
    for sample in reader:
        entry = json.loads(sample["json"])
        (audio,) = (v for k, v in sample.items() if k in ("wav", "flac", "ogg"))
        found[entry.pop("id")] = audio, entry
    rows = read_csv(files / "train.csv")
    assert found.keys() == rows.keys() and len(rows) == TRAIN
    for name, row in rows.items():
        audio, entry = found[name]
        with open(row["wav"], "rb") as file:
            assert file.read() == audio
        assert entry == {key: row[key] for key in ("spk_id", "start", "stop")}


def test_crops_are_those_of_the_files(files, packed):
    """Each utterance once an epoch, in an order that workers don't change."""
    counter = SharedEpochCounter(2)
    made = dataset(packed / "train", counter=counter)
    rows = read_csv(files / "train.csv")
    crop = Crop(CROP, RATE, 7, counter)
    orders = []
    for _ in counter:
        found = batches(made)
        assert [len(batch) for batch in found] == [4] * 10 + [3]
        assert len(made) == len(found)
        flat = [row for batch in found for row in batch]
        assert sorted(name for name, _, _ in flat) == sorted(rows)
        for name, samples, label in flat:
            row = rows[name]
            expected = crop(name, row["wav"], row["start"], row["stop"])
            assert torch.equal(torch.tensor(samples), expected)
            assert f"s{label}" == row["spk_id"]
        orders.append([row[0] for row in flat])
        assert batches(made, workers=2) == found
    assert orders[0] != orders[1]
    found = [row[0] for b in batches(dataset(packed / "dev", 0)) for row in b]
    assert sorted(found) == sorted(read_csv(files / "dev.csv"))


@pytest.mark.parametrize("done, workers", [(0, 0), (1, 0), (7, 2), (11, 0)])
def test_resumes_within_an_epoch(packed, done, workers):
    """With the same remaining batches; the next epoch is whole."""
    counter = SharedEpochCounter(9)
    whole = dataset(packed / "train", counter=counter)
    again = dataset(packed / "train", counter=counter)
    next(counter), next(counter)
    again.go_to(2, done)
    assert batches(again, workers) == batches(whole)[done:]
    next(counter)
    assert batches(again, workers) == batches(whole)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_an_epoch(packed, processes):
    """All utterances, and as many batches each."""
    counts = collections.Counter()
    for rank in range(processes):
        made = dataset(packed / "train", rank=rank, processes=processes)
        found = batches(made)
        assert len(found) == len(made)
        rows = [row[0] for batch in found for row in batch]
        assert len(rows) == -(-TRAIN // processes)
        counts.update(rows)
    assert len(counts) == TRAIN
    # Only where the last one starts over, to have as many.
    assert counts.total() - TRAIN == -TRAIN % processes


def spoil_audio(path):
    """Overwrites the audio in a tar file."""
    with tarfile.open(path) as archive, open(path, "r+b") as file:
        for member in archive:
            if not member.name.endswith("json"):
                file.seek(member.offset_data)
                file.write(b"x" * member.size)


def spoil(path, byte):
    """Keeps the size."""
    path.write_bytes(byte * path.stat().st_size)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda tar: spoil(tar.with_name("manifest.json"), b"["), "json is da"),
        (os.unlink, "000001.tar is missing or incomplete"),
        (lambda tar: os.truncate(tar, 512), "000001.tar is missing or incompl"),
        (spoil_audio, r"000001.tar/0000000\d\d.\w+ can't be read as audio"),
        (lambda tar: spoil(tar, b"\0"), "000001.tar is damaged"),
        (lambda tar: spoil(tar, b"x"), "000001.tar is damaged"),
    ],
)
def test_bad_shards_are_refused(files, tmp_path, damage, message):
    pack(files, tmp_path, shard_size=8)
    damage(tmp_path / "train" / "train-000001.tar")
    with pytest.raises(InputError, match=message):
        list(dataset(tmp_path / "train"))


def test_command(files, packed, tmp_path, monkeypatch, capsys):
    arguments = ["shards", str(files), str(tmp_path), "--shard_size=8"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert content_of(tmp_path) == content_of(packed)
    for changed, message in (
        (arguments[:3], "has shards already"),
        (["shards", "none", "none"], "train.csv is missing"),
        ([*arguments[:3], "--shard_size=0"], "shard_size is 0, expected"),
    ):
        monkeypatch.setattr("sys.argv", changed)
        with pytest.raises(SystemExit):
            main()
        assert message in capsys.readouterr().err
