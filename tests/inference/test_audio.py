"""Any audio in, of any length, or one line that says what is wrong."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from speechbrain_hyperbolic.errors import InputError
from tests.inference.models import RATE, same, voice


def test_any_rate_and_channels(model, tmp_path):
    rate = 44100
    both = np.stack([voice(0, 2, rate), voice(1, 2, rate)])
    path = tmp_path / "a.wav"
    soundfile.write(path, both.T, rate, subtype="FLOAT")
    mono = torch.from_numpy(both.mean(0))
    mono = torchaudio.functional.resample(mono, rate, RATE)
    expected = model.embed(mono).vector
    same(model.embed(path).vector, expected, 1e-4)
    same(model.embed(both, rate).vector, expected, 1e-4)
    tensor = torch.from_numpy(both).requires_grad_().bfloat16()
    same(model.embed(tensor, rate).vector, expected, 0.1)


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", "i2"])
def test_any_array(model, dtype):
    scale = 2**15 if dtype == "i2" else 1
    array = (voice() * scale).astype(dtype)
    expected = model.embed(array.astype(np.float32) / scale).vector
    same(model.embed(array).vector, expected)
    same(model.embed(array[::-1][::-1]).vector, expected)


@pytest.mark.parametrize("samples", [1, 100, 1601])
def test_short_audio_is_repeated(model, samples):
    array = voice()[:samples]
    whole = np.tile(array, 1600)[: max(samples, 1600)]
    expected = model.encode_batch(torch.from_numpy(whole))[0, 0]
    same(model.embed(array).vector, expected)


def by_windows(model, waveform, bounds):
    """The mean direction of the windows' embeddings, times their mean norm."""
    windows = [
        torch.from_numpy(waveform[a * RATE : b * RATE]) for a, b in bounds
    ]
    vectors = np.stack([model.encode_batch(x)[0, 0] for x in windows])
    norms = np.linalg.norm(vectors, axis=1)
    return (vectors / norms[:, None]).mean(0) * norms.mean()


@pytest.mark.parametrize(
    "seconds, bounds",
    [
        (60, [(0, 60)]),
        (61, [(0, 30), (30, 61)]),
        (95, [(0, 30), (60, 95)]),  # the second window is silent
    ],
)
def test_windows(model, tmp_path, seconds, bounds):
    waveform = np.concatenate([voice(seed, 10) for seed in range(10)])
    waveform = waveform[: seconds * RATE]
    if seconds == 95:
        waveform[30 * RATE : 60 * RATE] = 1e-5
    expected = by_windows(model, waveform, bounds)
    found = model.embed(waveform)
    same(found.vector, expected)
    same(found.radius, np.linalg.norm(expected), 1e-5)
    assert found.seconds == seconds
    path = tmp_path / "a.wav"
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    same(model.embed(path).vector, expected)


BAD_AUDIO = {
    "of object": None,
    "of int32": np.ones(RATE, np.int32),
    r"shape \(16000, 2\)": np.ones((RATE, 2)),  # time first
    r"shape \(0,\)": np.zeros(0),
    "up to nan": np.full(RATE, np.nan),
    "divide integers": voice() * 2**15,
    "is silent": np.zeros(100 * RATE),
}


@pytest.mark.parametrize("words", BAD_AUDIO)
def test_bad_arrays(model, words):
    with pytest.raises(InputError, match=words):
        model.embed(BAD_AUDIO[words])
