"""What is kept comes back, and nothing else does."""

import os

import numpy as np
import pytest

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import cache as cache_module
from speechbrain_hyperbolic.evaluation.cache import Cache, identity

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
    keys = [first[0][3], second[0][0], bytes(16)]
    found = again.find(keys)
    assert set(found) == set(keys[:2])
    np.testing.assert_array_equal(found[keys[0]][0], first[1][3])
    assert found[keys[0]][1] == first[2][3]


def test_an_exception_loses_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with Cache(tmp_path, MODEL, "whole") as cache:
            cache.add(*some(5))
            raise KeyboardInterrupt
    assert len(content(cache)) == 5


def test_shards_are_written_in_time(tmp_path, monkeypatch):
    cache = Cache(tmp_path, MODEL, "whole")
    cache.add(*some(1))
    assert content(cache) == {}
    monkeypatch.setattr(cache_module, "SECONDS_PER_SHARD", 0)
    cache.add(*some(1, seed=1))
    assert len(content(cache)) == 2


def test_other_settings_and_other_models(tmp_path):
    with Cache(tmp_path, MODEL, "whole") as cache:
        cache.add(*some(3))
    assert content(Cache(tmp_path, MODEL, "crops")) == {}
    assert content(Cache(tmp_path, OTHER, "whole")) == {}


@pytest.mark.parametrize("harm", ["truncated", "flipped", "folder", "arrays"])
def test_damaged_shards_are_skipped(tmp_path, caplog, harm):
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
    elif harm == "arrays":
        views = np.zeros((2, 3, 4))  # not float32
        np.savez(path, keys=np.zeros((2, 16)), views=views, durations=views)
    elif harm == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    else:
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    assert content(cache) == as_content(*some(2, seed=1))
    assert f"{path} is damaged" in caplog.text


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_not_read(tmp_path, caplog):
    cache = Cache(tmp_path / "cache", MODEL, "whole")
    keys, _, durations = some(1)
    trap = Hostile(tmp_path / "trap")
    path = cache.folder / "shard-0.npz"
    key = np.frombuffer(keys[0], np.uint8)[None]
    views = np.array([[[trap]]], object)
    np.savez(path, keys=key, views=views, durations=durations)
    assert content(cache) == {}
    assert f"{path} is damaged" in caplog.text
    assert not trap.path.exists()


def test_identity(tmp_path, monkeypatch):
    def key(name, content=b"12345", time=10**18, made_by=""):
        path = tmp_path / name
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        return identity(path, made_by)

    first = key("a.wav")
    monkeypatch.chdir(tmp_path)
    assert identity("a.wav") == key("a.wav") == first
    others = {
        key("a.wav", made_by="another cache"),
        key("a.wav", time=10**18 + 100),
        key("a.wav", content=b"123456"),
        key("b.wav"),
    }
    assert len(others | {first}) == 5


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(InputError, match="missing.wav cannot be read"):
        identity(tmp_path / "missing.wav")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cache_folder .*file cannot be writt"):
        Cache(tmp_path / "file", MODEL, "whole")
