"""What is kept comes back, and nothing else does."""

import os

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.cache import Cache, arithmetic, identity

MODEL, OTHER = "a" * 64, "b" * 64


def some(n, seed=0):
    """Keys, and what the cache holds of each."""
    generator = np.random.default_rng(seed)
    return {
        generator.bytes(16): (
            generator.standard_normal((3, 4)).astype(np.float32),
            generator.uniform(1, 9),
        )
        for _ in range(n)
    }


def test_round_trip(tmp_path):
    first, second = some(5), some(2, seed=1)
    with pytest.raises(KeyboardInterrupt):
        with Cache(tmp_path / "new", MODEL, "whole") as cache:
            cache.add(first)
            cache.add(second)
            raise KeyboardInterrupt  # loses nothing
    again = Cache(tmp_path / "new", MODEL, "whole")
    assert len(list(again.folder.iterdir())) == 1
    keys = [list(first)[3], list(second)[0]]
    found = again.find([*keys, bytes(16)])
    assert set(found) == set(keys)
    np.testing.assert_array_equal(found[keys[0]][0], first[keys[0]][0])
    assert found[keys[0]][1] == first[keys[0]][1]
    assert not Cache(tmp_path / "new", MODEL, "crops").find(keys)
    assert not Cache(tmp_path / "new", OTHER, "whole").find(keys)


@pytest.mark.parametrize("harm", ["truncated", "flipped"])
def test_damaged_shards_are_skipped(tmp_path, caplog, harm):
    cache = Cache(tmp_path, MODEL, "whole")
    with cache:
        cache.add(some(50))
    [path] = cache.folder.iterdir()
    raw = bytearray(path.read_bytes())
    with cache:
        cache.add(others := some(2, seed=1))
    if harm == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    else:
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    assert set(cache.find([*some(50), *others])) == set(others)
    assert f"{path} is damaged" in caplog.text


def test_identity(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    path.touch()
    first = identity(path)
    monkeypatch.chdir(tmp_path)
    assert identity("a.wav") == first != identity(path, "another cache")
    os.utime(path, ns=(0, 100))
    assert identity(path) != first
    with pytest.raises(InputError, match="missing.wav cannot be read"):
        identity("missing.wav")


def test_other_arithmetic_has_another_cache(tmp_path):
    """TF32 and bfloat16 move embeddings by more than 1e-5."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    found = []
    try:
        for tf32 in (False, True):
            for flag in flags:
                flag.allow_tf32 = tf32
            found += [arithmetic(device) for device in ("cpu", "cuda:0")]
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value
    assert found == ["", "-cuda", "", "-cuda-tf32"]
    with torch.autocast("cpu", torch.bfloat16):
        assert arithmetic("cpu") == "-bfloat16"
    folders = [
        Cache(tmp_path, "f" * 64, "s", d).folder for d in ("cpu", "cuda")
    ]
    assert folders[0].name == "v1-" + "f" * 32 + "-s" != folders[1].name
