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
from tests.inference.models import RATE, same, voice


def test_any_rate_and_channels(model, tmp_path):
    rate = 44100
    left, right = voice(0, 2, rate), voice(1, 2, rate)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([left, right], 1), rate, subtype="FLOAT")
    mono = torchaudio.functional.resample(
        torch.from_numpy((left + right) / 2), rate, RATE
    )
    expected = model.embed(mono).vector
    same(model.embed(path).vector, expected, 1e-4)
    both = np.stack([left, right])
    same(model.embed(both, rate).vector, expected, 1e-4)
    same(model.embed(torch.from_numpy(both), rate).vector, expected, 1e-4)


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", "i2", ">i2"])
def test_any_array(model, dtype):
    scaled = np.round(voice() * 2**15).clip(-(2**15), 2**15 - 1)
    if dtype[-2] == "i":
        array = scaled.astype(dtype)
        expected = model.embed((scaled / 2**15).astype(np.float32)).vector
    else:
        array = voice().astype(dtype)
        expected = model.embed(array.astype(np.float32)).vector
    same(model.embed(array).vector, expected)
    same(model.embed(array[::-1][::-1]).vector, expected)
    tensor = torch.from_numpy(voice()).requires_grad_().bfloat16()
    same(model.embed(tensor).vector, model.embed(tensor.double()).vector)


@pytest.mark.parametrize("samples", [1, 100, 1600, 1601])
def test_short_audio_is_repeated(model, samples):
    array = voice()[:samples]
    whole = np.tile(array, 1600)[: max(samples, 1600)]
    expected = model.encode_batch(torch.from_numpy(whole))[0, 0]
    found = model.embed(array)
    same(found.vector, expected)
    assert found.seconds == samples / RATE


def by_windows(model, waveform, bounds):
    vectors = np.stack(
        [
            model.encode_batch(torch.as_tensor(waveform[a * RATE : b * RATE]))[
                0, 0
            ]
            for a, b in bounds
        ]
    )
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
import resource, sys, torch
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain_hyperbolic import HyperbolicSpeakerRecognition

class Mean(torch.nn.Module):
    def forward(self, waveforms, lengths=None):
        return waveforms.abs().mean(1).reshape(-1, 1, 1).expand(-1, 1, 4)

class Same(torch.nn.Module):
    def forward(self, values, lengths=None):
        return values

modules = {"compute_features": Mean(), "mean_var_norm": Same()}
modules |= {"embedding_model": Same(), "mean_var_norm_emb": Same()}
model = HyperbolicSpeakerRecognition(
    modules=modules, hparams={"audio_normalizer": AudioNormalizer(8000)}
)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

model.embed(sys.argv[1])
before = peak()
print(model.embed(sys.argv[2]).seconds, (peak() - before) / 1024)
"""


def test_three_hours_fit_in_memory(tmp_path):
    """All of it as floats would take 346 MB."""
    pytest.importorskip("resource")
    tone = np.sin(np.arange(60 * 8000) / 5) / 2
    paths = [tmp_path / "minutes.flac", tmp_path / "hours.flac"]
    for path, minutes in zip(paths, (2, 180), strict=True):
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write((tone * 2**15).astype(np.int16))
    done = subprocess.run(
        [sys.executable, "-c", LONG, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    assert seconds == 3 * 3600
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
    for call in (
        lambda: model.embed_files([clips[0], path]),
        lambda: model.verify_files(clips[0], path),
        lambda: model.enroll([clips[0], path]),
    ):
        with pytest.raises(InputError, match=words) as error:
            call()
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


BAD_AUDIO = {
    "nothing": (None, "of type NoneType"),
    "list": ([0.1, 0.2], "of type list"),
    "integers": (np.ones(RATE, np.int32), "of int32"),
    "tensor of integers": (torch.ones(RATE, dtype=torch.long), "of int64"),
    "scalar": (np.array(0.1), "shape"),
    "three dimensions": (np.ones((1, 1, RATE)), "shape"),
    "time first": (np.ones((RATE, 2)), "shape"),
    "no samples": (np.zeros(0), "shape"),
    "no channels": (np.zeros((0, RATE)), "shape"),
    "NaN": (np.full(RATE, np.nan), "up to nan"),
    "overflow": (np.full(RATE, 1e300), "up to inf"),
    "unscaled": (voice() * 2**15, "divide"),
    "silence": (np.zeros(RATE), "is silent"),
    "long silence": (np.zeros(100 * RATE), "is silent"),
}


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_bad_arrays(model, case):
    array, message = BAD_AUDIO[case]
    with pytest.raises(InputError, match=message) as error:
        model.embed(array)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [0, 16000.0, "16000", True, 10**9])
def test_bad_sample_rates(model, rate):
    with pytest.raises(InputError, match="sample_rate is"):
        model.embed(voice(), rate)


@pytest.mark.parametrize(
    "wavs, lengths",
    [
        (torch.zeros(1, RATE), None),
        (torch.full((1, RATE), float("nan")), None),
        # The sound is beyond the length.
        (torch.arange(RATE)[None] / RATE > 0.5, torch.ones(1) / 2),
    ],
)
def test_bad_batches(model, wavs, lengths):
    good = torch.from_numpy(voice())[None]
    with pytest.raises(InputError, match="wavs2: waveform 0 is silent"):
        model.verify_batch(good, wavs, None, lengths)
