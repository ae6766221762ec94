"""Shards against the files they are of, and against webdataset."""

import collections
import csv
import errno
import io
import json
import os
import resource
import signal
import sys
import tarfile
import time

import numpy as np
import pytest
import soundfile
import torch
import webdataset
from speechbrain.dataio.dataloader import WDS_AVAILABLE, make_dataloader

from speechbrain_hyperbolic.dataio.corpus import COLUMNS
from speechbrain_hyperbolic.dataio.crops import Crop, SharedEpochCounter
from speechbrain_hyperbolic.dataio.shards import (
    ShardDataset,
    Shards,
    index_of,
    main,
    pack,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training import make_datasets
from tests.processes import start

RATE = 16000
CROP = 1600
TRAIN, DEV = 43, 5


def make_files(folder, count=TRAIN + DEV, seconds=(0.05, 0.4)):
    """Synthetic: noise in files of four formats, and the CSV files."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        suffix = ("wav", "flac", "ogg", "wav")[number % 4]
        path = folder / f"{number}.{suffix}"
        samples = int(RATE * generator.uniform(*seconds))
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


def hparams(files, packed=None, **changes):
    return {
        "data_folder": str(files),
        "train_annotation": str(files / "train.csv"),
        "valid_annotation": str(files / "dev.csv"),
        "shards_folder": packed and str(packed),
        "shuffle_buffer": 16,
        "dataloader_options": {"batch_size": 4},
        "sample_rate": RATE,
        "sentence_len": CROP / RATE,
        "random_chunk": True,
        "seed": 7,
        "epoch_counter": SharedEpochCounter(9),
        "out_n_neurons": 4,
        **changes,
    }


def content_of(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def batches(dataset, workers=0):
    """As lists of (id, crop, label)."""
    loader = make_dataloader(dataset, batch_size=None, num_workers=workers)
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
    assert WDS_AVAILABLE
    urls = sorted(str(path) for path in (packed / "train").glob("*.tar"))
    assert len(urls) == 6
    dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    found = {}
    for sample in make_dataloader(dataset):
        says = json.loads(sample["json"])
        (audio,) = (v for k, v in sample.items() if k in ("wav", "flac", "ogg"))
        found[says.pop("id")] = audio, says
    with open(files / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found) == TRAIN
    for row in rows:
        audio, says = found[row["ID"]]
        with open(row["wav"], "rb") as file:
            assert file.read() == audio
        assert says == {
            "spk_id": row["spk_id"],
            "start": int(row["start"]),
            "stop": int(row["stop"]),
        }


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_crops_are_those_of_the_files(files, packed, workers):
    """Each utterance once an epoch, in an order that workers don't change."""
    values = hparams(files)
    single, single_dev, _ = make_datasets(values)
    own = hparams(files, packed)
    train, dev, encoder = make_datasets(own)
    assert len(encoder) == 4
    orders = []
    for epoch in range(2):
        next(values["epoch_counter"]), next(own["epoch_counter"])
        found = batches(train, workers)
        assert [len(batch) for batch in found] == [4] * 10 + [3]
        assert len(train) == len(found)
        expected = {row["id"]: row for row in single}
        flat = [row for batch in found for row in batch]
        assert {row[0] for row in flat} == expected.keys()
        assert len(flat) == TRAIN
        for name, crop, label in flat:
            assert torch.equal(torch.tensor(crop), expected[name]["sig"])
            assert label == expected[name]["spk_id_encoded"].item()
        orders.append([row[0] for row in flat])
        assert orders[-1] == [row[0] for b in batches(train) for row in b]
        assert epoch == 0 or orders[0] != orders[1]
    middle = {name: crop for b in batches(dev) for name, crop, _ in b}
    for row in single_dev:
        assert middle[row["id"]] == row["sig"].tolist()


class CountingShards(Shards):
    """Counts what is read."""

    reads = 0

    def read(self, *args):
        CountingShards.reads += 1
        return super().read(*args)


def dataset(folder, buffer=16, rank=0, processes=1, kind=Shards):
    made = ShardDataset(
        kind(folder),
        Crop(CROP, RATE),
        lambda speaker: torch.tensor([int(speaker[1:])]),
        4,
        buffer,
        counter=SharedEpochCounter(9),
    )
    made.rank, made.processes = rank, processes
    return made


@pytest.mark.parametrize("done", [0, 1, 7, 10, 11])
@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_within_an_epoch(packed, done, workers):
    """Without reading what was; the next epoch is whole."""
    whole = dataset(packed / "train")
    again = dataset(packed / "train", kind=CountingShards)
    for made in (whole, again):
        next(made.counter), next(made.counter)
    again.go_to(2, done)
    CountingShards.reads = 0
    assert batches(again, workers) == batches(whole)[done:]
    assert workers or CountingShards.reads == TRAIN - min(4 * done, TRAIN)
    next(whole.counter), next(again.counter)
    assert batches(again, workers) == batches(whole)


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_processes_share_an_epoch(packed, processes):
    """As many batches each, all utterances, hardly a shard by two."""
    counts, shards = collections.Counter(), []
    for rank in range(processes):
        made = dataset(packed / "train", rank=rank, processes=processes)
        found = batches(made)
        assert len(found) == len(made)
        rows = [row[0] for batch in found for row in batch]
        assert len(rows) == -(-TRAIN // processes)
        counts.update(rows)
        shards.append(
            {s for n in range(len(made)) for s, _ in made.places(0, n)}
        )
    assert len(counts) == TRAIN
    # Only where they begin anew, to be as many.
    assert counts.total() - TRAIN == -TRAIN % processes
    blocks = -(-TRAIN // 16)  # an end of a run parts a buffer, at most
    shared = sum(map(len, shards)) - 6
    assert shared <= (processes - 1) * blocks + 1


def test_order_is_random_within_the_buffer(packed):
    """With a buffer of everything, pairs are as often in either order."""
    made = dataset(packed / "train", buffer=1000)
    first = 0
    for epoch in range(400):
        places = [p for n in range(len(made)) for p in made.places(epoch, n)]
        first += places.index((0, 0)) < places.index((0, 1))
    assert 150 < first < 250  # 5 standard deviations


def test_memory_is_bounded(tmp_path):
    """The audio that was read is not kept: 60 MB in pieces of 0.3 MB."""
    samples = 10 * RATE
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.1), RATE)
    for split, count in (("train", 190), ("dev", 1)):
        with open(tmp_path / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows(
                [COLUMNS]
                + [
                    [n, 10, tmp_path / "a.wav", 0, samples, "s0"]
                    for n in range(count)
                ]
            )
    pack(tmp_path, tmp_path / "packed", shard_size=20)
    size = sum(p.stat().st_size for p in tmp_path.glob("packed/train/*.tar"))
    assert size > 60e6
    made = dataset(tmp_path / "packed" / "train", buffer=40)
    resident = []
    for _ in made:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        resident.append(pages * resource.getpagesize())
    assert max(resident) - max(resident[:5]) < 8e6
    assert len(made.shards.indices) <= 4 and len(made.shards.files) <= 64


def rewrite(path, change):
    """A tar file anew, each member changed."""
    with tarfile.open(path) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member, content in members:
            change(member)
            archive.addfile(member, io.BytesIO(content))


def escape(member):
    member.name = "../" + member.name[3:]


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def spoil_both(tar):
    """A cut shard, an index that is none, and nothing that says so."""
    os.truncate(tar, tar.stat().st_size - 10240)
    other = tar.with_name("train-000002.tar")
    edit_json(index_of(other), lambda rows: rows[3].update(at=10**30))
    tar.with_name("manifest.json").unlink()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda tar: tar.unlink(), "train-000001.tar is missing"),
        (
            lambda tar: os.truncate(tar, tar.stat().st_size - 512),
            "train-000001.tar has .* bytes, expected .*truncated",
        ),
        (lambda tar: rewrite(tar, escape), r"has \.\./.*expected 0000"),
        (
            lambda tar: tar.write_bytes(b"x" * tar.stat().st_size),
            "000001.tar has no file at",
        ),
        (lambda tar: index_of(tar).unlink(), "index.json is missing"),
        (lambda tar: index_of(tar).write_text("["), "index.json can't be read"),
        (
            lambda tar: edit_json(index_of(tar), list.pop),
            "has 7 utterances, expected 8",
        ),
        (spoil_both, "manifest.json is missing: pack first"),
        (
            lambda tar: edit_json(
                index_of(tar), lambda rows: rows[3].update(spk_id="nobody")
            ),
            "of nobody, no speaker of manifest.json",
        ),
        (
            lambda tar: edit_json(
                tar.with_name("manifest.json"),
                lambda m: m["shardlist"][0].update(url="../train-000000.tar"),
            ),
            "names ../train-000000.tar, which is not in its folder",
        ),
        (
            lambda tar: tar.with_name("manifest.json").unlink(),
            "manifest.json is missing: pack first",
        ),
        (
            lambda tar: tar.with_name("manifest.json").write_text("{}"),
            "manifest.json is no manifest",
        ),
    ],
)
def test_bad_shards(files, packed, tmp_path, spoil, message):
    """They are refused, and packed again where that is asked for."""
    pack(files, tmp_path, shard_size=8)
    spoil(tmp_path / "train" / "train-000001.tar")
    with pytest.raises(InputError, match=message) as raised:
        list(dataset(tmp_path / "train"))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.parent.glob("*.wav"))
    pack(files, tmp_path, shard_size=8)
    assert content_of(tmp_path) == content_of(packed)


