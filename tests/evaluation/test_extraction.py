"""Batches against a loop, and a cache that is killed, changed and damaged."""

import multiprocessing
import signal
import time

import av
import numpy as np
import pytest
import soundfile
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import cache as cache_module
from speechbrain_hyperbolic.evaluation.extraction import (
    Encoder,
    extract,
    weights_fingerprint,
)

LENGTHS = [1.0, 0.5, 1.0, 1.04, 0.05, 2.0, 1.0, 0.5, 1.04, 0.7]  # seconds


def stock_modules(seed=0, n_mels=80, **settings):
    torch.manual_seed(seed)
    return (
        Fbank(n_mels=n_mels, **settings),
        InputNormalization(norm_type="sentence", std_norm=False),
        ECAPA_TDNN(
            n_mels,
            channels=[16, 16, 16, 16, 48],
            attention_channels=8,
            lin_neurons=8,
        ),
    )


class CountingEncoder(Encoder):
    """Notes the shape of each batch."""

    def __init__(self, *modules):
        super().__init__(*modules)
        self.batches = []

    def __call__(self, waveforms):
        self.batches.append(tuple(waveforms.shape))
        return super().__call__(waveforms)


def counting(seed=0):
    return CountingEncoder(*stock_modules(seed))


def write(path, samples, rate):
    """Any format; m4a (AAC) by PyAV, as VoxCeleb2 is released."""
    samples = samples.astype(np.float32)
    if path.suffix != ".m4a":
        soundfile.write(path, samples, rate)
        return path
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode()])
    return path


def make(folder, lengths=LENGTHS, rate=16000, extension=".wav"):
    """Noise, each of another color."""
    generator = np.random.default_rng(0)
    paths = {}
    for number, length in enumerate(lengths):
        noise = generator.uniform(-0.3, 0.3, round(length * rate))
        smooth = np.convolve(noise, np.ones(number + 1) / (number + 1), "same")
        path = folder / f"{number}{extension}"
        paths[f"spk/{number}"] = write(path, smooth, rate)
    return paths


@torch.no_grad()
def one_by_one(modules, waveforms):
    compute_features, mean_var_norm, embedding_model = (
        module.eval() for module in modules
    )
    embeddings = []
    for waveform in waveforms:
        lengths = torch.ones(1)
        found = mean_var_norm(compute_features(waveform[None]), lengths)
        embeddings.append(embedding_model(found, lengths)[0, 0])
    return torch.stack(embeddings)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def assert_same(one, other):
    """To the last bit."""
    assert one.utterances == other.utterances
    assert torch.equal(one.views, other.views)
    assert one.durations.tolist() == other.durations.tolist()


@pytest.mark.parametrize("batch_seconds", [0.1, 3, 60])
def test_equals_one_by_one(tmp_path, batch_seconds):
    paths = make(tmp_path)
    encoder = counting()
    found = extract(encoder, paths, batch_seconds=batch_seconds)
    waveforms = [audio.load(path) for path in paths.values()]
    waveforms[4] = torch.cat([waveforms[4]] * 2)  # 0.05 s up to 0.1 s
    assert found.utterances == list(paths)
    assert found.views.dtype is torch.float32
    assert_close(found.views[:, 0], one_by_one(stock_modules(), waveforms))
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
    assert found.views.shape == (len(paths), 6, 8)
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
    expected = one_by_one(stock_modules(), crops).unflatten(0, (-1, 5))
    assert_close(found.views[:, 1:], expected)
    assert_close(found.views[:, :1], extract(counting(), paths).views)


@pytest.mark.parametrize("extension", [".flac", ".m4a"])
def test_other_formats_and_rates(tmp_path, extension):
    """The header of an m4a does not tell its exact length."""
    paths = make(tmp_path, [1.0, 0.5, 1.0, 0.9, 0.51], 22050, extension)
    found = extract(counting(), paths)
    waveforms = [audio.load(path) for path in paths.values()]
    assert_close(found.views[:, 0], one_by_one(stock_modules(), waveforms))
    assert found.durations.tolist() == [len(w) / 16000 for w in waveforms]


def test_reading_ahead_is_bounded(tmp_path, monkeypatch):
    """Three batches at most are in memory."""
    paths = make(tmp_path, [0.5] * 40)
    read, embedded, held = [], [], []
    load = audio.load
    monkeypatch.setattr(
        audio, "load", lambda *a, **k: (read.append(1), load(*a, **k))[1]
    )

    class Slow(Encoder):
        def __call__(self, waveforms):
            time.sleep(0.05)
            held.append(len(read) - len(embedded))
            embedded.extend(waveforms)
            return super().__call__(waveforms)

    extract(Slow(*stock_modules()), paths, batch_seconds=1.0)
    assert len(read) == len(embedded) == 40
    assert 2 < max(held) <= 6


