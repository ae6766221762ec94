"""What is kept comes back, and nothing else does."""

import os
import pickle

import numpy as np
import pytest

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.scoring import cache as cache_module
from speechbrain_hyperbolic.scoring.cache import Cache, identity

MODEL, OTHER = "a" * 64, "b" * 64


def some(n, seed=0):
    generator = np.random.default_rng(seed)
    keys = [generator.bytes(16) for _ in range(n)]
    views = generator.standard_normal((n, 3, 4)).astype(np.float32)
    return keys, views, generator.uniform(1, 9, n)


def content(cache):
    """Key -> (views, duration)."""
    return {
        key: (views.tolist(), duration)
        for shard in cache.shards()
        for key, views, duration in zip(*shard, strict=True)
    }


def as_content(keys, views, durations):
    return dict(
        zip(keys, zip(views.tolist(), durations, strict=True), strict=True)
    )


def test_round_trip(tmp_path):
    first, second = some(5), some(2, seed=1)
    with Cache(tmp_path / "new" / "folder", MODEL, "whole") as cache:
        cache.add(*first)
        cache.add(*second)
    again = Cache(tmp_path / "new" / "folder", MODEL, "whole")
    assert len(list(again.shards())) == 1
    assert content(again) == as_content(*first) | as_content(*second)


def test_an_exception_loses_nothing(tmp_path):
    for n, error in enumerate((KeyboardInterrupt, InputError)):
        with pytest.raises(error):
            with Cache(tmp_path, MODEL, "whole") as cache:
                cache.add(*some(5, seed=n))
                raise error
        assert len(content(cache)) == 5 * (n + 1)


def test_shards_are_written_in_time(tmp_path, monkeypatch):
    cache = Cache(tmp_path, MODEL, "whole")
    cache.add(*some(1))
    assert content(cache) == {}
    monkeypatch.setattr(cache_module, "SECONDS_PER_SHARD", 0)
    cache.add(*some(1, seed=1))
    assert len(content(cache)) == 2


def test_two_writers(tmp_path):
    one, two = (Cache(tmp_path, MODEL, "whole") for _ in range(2))
    for seed in range(20):
        for offset, cache in ((0, one), (100, two)):
            cache.add(*some(2, seed + offset))
            cache.flush()
    both = content(Cache(tmp_path, MODEL, "whole"))
    assert len(both) == 80
    for seed in (*range(20), *range(100, 120)):
        assert as_content(*some(2, seed)).items() <= both.items()


def test_other_settings_and_other_models(tmp_path, caplog):
    caplog.set_level("INFO")
    with Cache(tmp_path, MODEL, "whole") as cache:
        cache.add(*some(3))
    assert content(Cache(tmp_path, MODEL, "crops")) == {}
    assert "another model" not in caplog.text
    assert content(Cache(tmp_path, OTHER, "whole")) == {}
    said = f"cache_folder {tmp_path} holds embeddings of another model too"
    assert caplog.text.count(said) == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cache_folder .*file can't be writt"):
        Cache(tmp_path / "file", MODEL, "whole")


@pytest.mark.parametrize("harm", ["truncated", "empty", "flipped", "folder"])
def test_damaged_shards_are_passed_over(tmp_path, caplog, harm):
    cache = Cache(tmp_path, MODEL, "whole")
    cache.add(*some(50))
    cache.flush()
    [path] = cache.folder.iterdir()
    raw = bytearray(path.read_bytes())
    cache.add(*some(2, seed=1))
    cache.flush()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    else:
        if harm == "flipped":
            raw[len(raw) // 2] ^= 1
        size = {"truncated": len(raw) // 2, "empty": 0}.get(harm, len(raw))
        path.write_bytes(raw[:size])
    assert content(cache) == as_content(*some(2, seed=1))
    assert f"{path} is damaged" in caplog.text


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["npz", "pickle"])
def test_pickles_are_not_read(tmp_path, caplog, form):
    cache = Cache(tmp_path / "cache", MODEL, "whole")
    keys, _, durations = some(1)
    trap = Hostile(tmp_path / "trap")
    path = cache.folder / "shard-0.npz"
    if form == "pickle":
        path.write_bytes(pickle.dumps(trap))
    else:
        np.savez(
            path,
            keys=np.frombuffer(keys[0], np.uint8)[None],
            views=np.array([[[trap]]], object),
            durations=durations,
        )
    assert content(cache) == {}
    assert f"{path} is damaged" in caplog.text
    assert not trap.path.exists()
    loaded = np.load(path, allow_pickle=True)
    if form == "npz":
        loaded["views"]
    assert trap.path.exists()  # so it would have shown


@pytest.mark.parametrize(
    "change",
    [
        {"views": np.zeros((2, 3, 4))},  # float64
        {"views": np.zeros((2, 4), np.float32)},
        {"durations": np.zeros(1)},
        {"keys": np.zeros(2)},
    ],
)
def test_other_arrays_are_damage(tmp_path, caplog, change):
    cache = Cache(tmp_path, MODEL, "whole")
    arrays = {
        "keys": np.zeros((2, 16), np.uint8),
        "views": np.zeros((2, 3, 4), np.float32),
        "durations": np.zeros(2),
    }
    np.savez(cache.folder / "shard-0.npz", **arrays)
    assert len(list(cache.shards())) == 1
    np.savez(cache.folder / "shard-0.npz", **arrays | change)
    assert list(cache.shards()) == []
    assert "shard-0.npz is damaged" in caplog.text


def test_identity(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    path.write_bytes(b"12345")
    os.utime(path, ns=(10**18, 10**18))
    first = identity(path)
    assert len(first) == 16
    monkeypatch.chdir(tmp_path)
    assert identity("a.wav") == identity(str(path)) == first
    assert identity(path, "of another cache") != first

    os.utime(path, ns=(10**18, 10**18 + 100))
    assert identity(path) != first
    path.write_bytes(b"123456")
    os.utime(path, ns=(10**18, 10**18))
    assert identity(path) != first
    other = tmp_path / "b.wav"
    other.write_bytes(b"12345")
    os.utime(other, ns=(10**18, 10**18))
    assert identity(other) != first


def test_identity_of_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="missing.wav can't be read"):
        identity(tmp_path / "missing.wav")
