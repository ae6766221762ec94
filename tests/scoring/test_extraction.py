"""Batches against a loop, and a cache that is killed, changed and damaged."""

import concurrent.futures
import multiprocessing
import pathlib
import random
import signal
import time

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.scoring import cache as cache_module
from speechbrain_hyperbolic.scoring.extraction import Encoder, extract
from tests.dataio.test_audio import write

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


def make(folder, lengths=LENGTHS, rate=16000, extension=".wav"):
    """Noise, in a colour of its own each."""
    generator = np.random.default_rng(0)
    paths = {}
    for number, seconds in enumerate(lengths):
        noise = generator.uniform(-0.3, 0.3, round(seconds * rate))
        smooth = np.convolve(noise, np.ones(number + 1) / (number + 1), "same")
        path = folder / f"{number}{extension}"
        paths[f"spk/{number}"] = write(path, smooth.astype(np.float32), rate)
    return paths


@torch.no_grad()
def one_by_one(modules, waveforms):
    compute_features, mean_var_norm, embedding_model = (
        module.eval() for module in modules
    )
    return torch.stack(
        [
            embedding_model(
                mean_var_norm(compute_features(w[None]), torch.ones(1))
            )[0, 0]
            for w in waveforms
        ]
    )


def assert_same(one, other):
    """To the last bit."""
    assert one.utterances == other.utterances
    assert torch.equal(one.views, other.views)
    assert one.durations.tolist() == other.durations.tolist()