def test_audio_that_is_none(files, tmp_path):
    """Bytes that don't decode are named by shard and member."""
    pack(files, tmp_path, shard_size=8)
    tar = tmp_path / "train" / "train-000000.tar"
    (entry, *_) = json.loads(index_of(tar).read_text())
    with open(tar, "r+b") as file:
        file.seek(entry["at"] + 512)
        file.write(b"x" * entry["size"])
    with pytest.raises(InputError, match=f"tar/{entry['name']} can't be read"):
        list(dataset(tmp_path / "train"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sample_rate": 8000}, "packed at sample_rate 16000, and now it is 8"),
        ({"out_n_neurons": 9}, "train has 4 speakers: pass --out_n_neurons=4"),
    ],
)
def test_of_another_run(files, packed, change, message):
    with pytest.raises(InputError, match=message):
        make_datasets(hparams(files, packed, **change))


def test_packing_goes_on_after_a_kill(files, packed, tmp_path):
    """Whole shards stay as they are, and all is as if not killed."""
    for shards in (1, 3, 5):
        process = start(pack, files, tmp_path, 8)
        deadline = time.monotonic() + 30
        while len(list(tmp_path.glob("train/*.index.json"))) < shards:
            assert time.monotonic() < deadline
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    whole = list((tmp_path / "train").glob("train-00000[0-4].*"))
    done = {path: path.stat().st_mtime_ns for path in whole}
    assert len(done) == 10
    pack(files, tmp_path, 8)
    assert all(p.stat().st_mtime_ns == time for p, time in done.items())
    assert content_of(tmp_path) == content_of(packed)


