"""Shards against the files they are of, and against webdataset."""

import collections
import csv
import io
import json
import os
import signal
import tarfile
import time

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
from tests.dataio.test_files import start

RATE = 16000
CROP = 1600
TRAIN, DEV = 43, 5


def make_files(folder):
    """Synthetic: noise in files of three formats, and the CSV files."""
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
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def packed(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    pack(files, out, shard_size=8)
    return out


def content_of(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def dataset(folder, buffer=16, rank=0, processes=1, counter=None):
    made = ShardDataset(
        Shards(folder),
        Crop(CROP, RATE, 7, counter),
        lambda speaker: torch.tensor([int(speaker[1:])]),
        4,
        buffer,
        7,
        counter,
    )
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
    """Of the original bytes, by its own reader in SpeechBrain's loader."""
    urls = sorted(str(path) for path in (packed / "train").glob("*.tar"))
    assert len(urls) == 6
    reader = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    found = {}
    for sample in make_dataloader(reader):
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
        for workers in (1, 3):
            assert batches(made, workers) == found
    assert orders[0] != orders[1]
    dev = batches(dataset(packed / "dev", buffer=0))
    assert {n for batch in dev for n, _, _ in batch} == {
        *read_csv(files / "dev.csv")
    }


@pytest.mark.parametrize("done", [0, 1, 7, 10, 11])
@pytest.mark.parametrize("workers", [0, 2])
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


@pytest.mark.parametrize("processes", [2, 3, 5])
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


def test_order_is_random_within_the_buffer(packed):
    """With a buffer of everything, pairs are as often in either order."""
    made = dataset(packed / "train", buffer=1000)
    orders = [made._order(epoch).tolist() for epoch in range(400)]
    first = sum(order.index(0) < order.index(1) for order in orders)
    assert 150 < first < 250  # 5 standard deviations


def rewrite(path, change):
    """The tar file with each member changed."""
    with tarfile.open(path) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member, content in members:
            member.name, content = change(member.name, content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda tar: tar.unlink(), "train-000001.tar is missing or"),
        (
            lambda tar: os.truncate(tar, tar.stat().st_size - 512),
            "train-000001.tar is missing or",
        ),
        (
            lambda tar: rewrite(tar, lambda name, data: ("x" + name, data)),
            "train-000001.tar.*utterances are missing",
        ),
        (
            lambda tar: tar.write_bytes(b"x" * tar.stat().st_size),
            "train-000001.tar.* is not as it was packed .invalid header",
        ),
        (
            lambda tar: rewrite(
                tar,
                lambda name, data: (
                    name,
                    data if "json" in name else b"x" * len(data),
                ),
            ),
            r"train-000001.tar/0000000\d\d.\w+ can't be read as audio",
        ),
        (
            lambda tar: tar.with_name("manifest.json").unlink(),
            "manifest.json is missing: pack",
        ),
        (
            lambda tar: tar.with_name("manifest.json").write_text("{}"),
            "manifest.json is no manifest",
        ),
    ],
)
def test_bad_shards(files, packed, tmp_path, damage, message):
    """They are refused, and packed again once they are deleted."""
    pack(files, tmp_path, shard_size=8)
    tar = tmp_path / "train" / "train-000001.tar"
    damage(tar)
    with pytest.raises(InputError, match=message) as raised:
        list(dataset(tmp_path / "train"))
    assert "\n" not in str(raised.value)
    tar.unlink(missing_ok=True)
    pack(files, tmp_path, shard_size=8)
    assert content_of(tmp_path) == content_of(packed)


def test_packing_resumes_after_a_kill(files, packed, tmp_path):
    """Whole shards stay as they are, and the result is the same."""
    process = start(pack, files, tmp_path, 1)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("train/train-*.tar"))) < 5:
        assert time.monotonic() < deadline
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    whole = list(tmp_path.glob("train/train-*.tar"))
    done = {path: path.stat().st_mtime_ns for path in whole}
    pack(files, tmp_path, 1)
    assert all(p.stat().st_mtime_ns == t for p, t in done.items())
    assert len(Shards(tmp_path / "train")) == TRAIN
    found = batches(dataset(tmp_path / "train", buffer=0))
    expected = batches(dataset(packed / "train", buffer=0))
    assert found == expected


def test_a_file_that_is_gone(tmp_path):
    make_files(tmp_path)
    (tmp_path / "7.wav").unlink()
    with pytest.raises(InputError, match="can't read .*7.wav .*No such file"):
        pack(tmp_path, tmp_path / "out", 8)


def test_command(files, packed, tmp_path, monkeypatch, capsys):
    arguments = ["shards", str(files), str(tmp_path), "--shard_size=8"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert content_of(tmp_path) == content_of(packed)
    for changed, message in (
        (arguments[:3], "has shards of another table"),
        (["shards", str(files / "x"), str(tmp_path)], "train.csv is missing"),
        ([*arguments[:3], "--shard_size=0"], "shard_size is 0, expected"),
    ):
        monkeypatch.setattr("sys.argv", changed)
        with pytest.raises(SystemExit):
            main()
        assert message in capsys.readouterr().err
