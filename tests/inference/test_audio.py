"""Any audio in, of any length, or one line that says what is wrong."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from speechbrain_hyperbolic.errors import InputError
from tests.conftest import ROOT
from tests.inference.models import RATE, make_model, same, voice


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
    same(model.embed(torch.from_numpy(both), rate).vector, expected, 1e-4)


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", "i2"])
def test_any_array(model, dtype):
    scale = 2**15 if dtype == "i2" else 1
    array = (voice() * scale).astype(dtype)
    expected = model.embed(array.astype(np.float32) / scale).vector
    same(model.embed(array).vector, expected)
    same(model.embed(array[::-1][::-1]).vector, expected)
    tensor = torch.from_numpy(voice()).requires_grad_().bfloat16()
    same(model.embed(tensor).vector, model.embed(tensor.double()).vector)


@pytest.mark.parametrize("samples", [1, 100, 1601])
def test_short_audio_is_repeated(model, samples):
    array = voice()[:samples]
    whole = np.tile(array, 1600)[: max(samples, 1600)]
    expected = model.encode_batch(torch.from_numpy(whole))[0, 0]
    found = model.embed(array)
    same(found.vector, expected)
    assert found.seconds == samples / RATE


def by_windows(model, waveform, bounds):
    """The mean direction of the windows' embeddings, times their mean norm."""
    windows = [
        torch.from_numpy(waveform[a * RATE : b * RATE]) for a, b in bounds
    ]
    vectors = np.stack([model.encode_batch(x)[0, 0] for x in windows])
    norms = np.linalg.norm(vectors, axis=1)
    return (vectors / norms[:, None]).mean(0) * norms.mean()


@pytest.fixture(scope="module")
def long_waveform():
    return np.concatenate([voice(seed, 10) for seed in range(10)])[: 95 * RATE]


@pytest.mark.parametrize(
    "seconds, bounds",
    [
        (60, [(0, 60)]),
        (61, [(0, 30), (30, 61)]),
        (95, [(0, 30), (30, 60), (60, 95)]),
    ],
)
def test_windows(model, long_waveform, tmp_path, seconds, bounds):
    waveform = long_waveform[: seconds * RATE]
    expected = by_windows(model, waveform, bounds)
    found = model.embed(waveform)
    same(found.vector, expected)
    same(found.radius, np.linalg.norm(expected), 1e-5)
    assert found.seconds == seconds
    path = tmp_path / "a.wav"
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    same(model.embed(path).vector, expected)


def test_silent_windows_are_left_out(model, long_waveform):
    waveform = long_waveform.copy()
    waveform[30 * RATE : 60 * RATE] = 1e-5
    found = model.embed(waveform)
    same(found.vector, by_windows(model, waveform, [(0, 30), (60, 95)]))
    assert found.seconds == 95


LONG = """
import resource, sys
from speechbrain_hyperbolic import HyperbolicSpeakerRecognition

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

model = HyperbolicSpeakerRecognition.from_pretrained(sys.argv[1])
model.embed(sys.argv[2])
before = peak()
print(model.embed(sys.argv[3]).seconds, (peak() - before) / 1024)
"""


def test_an_hour_fits_in_memory(tmp_path):
    """All of it as floats would take 115 MB."""
    pytest.importorskip("resource")
    make_model(tmp_path / "model", sample_rate=8000)
    tone = np.sin(np.arange(60 * 8000) / 5) / 2
    paths = [tmp_path / "minutes.flac", tmp_path / "hour.flac"]
    for path, minutes in zip(paths, (2, 60), strict=True):
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write((tone * 2**15).astype(np.int16))
    done = subprocess.run(
        [sys.executable, "-c", LONG, tmp_path / "model", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    assert seconds == 3600
    assert megabytes < 40


@pytest.mark.parametrize(
    "samples, words",
    [
        (None, "is missing"),
        (np.zeros(RATE), "is silent"),
        (np.full(70 * RATE, np.nan), "NaN or infinite"),
    ],
)
def test_bad_files(model, clips, tmp_path, samples, words):
    path = tmp_path / "bad.wav"
    if samples is not None:
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    for call in (model.embed_files, model.enroll):
        with pytest.raises(InputError, match=words) as error:
            call([clips[0], path])
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


BAD_AUDIO = {
    "nothing": (None, "of object"),
    "integers": (np.ones(RATE, np.int32), "of int32"),
    "time first": (np.ones((RATE, 2)), "shape"),
    "no samples": (np.zeros(0), "shape"),
    "NaN": (np.full(RATE, np.nan), "up to nan"),
    "unscaled": (voice() * 2**15, "divide"),
    "long silence": (np.zeros(100 * RATE), "is silent"),
}


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_bad_arrays(model, case):
    array, message = BAD_AUDIO[case]
    with pytest.raises(InputError, match=message) as error:
        model.embed(array)
    assert "\n" not in str(error.value)