def pack_small(files, out, result):
    """With writes beyond some kB failing, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    try:
        pack(files, out, 8)
    except InputError as error:
        os.write(result, str(error).encode())


def test_a_write_that_fails(files, packed, tmp_path):
    read, write = os.pipe()
    start(pack_small, files, tmp_path, write).join()
    message = os.read(read, 1000).decode()
    os.close(read), os.close(write)
    assert "can't write" in message and os.strerror(errno.EFBIG) in message
    assert "the same command goes on" in message
    assert not list(tmp_path.glob("train/*.tar"))
    pack(files, tmp_path, 8)
    assert content_of(tmp_path) == content_of(packed)


def test_a_file_that_is_gone(tmp_path):
    make_files(tmp_path)
    (tmp_path / "7.wav").unlink()
    with pytest.raises(InputError, match="can't read .*7.wav .*No such file"):
        pack(tmp_path, tmp_path / "out", 8)


def test_command(files, packed, tmp_path, monkeypatch, capsys):
    arguments = ["shards", str(files), str(tmp_path), "--shard_size=8"]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert content_of(tmp_path) == content_of(packed)
    for changed, message in (
        (["shards", str(files), str(tmp_path)], "has shards of another table"),
        (["shards", str(files / "x"), str(tmp_path)], "train.csv is missing"),
        ([*arguments[:3], "--shard_size=0"], "shard_size is 0, expected"),
    ):
        monkeypatch.setattr(sys, "argv", changed)
        with pytest.raises(SystemExit):
            main()
        assert message in capsys.readouterr().err
