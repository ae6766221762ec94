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
    for array in (both, both.T):
        same(model.embed(array, rate).vector, expected, 1e-4)
    tensor = torch.from_numpy(both).requires_grad_().bfloat16()
    same(model.embed(tensor, rate).vector, expected, 0.1)
    with pytest.raises(InputError, match="sample_rate is 0, expected"):
        model.embed(tensor, 0)


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", "i2", "i4", "u1"])
def test_any_array(model, dtype):
    scale = {"i2": 2**15, "i4": 2**31, "u1": 2**7}.get(dtype, 1)
    zero = 128 if dtype == "u1" else 0
    array = (voice() * scale + zero).astype(dtype)
    expected = model.embed((array.astype(np.float32) - zero) / scale).vector
    same(model.embed(array).vector, expected)
    same(model.embed(array[::-1][::-1]).vector, expected)


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
    "of int64": np.ones(RATE, np.int64),  # of an unknown range
    r"shape \(16000, 99\)": np.ones((RATE, 99)),
    r"shape \(0,\)": np.zeros(0),
    "up to nan": np.full(RATE, np.nan),
    "divide integers": voice() * 2**15,
    "is silent": np.zeros(100 * RATE),
    "0.025 s of audio, expected 0.5 s or more: record": voice()[:400],
}


@pytest.mark.parametrize("words", BAD_AUDIO)
def test_bad_arrays(model, words):
    with pytest.raises(InputError, match=words):
        model.embed(BAD_AUDIO[words])


def test_one_channel_and_channels_that_cancel(model, tmp_path, monkeypatch):
    one, other = voice(0, 2), voice(1, 2)
    expected = model.embed(other).vector
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([one, other], 1), RATE, subtype="FLOAT")
    monkeypatch.setattr(model, "channel", 1)
    same(model.embed(path).vector, expected)
    same(model.embed(np.stack([one, other])).vector, expected)
    with pytest.raises(InputError, match="a.wav has 1 channel.* channel 1 is"):
        soundfile.write(path, one, RATE)
        model.embed(path)
    monkeypatch.setattr(model, "channel", None)
    soundfile.write(path, np.stack([other, -other], 1), RATE, subtype="FLOAT")
    same(model.embed(path).vector, expected)


def test_files_that_are_open(model, tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(), RATE)
    expected = model.embed(path).vector
    with open(path, "rb") as file:
        same(model.embed(file).vector, expected)
    with open(path) as text:
        monkeypatch.setattr("sys.stdin", text)
        same(model.embed("-").vector, expected)


def test_only_speech_is_embedded(model, speechocean, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "vad", True)
    path = sorted(speechocean.glob("audio/*/*.ogg"))[0]
    speech, _ = soundfile.read(path, dtype="float32")
    room = np.random.default_rng(0).normal(size=20 * RATE) * 10 ** (-70 / 20)
    expected = model.embed(speech).vector
    found = model.embed(np.concatenate([speech, room])).vector
    assert found @ expected > 0.95 * np.linalg.norm(found) * np.linalg.norm(
        expected
    )
    soundfile.write(tmp_path / "noise.wav", voice(0, 3), RATE)
    for function in (model.embed, lambda x: model.verify_files(path, x)):
        with pytest.raises(InputError, match="noise.wav has no speech"):
            function(tmp_path / "noise.wav")