def test_the_cache_is_used(tmp_path, caplog):
    caplog.set_level("INFO")
    paths = make(tmp_path)
    settings = {"n_crops": 2, "crop_length": 0.5}
    plain = extract(counting(), paths, **settings)
    settings["cache_folder"] = tmp_path / "cache"
    first = extract(counting(), paths, **settings)
    assert_same(first, plain)
    assert "0 of 10 embeddings are in the cache" in caplog.text
    again = counting()
    assert_same(extract(again, paths, **settings), first)
    assert "10 of 10 embeddings are in the cache" in caplog.text
    # A list with other ids, in another order
    some = {"x": paths["spk/3"], "y": paths["spk/1"], "z": paths["spk/3"]}
    found = extract(again, some, **settings)
    assert torch.equal(found.views, first.views[[3, 1, 3]])
    assert found.durations.tolist() == [1.04, 0.5, 1.04]
    assert again.batches == []

    # Changed audio of the same size, another model and other crops
    samples = np.random.default_rng(1).uniform(-0.3, 0.3, 16000)
    write(paths["spk/2"], samples, 16000)
    found = extract(again, paths, **settings)
    assert again.batches == [(1, 16000), (2, 8000)]
    expected = one_by_one(stock_modules(), [audio.load(paths["spk/2"])])
    assert_close(found.views[2, :1], expected)
    for change in ({"n_crops": 3}, {"n_crops": 0}, {"crop_length": 0.4}):
        encoder = counting()
        extract(encoder, paths, **settings | change)
        assert sum(rows for rows, _ in encoder.batches) >= len(paths)
    other = counting(seed=1)
    extract(other, paths, **settings)
    assert other.batches


def extract_and_hang(paths, cache_folder, batches):
    """A process to be killed: it stops within an extraction."""
    cache_module.SECONDS_PER_SHARD = 0

    class Hanging(CountingEncoder):
        def __call__(self, waveforms):
            if len(self.batches) == batches:
                time.sleep(600)
            return super().__call__(waveforms)

    encoder = Hanging(*stock_modules())
    extract(encoder, paths, batch_seconds=0.1, cache_folder=cache_folder)


def test_resumes_after_a_kill_and_a_damaged_shard(tmp_path, caplog):
    caplog.set_level("INFO")
    paths, cache_folder = make(tmp_path), tmp_path / "cache"
    process = multiprocessing.get_context("spawn").Process(
        target=extract_and_hang, args=(paths, cache_folder, 4)
    )
    process.start()
    deadline = time.monotonic() + 120
    while len(list(cache_folder.glob("*/shard-*"))) < 4:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    shard = sorted(cache_folder.glob("*/shard-*"))[3]
    shard.write_bytes(shard.read_bytes()[:-100])

    encoder = counting()
    resumed = extract(
        encoder, paths, batch_seconds=0.1, cache_folder=cache_folder
    )
    assert f"{shard} is damaged" in caplog.text
    assert "3 of 10 embeddings are in the cache" in caplog.text
    assert len(encoder.batches) == 7
    assert_same(resumed, extract(counting(), paths, batch_seconds=0.1))


def test_broken_files_are_named_and_the_rest_is_kept(tmp_path):
    paths = make(tmp_path, extension=".flac")
    cache_folder = tmp_path / "cache"
    whole = paths["spk/7"].read_bytes()
    paths["spk/7"].write_bytes(whole[: len(whole) // 2])
    settings = {"batch_seconds": 0.1, "cache_folder": cache_folder}
    encoder = counting()
    with pytest.raises(InputError, match=str(paths["spk/7"])):
        extract(encoder, paths, **settings)
    assert 0 < len(encoder.batches) < len(paths)
    paths["spk/7"].write_bytes(whole)
    extract(encoder, paths, **settings)
    assert len(encoder.batches) == len(paths)
    paths["spk/1"].unlink()
    for options in (settings, {}):
        with pytest.raises(InputError, match=str(paths["spk/1"])):
            extract(encoder, paths, **options)
    assert len(encoder.batches) == len(paths)


class Diverged(torch.nn.Module):
    """NaN for the last utterance of 1.0 s."""

    def forward(self, features, lengths):
        mean = features.std(1, keepdim=True)
        if features.shape[1] == 101:
            mean[-1] = torch.nan
        return mean


def test_an_embedding_that_is_not_finite_is_refused_and_not_kept(tmp_path):
    paths, cache_folder = make(tmp_path), tmp_path / "cache"
    encoder = Encoder(*stock_modules()[:2], Diverged())
    settings = {"batch_seconds": 3.0, "cache_folder": cache_folder}
    with pytest.raises(InputError, match=r"spk/\d is not finite .1 of 3 "):
        extract(encoder, paths, **settings)
    (shard,) = cache_folder.glob("*/shard-*")  # of the longer utterances
    with np.load(shard) as file:
        assert np.isfinite(file["views"]).all()


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(InputError, match="no utterances"):
        extract(counting(), {})
    for options in ({"n_crops": -1}, {"n_crops": 5, "crop_length": 0.01}):
        with pytest.raises(InputError, match="expected 0 or more crops of"):
            extract(counting(), make(tmp_path, [0.5]), **options)


def test_fingerprints_tell_models_apart():
    def fingerprint(change=lambda *modules: None, **settings):
        modules = stock_modules(**settings)
        change(*modules)
        return Encoder(*modules).fingerprint()

    def one_weight(features, norm, model):
        with torch.no_grad():
            model.fc.conv.weight.view(-1)[3] += 1e-6

    def one_buffer(features, norm, model):
        model.asp_bn.norm.running_mean[0] += 1e-6

    def another_norm(features, norm, model):
        norm.std_norm = True

    fingerprints = [
        fingerprint(),
        fingerprint(one_weight),
        fingerprint(one_buffer),
        fingerprint(another_norm),
        fingerprint(seed=1),
        fingerprint(f_max=7600),
        fingerprint(win_length=20),
        fingerprint(n_mels=60),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    encoder = Encoder(*stock_modules())
    encoder(torch.randn(2, 16000))
    assert encoder.fingerprint() == fingerprints[0]
    # As in the results of earlier versions
    state = {"weight": torch.zeros(1)}
    assert weights_fingerprint(state)[:8] == "67ea5d3e"
