"""Shards against webdataset, and their order; tests/training/test_datasets.py
compares their crops with those of the files.
"""

import json
import os
import types

import pytest
import webdataset
from speechbrain.dataio.sampler import DistributedSamplerWrapper

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus, read_csv
from speechbrain_hyperbolic.dataio.shards import (
    ShardSampler,
    main,
    open_member,
    pack,
    read_shard_list,
)
from speechbrain_hyperbolic.errors import InputError
from tests.corpora import make_corpus

SHARD = 8


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The CSV files of a corpus."""
    folder = make_corpus(tmp_path_factory.mktemp("files"), 6, 9)
    prepare_corpus(folder / "corpus", folder / "save", ["s6", "s7"], [80, 20])
    return folder / "save"


@pytest.fixture(scope="module")
def packed(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    pack(files, out, SHARD)
    return out


def content_of(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_webdataset_reads_them(files, packed):
    """Its own reader finds the original bytes."""
    urls = sorted(str(path) for path in (packed / "train").glob("*.tar"))
    reader = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    found = {}
    for sample in reader:
        entry = json.loads(sample["json"])
        found[entry.pop("id")] = sample["wav"], entry
    rows = read_csv(files / "train.csv")
    assert found.keys() == rows.keys() and len(urls) == -(-len(rows) // SHARD)
    listed = read_shard_list(packed / "train.csv", 16000)
    for name, row in rows.items():
        content, entry = found[name]
        with open(row["wav"], "rb") as file:
            assert file.read() == content
        assert entry == {key: row[key] for key in ("spk_id", "start", "stop")}
        place = (listed[name][key] for key in ("wav", "offset", "size"))
        assert open_member(*place).read() == content


def test_the_order(packed):
    """All once an epoch, from few shards at a time, by seed and epoch."""
    rows = read_shard_list(packed / "train.csv", 16000)
    shards = [os.path.dirname(row["wav"]) for row in rows.values()]
    counter = types.SimpleNamespace(current=1)
    sampler = ShardSampler(rows, 2 * SHARD, 7, counter)
    order = list(sampler)
    assert sorted(order) == list(range(len(rows))) and len(sampler) == len(rows)
    for start in range(0, len(rows), 2 * SHARD):
        part = order[start : start + 2 * SHARD]
        assert part != sorted(part)
        assert len({shards[number] for number in part}) <= 3
    assert order == list(sampler)
    assert order != list(ShardSampler(rows, 2 * SHARD, 8, counter))
    counter.current = 2
    assert order != list(sampler)
    two = {"num_replicas": 2, "shuffle": False}
    first, second = (
        list(DistributedSamplerWrapper(sampler, rank=rank, **two))
        for rank in range(2)
    )
    assert len(first) == len(second) and {*first, *second} == set(order)


def spoil(path, content):
    """Keeps the size."""
    path.write_bytes(content * path.stat().st_size)


def rename_column(path):
    path.write_text(path.read_text().replace(",offset,", ",place,"))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda tar: spoil(tar.parent.with_suffix(".csv"), b"["), "train.csv "),
        (lambda tar: os.unlink(tar.parent.with_suffix(".csv")), "is missing: "),
        (lambda tar: rename_column(tar.parent.with_suffix(".csv")), "does not"),
        (os.unlink, "000001.tar is missing or incomplete"),
        (lambda tar: os.truncate(tar, 512), "000001.tar is missing or incompl"),
        (lambda tar: spoil(tar, b"\0"), r"1.tar/0000000\d\d.wav can't"),
    ],
)
def test_bad_shards_are_refused(files, tmp_path, damage, message):
    pack(files, tmp_path, SHARD)
    damage(tmp_path / "train" / "train-000001.tar")
    with pytest.raises(InputError, match=message):
        for row in read_shard_list(tmp_path / "train.csv", 16000).values():
            file = open_member(row["wav"], row["offset"], row["size"])
            audio.load(row["wav"], file=file)


def test_command(files, packed, tmp_path, monkeypatch, capsys):
    arguments = ["shards", str(files), str(tmp_path), f"--shard_size={SHARD}"]
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
