"""Batches against a loop, what the cache keeps, and what is refused."""

import types

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.cache import arithmetic
from speechbrain_hyperbolic.evaluation.extraction import (
    Encoder,
    extract,
    weights_fingerprint,
)
from tests.kept.surface import small_modules

LENGTHS = [1.0, 0.5, 1.0, 1.04, 0.05, 2.0, 1.0, 0.5, 1.04, 0.7]  # seconds


class CountingEncoder(Encoder):
    """Notes the shape of each batch."""

    def __init__(self, *modules):
        super().__init__(*modules)
        self.batches = []

    def __call__(self, waveforms):
        self.batches.append(tuple(waveforms.shape))
        return super().__call__(waveforms)


def counting():
    return CountingEncoder(*small_modules())


def make(folder, lengths=LENGTHS, extension=".wav"):
    """Noise, each of another color."""
    generator = np.random.default_rng(0)
    paths = {}
    for number, length in enumerate(lengths):
        noise = generator.uniform(-0.3, 0.3, round(length * 16000))
        smooth = np.convolve(noise, np.ones(number + 1) / (number + 1), "same")
        paths[f"spk/{number}"] = folder / f"{number}{extension}"
        soundfile.write(paths[f"spk/{number}"], smooth, 16000)
    return paths


@torch.no_grad()
def one_by_one(waveforms):
    features, norm, model = (module.eval() for module in small_modules())
    one = torch.ones(1)  # their whole length
    found = [model(norm(features(w[None]), one), one)[0] for w in waveforms]
    return torch.cat(found)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_seconds", [0.1, 3])
def test_equals_one_by_one(tmp_path, batch_seconds):
    paths = make(tmp_path)
    encoder = counting()
    found = extract(encoder, paths, batch_seconds=batch_seconds)
    waveforms = [audio.load(path) for path in paths.values()]
    waveforms[4] = torch.cat([waveforms[4]] * 2)  # 0.05 s up to 0.1 s
    assert found.views.dtype is torch.float32
    assert_close(found.views[:, 0], one_by_one(waveforms))
    np.testing.assert_allclose(found.durations, LENGTHS)
    # Of one length, and none beyond the limit unless it is one utterance
    limit = batch_seconds * 16000
    assert sum(rows for rows, _ in encoder.batches) == len(paths)
    assert all(rows == 1 or rows * n <= limit for rows, n in encoder.batches)
    assert ((3, 16000) in encoder.batches) == (batch_seconds >= 3)


def test_crops(tmp_path):
    paths = make(tmp_path)
    crop = 11200  # 0.7 s
    encoder = counting()
    found = extract(encoder, paths, n_crops=5, crop_length=0.7)
    # One batch of all crops, below the limit of a minute
    assert (50, crop) in encoder.batches

    crops = []
    for path in paths.values():
        samples, _ = soundfile.read(path, dtype="float32")
        if len(samples) < crop:
            samples = np.pad(samples, (0, crop - len(samples)), mode="wrap")
        for i in range(5):
            start = (len(samples) - crop) * i // 4
            crops.append(torch.from_numpy(samples[start : start + crop]))
    expected = one_by_one(crops).unflatten(0, (-1, 5))
    assert_close(found.views[:, 1:], expected)
    assert_close(found.views[:, :1], extract(counting(), paths).views)


def test_the_cache_is_used(tmp_path):
    paths = make(tmp_path)
    settings = {"n_crops": 2, "crop_length": 0.5}
    settings["cache_folder"] = tmp_path / "cache"
    first = extract(counting(), paths, **settings)
    # A list with other ids, in another order
    again = counting()
    some = {"x": paths["spk/3"], "y": paths["spk/1"], "z": paths["spk/3"]}
    found = extract(again, some, **settings)
    assert torch.equal(found.views, first.views[[3, 1, 3]])
    assert found.durations.tolist() == [1.04, 0.5, 1.04]
    assert again.batches == []
    assert len(list((tmp_path / "cache").glob("*/shard-*"))) == 1
    extract(again, paths, **settings | {"crop_length": 0.4})
    assert sum(rows for rows, _ in again.batches) >= len(paths)
    other = counting()
    other.modules[2].fc.conv.weight.data += 1
    changed = extract(other, paths, **settings)
    assert other.batches and not torch.equal(changed.views, first.views)