@pytest.mark.parametrize("batch_seconds", [0.1, 3, 60])
def test_equals_one_by_one(tmp_path, batch_seconds):
    paths = make(tmp_path)
    found = extract(
        Encoder(*stock_modules()), paths, batch_seconds=batch_seconds
    )
    waveforms = [audio.load(path) for path in paths.values()]
    waveforms[4] = torch.cat([waveforms[4]] * 2)  # 0.05 s up to 0.1 s
    expected = one_by_one(stock_modules(), waveforms)
    assert found.utterances == list(paths)
    assert found.views.dtype is torch.float32
    torch.testing.assert_close(
        found.views, expected[:, None], rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(found.durations, LENGTHS)


def test_batches(tmp_path):
    """Of one length, and none beyond the cap unless it is one utterance."""
    encoder = counting()
    paths = make(tmp_path)
    extract(encoder, paths, batch_seconds=2.5)
    assert sum(rows for rows, _ in encoder.batches) == len(paths)
    assert (2, 16000) in encoder.batches
    extract(encoder, paths, batch_seconds=2.5, n_crops=2, crop_length=0.6)
    assert (4, 9600) in encoder.batches  # the crops of two utterances
    assert all(r == 1 or r * n <= 40000 for r, n in encoder.batches)


def test_crops(tmp_path):
    paths = make(tmp_path)
    crop = 11200  # 0.7 s
    encoder = counting()
    found = extract(encoder, paths, n_crops=5, crop_length=0.7)
    assert found.views.shape == (len(paths), 6, 8)
    # One batch of all crops, below the cap of a minute
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
    torch.testing.assert_close(found.views[:, 1:], expected, rtol=0, atol=1e-5)
    whole = extract(Encoder(*stock_modules()), paths).views
    torch.testing.assert_close(found.views[:, :1], whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extension", [".flac", ".m4a"])
def test_other_formats_and_rates(tmp_path, extension):
    """The header of an m4a doesn't tell its exact length."""
    paths = make(tmp_path, [1.0, 0.5, 1.0, 0.9, 0.51], 22050, extension)
    found = extract(Encoder(*stock_modules()), paths)
    waveforms = [audio.load(path) for path in paths.values()]
    torch.testing.assert_close(
        found.views[:, 0],
        one_by_one(stock_modules(), waveforms),
        rtol=0,
        atol=1e-5,
    )
    assert found.durations.tolist() == [len(w) / 16000 for w in waveforms]


def test_order_does_not_matter(tmp_path):
    paths = make(tmp_path)
    shuffled = list(paths.items())
    random.Random(0).shuffle(shuffled)
    encoder = Encoder(*stock_modules())
    found = extract(encoder, paths, n_crops=2, crop_length=0.5)
    other = extract(encoder, dict(shuffled), n_crops=2, crop_length=0.5)
    assert other.utterances == [utterance for utterance, _ in shuffled]
    rows = [other.utterances.index(u) for u in found.utterances]
    torch.testing.assert_close(
        found.views, other.views[rows], rtol=0, atol=1e-5
    )


def test_reading_ahead_is_bounded(tmp_path, monkeypatch):
    """Three batches at most are held."""
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
    assert again.batches == []
    assert "10 of 10 embeddings are in the cache" in caplog.text

    # A list with other ids, in another order
    some = {"x": paths["spk/3"], "y": paths["spk/1"], "z": paths["spk/3"]}
    found = extract(again, some, **settings)
    assert torch.equal(found.views, first.views[[3, 1, 3]])
    assert found.durations.tolist() == [1.04, 0.5, 1.04]
    assert again.batches == []


def test_changed_audio_is_embedded_again(tmp_path):
    paths = make(tmp_path)
    extract(counting(), paths, cache_folder=tmp_path / "cache")
    samples = np.random.default_rng(1).uniform(-0.3, 0.3, 16000)
    write(paths["spk/2"], samples, 16000)  # of the same size
    encoder = counting()
    found = extract(encoder, paths, cache_folder=tmp_path / "cache")
    assert encoder.batches == [(1, 16000)]
    expected = one_by_one(stock_modules(), [audio.load(paths["spk/2"])])
    torch.testing.assert_close(found.views[2], expected, rtol=0, atol=1e-5)


def test_another_model_is_not_used_and_said(tmp_path, caplog):
    caplog.set_level("INFO")
    paths = make(tmp_path)
    cache_folder = tmp_path / "cache"
    extract(counting(seed=0), paths, cache_folder=cache_folder)
    assert "another model" not in caplog.text
    other = counting(seed=1)
    found = extract(other, paths, cache_folder=cache_folder)
    assert_same(found, extract(counting(seed=1), paths))
    assert sum(rows for rows, _ in other.batches) == len(paths)
    assert f"cache_folder {cache_folder} holds embeddings of ano" in caplog.text


@pytest.mark.parametrize(
    "change", [{"n_crops": 3}, {"n_crops": 0}, {"crop_length": 0.4}]
)
def test_other_crops_are_not_used(tmp_path, change):
    paths = make(tmp_path, [0.5, 0.6])
    settings = {"n_crops": 2, "crop_length": 0.5}
    extract(counting(), paths, cache_folder=tmp_path / "cache", **settings)
    encoder = counting()
    settings |= change
    found = extract(encoder, paths, cache_folder=tmp_path / "cache", **settings)
    assert encoder.batches
    assert_same(found, extract(counting(), paths, **settings))


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


def test_resumes_after_a_kill(tmp_path, caplog):
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

    encoder = counting()
    resumed = extract(
        encoder, paths, batch_seconds=0.1, cache_folder=cache_folder
    )
    assert "4 of 10 embeddings are in the cache" in caplog.text
    assert len(encoder.batches) == 6
    whole = extract(counting(), paths, batch_seconds=0.1)
    torch.testing.assert_close(resumed.views, whole.views, rtol=0, atol=1e-5)
    assert resumed.durations.tolist() == whole.durations.tolist()


def test_a_damaged_shard_is_embedded_again(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(cache_module, "SECONDS_PER_SHARD", 0)
    paths, cache_folder = make(tmp_path), tmp_path / "cache"
    settings = {"batch_seconds": 0.1, "cache_folder": cache_folder}
    first = extract(counting(), paths, **settings)
    shard = sorted(cache_folder.glob("*/shard-*"))[3]
    shard.write_bytes(shard.read_bytes()[:-100])
    encoder = counting()
    assert_same(extract(encoder, paths, **settings), first)
    assert len(encoder.batches) == 1
    assert f"{shard} is damaged" in caplog.text


def test_a_broken_file_is_named_and_the_rest_is_kept(tmp_path):
    paths, cache_folder = make(tmp_path), tmp_path / "cache"
    whole = paths["spk/7"].read_bytes()
    paths["spk/7"].write_bytes(whole[: len(whole) // 2])
    settings = {"batch_seconds": 0.1, "cache_folder": cache_folder}
    encoder = counting()
    with pytest.raises(InputError, match=f"{paths['spk/7']} is truncated"):
        extract(encoder, paths, **settings)
    assert encoder.batches
    n_before = len(encoder.batches)
    paths["spk/7"].write_bytes(whole)
    extract(encoder, paths, **settings)
    assert len(encoder.batches) == len(paths)
    assert n_before < len(paths)


@pytest.mark.parametrize("cached", [True, False])
def test_a_missing_file_is_named(tmp_path, cached):
    paths = make(tmp_path, [0.5, 0.5])
    paths["spk/1"].unlink()
    encoder = counting()
    with pytest.raises(InputError, match=str(paths["spk/1"])):
        extract(
            encoder, paths, cache_folder=tmp_path / "cache" if cached else None
        )
    assert encoder.batches == []


def test_an_embedding_that_is_not_finite(tmp_path):
    """It is refused, and not kept."""
    paths, cache_folder = make(tmp_path), tmp_path / "cache"

    class Diverged(torch.nn.Module):
        """NaN for the three utterances of 1.0 s."""

        def __init__(self):
            super().__init__()
            self.broken = True

        def forward(self, features, lengths):
            mean = features.std(1, keepdim=True)
            if self.broken and features.shape[1] == 101:
                mean[-1] = torch.nan
            return mean

    model = Diverged()
    encoder = Encoder(*stock_modules()[:2], model)
    settings = {"batch_seconds": 3.0, "cache_folder": cache_folder}
    with pytest.raises(InputError, match="spk/6 is not finite .1 of 3 "):
        extract(encoder, paths, **settings)
    shards = list(cache_folder.glob("*/shard-*"))
    assert shards  # the longer utterances, before it
    for shard in shards:
        with np.load(shard) as file:
            assert file["views"].shape[0] == 3
            assert np.isfinite(file["views"]).all()


def test_what_makes_no_sense_is_refused(tmp_path):
    paths = make(tmp_path, [0.5])
    encoder = counting()
    with pytest.raises(InputError, match="no utterances"):
        extract(encoder, {})
    with pytest.raises(InputError, match="n_crops is -1"):
        extract(encoder, paths, n_crops=-1)
    with pytest.raises(InputError, match="crop_length is 0.01"):
        extract(encoder, paths, n_crops=5, crop_length=0.01)


def fingerprint_of_files(folder):
    modules = stock_modules(seed=7)
    for number, module in enumerate(modules):
        path = pathlib.Path(folder) / f"{number}.ckpt"
        module.load_state_dict(torch.load(path, weights_only=True))
    return Encoder(*modules).fingerprint()


def test_fingerprint_is_stable(tmp_path):
    modules = stock_modules()
    encoder = Encoder(*modules)
    first = encoder.fingerprint()
    encoder(torch.randn(2, 16000))
    assert encoder.fingerprint() == first
    for number, module in enumerate(modules):
        torch.save(module.state_dict(), tmp_path / f"{number}.ckpt")
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        assert pool.submit(fingerprint_of_files, tmp_path).result() == first


def test_fingerprint_tells_models_apart():
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
    assert fingerprint() == fingerprints[0]
