"""A voiceprint store: whole and of the right model, or refused."""

import concurrent.futures

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.voiceprints import FORMAT, VoiceprintStore

MODEL = "c0ffee"


def filled():
    store = VoiceprintStore(MODEL)
    for name in ("Zoë", "Ada", "Bob"):
        store.add(name, np.arange(1, 5) * len(store) + 1)
    return store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.safetensors"


def test_round_trip(path):
    store = filled()
    store.save(path)
    loaded = VoiceprintStore.load(path, MODEL)
    assert loaded.names == store.names and len(loaded) == 3
    assert loaded.vectors.dtype == np.float32
    np.testing.assert_array_equal(loaded.vectors, store.vectors)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "name, vector, message",
    [
        ("a\x1b[2J", np.ones(4), r"name is .*\\x1b"),
        ("Ann", np.ones(5), "not a vector of 4"),
        ("Ann", [1, 2, 3, np.nan], "not a vector"),
    ],
)
def test_bad_speakers_are_not_added(name, vector, message):
    store = filled()
    with pytest.raises(InputError, match=message):
        store.add(name, vector)
    assert len(store) == 3


HOSTILE = {
    "no store": {"format": "pt"},
    "other model": {"model": "other"},
    "names too deep": {"names": "[" * 100000},
    "too many names": {"names": '["a", "b", "c"]'},
    "control characters": {"names": '["a\\u001b]0;x", "b"]'},
    "one vector": {"vectors": torch.ones(4)},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(path, case):
    fields = {"format": FORMAT, "model": MODEL, "names": '["a", "b"]'}
    fields |= {"vectors": torch.ones(2, 4)} | HOSTILE[case]
    vectors = fields.pop("vectors")
    safetensors.torch.save_file({"vectors": vectors}, path, fields)
    with pytest.raises(InputError) as error:
        VoiceprintStore.load(path, MODEL)
    text = str(error.value)
    assert str(path) in text
    assert text.isprintable() and len(text) < 500


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_files(path, data):
    filled().save(path)
    raw = bytearray(path.read_bytes())
    index = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        del raw[index:]
    else:
        raw[index] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    # A change within a name or a number is a name or a number.
    try:
        VoiceprintStore.load(path, MODEL)
    except InputError as error:
        assert str(path) in str(error)


def test_no_speaker_is_lost_to_another_process(path):
    """Ten threads that read, add and write at the same time."""

    def add(number):
        with VoiceprintStore.update(path, MODEL) as store:
            store.add(f"speaker {number}", np.ones(4))

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(add, range(10)))
    assert len(VoiceprintStore.load(path, MODEL)) == 10
