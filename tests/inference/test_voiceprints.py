"""A voiceprint store: whole and of the right model, or refused."""

import concurrent.futures
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.voiceprints import FORMAT, VoiceprintStore

MODEL = "c0ffee"


def filled(n=3, size=4):
    store = VoiceprintStore(MODEL)
    vectors = np.random.default_rng(0).normal(size=(n, size))
    for index, vector in enumerate(vectors.astype(np.float32)):
        store.add(f"Zoë {index}", vector)
    return store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.safetensors"


def write(path, vectors=None, **metadata):
    """A store by hand, to be damaged."""
    vectors = torch.ones(2, 4) if vectors is None else vectors
    fields = {"format": FORMAT, "model": MODEL, "names": '["a", "b"]'}
    fields = {k: v for k, v in {**fields, **metadata}.items() if v is not None}
    safetensors.torch.save_file({"vectors": vectors}, path, fields)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_round_trip(path, n):
    store = filled(n)
    store.save(path)
    loaded = VoiceprintStore.load(path, MODEL)
    assert loaded.names == store.names
    assert loaded.vectors.dtype == np.float32
    np.testing.assert_array_equal(loaded.vectors, store.vectors)
    assert len(loaded) == n
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_remove_and_replace():
    store = filled()
    store.add("Zoë 0", [4, 3, 2, 1])
    assert store.vectors[0].tolist() == [4, 3, 2, 1]
    store.remove("Zoë 1")
    assert "Zoë 1" not in store and store.names == ["Zoë 0", "Zoë 2"]
    with pytest.raises(InputError, match="Ann is not among"):
        store.remove("Ann")


@pytest.mark.parametrize(
    "name, vector, message",
    [
        ("", np.ones(4), "name"),
        ("a\x1b[2J", np.ones(4), r"\\x1b"),
        ("a" * 1001, np.ones(4), "1000"),
        (7, np.ones(4), "name"),
        ("Ann", np.ones(5), "5 numbers"),
        ("Ann", np.ones((1, 4)), "not a vector"),
        ("Ann", "text", "not a vector"),
        ("Ann", [1, 2, 3, np.nan], "not a vector"),
        ("Ann", np.zeros(4), "not a vector"),
    ],
)
def test_bad_speakers_are_not_added(name, vector, message):
    store = filled()
    with pytest.raises(InputError, match=message) as error:
        store.add(name, vector)
    assert str(error.value).isprintable()
    assert len(store) == 3


HOSTILE = {
    "no store": {"format": None},
    "other model": {"model": "other"},
    "no names": {"names": None},
    "names no JSON": {"names": "Ann"},
    "names no list": {"names": '{"a": 1}'},
    "names too deep": {"names": "[" * 100000},
    "names of numbers": {"names": "[1, 2]"},
    "one name twice": {"names": '["a", "a"]'},
    "too many names": {"names": '["a", "b", "c"]'},
    "control characters": {"names": json.dumps(["a\x1b]0;x\x07", "b"])},
    "lone surrogate": {"names": '["\\ud800", "b"]'},
    "one vector": {"vectors": torch.ones(4)},
    "NaN": {"vectors": torch.full((2, 4), float("nan"))},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(path, case):
    write(path)
    assert VoiceprintStore.load(path, MODEL).names == ["a", "b"]
    write(path, **HOSTILE[case])
    with pytest.raises(InputError) as error:
        VoiceprintStore.load(path, MODEL)
    text = str(error.value)
    assert str(path) in text
    assert text.isprintable() and len(text) < 500


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_files(path, data):
    filled().save(path)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        index = data.draw(st.integers(0, len(raw) - 1))
        raw[index] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    # A change within a name or a number is a name or a number.
    try:
        VoiceprintStore.load(path, MODEL)
    except InputError as error:
        assert str(path) in str(error)


def test_a_store_that_cannot_be_written(path):
    filled().save(path)
    with pytest.raises(InputError, match="can't be written"):
        filled().save(path / "below a file")
    with pytest.raises(InputError, match="can't be written"):
        with VoiceprintStore.update(path / "below a file", MODEL):
            pass
    with pytest.raises(InputError, match="missing"):
        VoiceprintStore.load(path.parent, MODEL)


def test_no_speaker_is_lost_to_another_process(path):
    """Ten threads that read, add and write at the same time."""

    def add(number):
        with VoiceprintStore.update(path, MODEL) as store:
            store.add(f"speaker {number}", np.ones(4))

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(add, range(10)))
    assert len(VoiceprintStore.load(path, MODEL)) == 10


def test_a_failed_update_changes_nothing(path):
    filled().save(path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        with VoiceprintStore.update(path, MODEL) as store:
            store.remove("Zoë 0")
            raise KeyError
    assert path.read_bytes() == before
