"""A voiceprint store: whole and of the right model, or refused."""

import multiprocessing

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.voiceprints import FORMAT, VoiceprintStore
from tests.inference.models import FUZZ
from tests.processes import start

MODEL = "c0ffee"


def filled():
    store = VoiceprintStore(MODEL)
    for name in ("Zoë", "Ada", "Bob"):
        store.add(name, np.arange(1, 5) * len(store) + 1)
    return store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.safetensors"


HOSTILE = {
    "no store": {"format": "pt"},
    "other model": {"model": "other"},
    "names too deep": {"names": "[" * 100000},
    "too many names": {"names": '["a", "b", "c"]'},
    "too many utterances": {"utterances": "[1, 2]"},
    "control characters": {"names": '["a\\u001b]0;x", "b"]'},
    "one vector": {"vectors": torch.ones(4)},
    "another size": {"vectors": torch.ones(2, 5)},
    "not finite": {"vectors": torch.full((2, 4), torch.nan)},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(path, case):
    header = {"format": FORMAT, "model": MODEL}
    header |= {"names": '["a", "b"]', "utterances": "[1, 1]"} | HOSTILE[case]
    vectors = header.pop("vectors", torch.ones(2, 4))
    tensors = {"vectors": vectors, "embeddings": torch.ones(2, 4)}
    safetensors.torch.save_file(tensors, path, header)
    with pytest.raises(InputError) as error:
        VoiceprintStore.load(path, MODEL)
    text = str(error.value)
    assert str(path) in text
    assert text.isprintable() and len(text) < 500


@FUZZ
@given(data=st.data())
def test_damaged_files(path, data):
    path.unlink(missing_ok=True)
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


def enroll(path, number, how, ready):
    store = VoiceprintStore(MODEL)
    ready.wait()
    for i in range(4):
        name = f"{number} {i}"
        if how == "save":
            store.add(name, np.ones(4))
            store.save(path)
        else:
            with VoiceprintStore.update(path, MODEL) as store:
                store.add(name, np.ones(4))


def test_no_speaker_is_lost_to_another_process(path):
    """Five processes that read, add and write at the same time."""
    ready = multiprocessing.get_context("fork").Barrier(5)
    processes = [
        start(enroll, path, n, how, ready)
        for n, how in enumerate(["save", "update", "save", "update", "save"])
    ]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    names = {f"{n} {i}" for n in range(5) for i in range(4)}
    assert set(VoiceprintStore.load(path, MODEL).names) == names


def test_a_save_keeps_what_others_did(path):
    filled().save(path)
    mine, other = (VoiceprintStore.load(path) for _ in range(2))
    other.remove(" Bob")
    other.add("Eve", np.ones(4))
    other.save(path)
    mine.add("Ada", np.full(4, 7), [np.ones(4), np.zeros(4)])
    mine.save(path)
    assert [p.name for p in path.parent.glob("[!.]*")] == [path.name]
    found = VoiceprintStore.load(path, MODEL)
    assert sorted(found.names) == sorted(mine.names) == ["Ada", "Eve", "Zoë"]
    assert found.vectors.dtype == np.float32
    assert found.vectors[found.names.index("Zoë")].tolist() == [1] * 4
    assert found.vectors[found.names.index("Ada")].tolist() == [7] * 4
    assert found.embeddings("Ada").tolist() == [[1] * 4, [0] * 4]
    assert found.embeddings("Zoe\u0308 ").tolist() == [[1] * 4]
    for name in found.names:
        found.remove(name)
    found.save(path)
    assert len(VoiceprintStore.load(path)) == 0
    with pytest.raises(InputError, match="Bob is not among the 0 enrolled"):
        found.remove("Bob")
    with pytest.raises(InputError, match="made by another model"):
        VoiceprintStore("other").save(path)