def test_a_broken_file_is_named_and_the_rest_is_kept(tmp_path):
    paths = make(tmp_path, extension=".flac")
    whole = paths["spk/7"].read_bytes()
    paths["spk/7"].write_bytes(whole[: len(whole) // 2])
    settings = {"batch_seconds": 0.1, "cache_folder": tmp_path / "cache"}
    encoder = counting()
    with pytest.raises(InputError, match=str(paths["spk/7"])):
        extract(encoder, paths, **settings)
    assert 0 < len(encoder.batches) < len(paths)
    paths["spk/7"].write_bytes(whole)
    extract(encoder, paths, **settings)
    assert len(encoder.batches) == len(paths)
    paths["spk/7"].unlink()
    with pytest.raises(InputError, match="7.flac cannot be read"):
        extract(encoder, paths, **settings)


def test_only_speech_is_embedded(tmp_path, speechocean):
    voice, rate = soundfile.read(next(speechocean.glob("audio/*/*.ogg")))
    paths = {name: tmp_path / f"{name}.wav" for name in ("voice", "noise")}
    room = np.random.default_rng(0).normal(0, 10**-3.5, 5 * rate)
    soundfile.write(paths["voice"], np.append(voice, room), rate)
    soundfile.write(paths["noise"], room * 100, rate)
    settings = {"n_crops": 1, "cache_folder": tmp_path / "cache"}
    encoder = counting()
    whole = extract(encoder, paths, **settings)
    with pytest.raises(InputError, match=r"noise.wav has no speech: leave it"):
        extract(encoder, paths, vad=True, **settings)
    del paths["noise"], encoder.batches[:]
    found = extract(encoder, paths, vad=True, **settings)
    assert encoder.batches[0][1] < len(voice) + 0.5 * rate
    assert found.durations[0] == whole.durations[0]  # of all audio


class Diverged(torch.nn.Module):
    """NaN for the last utterance of 1.0 s."""

    def forward(self, features, lengths):
        mean = features.std(1, keepdim=True)
        if features.shape[1] == 101:
            mean[-1] = torch.nan
        return mean


def test_an_embedding_that_is_not_finite_is_refused_and_not_kept(tmp_path):
    paths, cache_folder = make(tmp_path), tmp_path / "cache"
    encoder = Encoder(*small_modules()[:2], Diverged())
    settings = {"batch_seconds": 3.0, "cache_folder": cache_folder}
    with pytest.raises(InputError, match=r"spk/\d is not finite .1 of 3 "):
        extract(encoder, paths, **settings)
    (shard,) = cache_folder.glob("*/shard-*")  # of the longer utterances
    with np.load(shard) as file:
        assert np.isfinite(file["views"]).all()


CHANGES = [
    lambda features, norm, model: model.fc.conv.weight.data[0].add_(1e-6),
    lambda features, norm, model: model.asp_bn.norm.running_mean[0].add_(1e-6),
    lambda features, norm, model: setattr(norm, "std_norm", True),
    lambda features, norm, model: setattr(features.compute_fbanks, "amin", 0),
]


def test_fingerprints_tell_models_apart():
    encoder = counting()
    fingerprints = {encoder.fingerprint()}
    encoder(torch.randn(2, 16000))
    assert encoder.fingerprint() in fingerprints
    for change in CHANGES:
        modules = small_modules()
        change(*modules)
        fingerprints.add(Encoder(*modules).fingerprint())
    assert len(fingerprints) == 5
    # As in the results of earlier versions
    state = {"weight": torch.zeros(1)}
    assert weights_fingerprint(state)[:8] == "67ea5d3e"


@pytest.mark.parametrize("harm", ["truncated", "flipped"])
def test_damaged_shards_are_skipped(tmp_path, caplog, harm):
    paths, cache = make(tmp_path), tmp_path / "cache"
    extract(counting(), paths, cache_folder=cache)
    (path,) = cache.glob("*/shard-*")
    raw = bytearray(path.read_bytes())
    if harm == "truncated":
        del raw[len(raw) // 2 :]
    else:
        raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    again = counting()
    extract(again, paths, cache_folder=cache)
    assert again.batches and f"{path} is damaged" in caplog.text


FLAGS = ["cuda.matmul", "cudnn"]


def test_other_arithmetic_has_another_cache(monkeypatch):
    """TF32 and bfloat16 move embeddings by more than 1e-5."""
    for on, name in ((None, "cuda"), *((flag, "cuda-tf32") for flag in FLAGS)):
        for flag in FLAGS:
            flags = types.SimpleNamespace(allow_tf32=flag == on)
            monkeypatch.setattr(f"torch.backends.{flag}", flags)
        assert arithmetic("cuda:0") == name and arithmetic("cpu") == "cpu"
    with torch.autocast("cpu", torch.bfloat16):
        assert arithmetic("cpu") == "cpu-bfloat16"
