"""The sounds for augmentation, from each source."""

import contextlib
import csv
import functools
import http.server
import io
import pathlib
import threading
import time
import zipfile

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.augment.time_domain import AddNoise, AddReverb

from speechbrain_hyperbolic.dataio.noise import prepare_noise, prepare_rirs
from speechbrain_hyperbolic.errors import InputError
from tests.processes import start

REFUSED = "http://127.0.0.1:9/noises.zip"  # the discard port


def files(path):
    with open(path, newline="") as file:
        return [row["wav"] for row in csv.DictReader(file)]


def wav(path, seconds=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(scale=0.1, size=seconds * 16000)
    soundfile.write(path, samples, 16000)


def prepare(tmp_path, source, url=REFUSED):
    prepare_noise(
        source,
        url,
        tmp_path / "work",
        tmp_path / "noise.csv",
        tmp_path / "music.csv",
    )
    return files(tmp_path / "noise.csv"), files(tmp_path / "music.csv")


def test_generated_sounds_augment(tmp_path):
    """The stock modules take the files, and change the signal as asked."""
    noise, music = prepare(tmp_path, "generate")
    prepare_rirs("generate", REFUSED, tmp_path, tmp_path / "rir.csv")
    assert not set(noise) & set(music)
    speech = torch.randn(4, 32240)
    lengths = torch.ones(4)
    for kind in ("noise", "music"):
        add = AddNoise(tmp_path / f"{kind}.csv", snr_low=10, snr_high=10)
        noisy = add(speech, lengths)
        # The stock mix is convex: a * speech + (1 - a) * noise.
        share = (noisy * speech).sum(1) / speech.square().sum(1)
        rest = noisy - share.unsqueeze(1) * speech
        snr = share.square() * speech.square().sum(1) / rest.square().sum(1)
        assert (10 * snr.log10() - 10).abs().max() < 0.5
    wet = AddReverb(tmp_path / "rir.csv")(speech)
    assert wet.shape == speech.shape and wet.isfinite().all()
    assert (wet - speech).abs().mean() > 0.01


def test_generated_sounds_are_the_same_again(tmp_path):
    first, _ = prepare(tmp_path / "a", "generate")
    again, _ = prepare(tmp_path / "b", "generate")
    for one, two in zip(first, again, strict=True):
        with open(one, "rb") as a, open(two, "rb") as b:
            assert a.read() == b.read()
    levels = [np.abs(soundfile.read(f)[0]).max() for f in first]
    assert np.allclose(levels, 0.5, atol=1e-3)


def test_musan_folder(tmp_path):
    for kind in ("noise", "music", "speech"):
        wav(tmp_path / "musan" / kind / "x" / f"{kind}.wav")
    noise, music = prepare(tmp_path, tmp_path / "musan")
    assert [f.rsplit("/", 1)[1] for f in noise] == ["noise.wav"]
    assert [f.rsplit("/", 1)[1] for f in music] == ["music.wav"]


def test_any_other_folder_serves_both(tmp_path):
    wav(tmp_path / "mine" / "a.wav")
    noise, music = prepare(tmp_path, tmp_path / "mine")
    assert noise == music == [str(tmp_path / "mine" / "a.wav")]


def test_short_noise_is_repeated_and_short_rooms_are_not(tmp_path):
    wav(tmp_path / "mine" / "a.wav", seconds=3)
    (copy,), _ = prepare(tmp_path, tmp_path / "mine")
    samples, _ = soundfile.read(tmp_path / "mine" / "a.wav")
    repeated, _ = soundfile.read(copy)
    assert len(repeated) == 10 * 16000
    np.testing.assert_allclose(
        repeated, np.resize(samples, len(repeated)), atol=1e-4
    )
    rir = tmp_path / "rir.csv"
    prepare_rirs(tmp_path / "mine", REFUSED, tmp_path / "work", rir)
    assert files(rir) == [str(tmp_path / "mine" / "a.wav")]


def test_empty_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="holds no wav files"):
        prepare(tmp_path, tmp_path / "mine")


def test_refused_download_generates_and_says_so(tmp_path, caplog):
    noise, _ = prepare(tmp_path, "download")
    assert "generated" in noise[0]
    assert caplog.text.count(f"can't download {REFUSED}") == 1


def test_what_a_kill_leaves_of_a_generated_sound(tmp_path):
    """It is no sound, be it whole or not."""
    noise, _ = prepare(tmp_path, "generate")
    for name in (".000.wav.a_b.wav", ".001.wav.cd1.wav"):
        left = pathlib.Path(noise[0]).with_name(name)
        left.write_bytes(pathlib.Path(noise[1]).read_bytes()[: 10**5])
    (tmp_path / "noise.json").unlink()
    assert prepare(tmp_path, "generate")[0] == noise


@contextlib.contextmanager
def serving(handler):
    """The address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=[0.01]).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_work_folder_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "work").touch()
    noise, _ = prepare(tmp_path, "download")
    assert "generated" in noise[0] and "can't download" in caplog.text


def test_download(tmp_path):
    """The stock download, from a server on loopback."""
    wav(tmp_path / "a.wav")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.write(tmp_path / "a.wav", "a.wav")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "noises.zip").write_bytes(archive.getvalue())
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served"
    )
    with serving(handler) as url:
        missing = prepare(tmp_path / "x", "download", f"{url}/none.zip")
        (tmp_path / "served" / "cut.zip").write_bytes(archive.getvalue()[:500])
        cut = prepare(tmp_path / "x", "download", f"{url}/cut.zip")
        noise, music = prepare(tmp_path / "x", "download", f"{url}/noises.zip")
    assert "generated" in missing[0][0] and "generated" in cut[0][0]
    archived = tmp_path / "x" / "work" / "archive" / "a.wav"
    assert noise == music == [str(archived)]


def test_two_runs_download_once(tmp_path):
    """The second waits for the first."""
    wav(tmp_path / "a.wav")
    with zipfile.ZipFile(tmp_path / "noises.zip", "w") as file:
        file.write(tmp_path / "a.wav", "a.wav")
    asked = threading.Semaphore(0)

    class Slow(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.release()
            time.sleep(0.5)
            super().do_GET()

    with serving(functools.partial(Slow, directory=tmp_path)) as url:
        runs = [tmp_path / "run a", tmp_path / "run b"]
        arguments = [
            ("download", f"{url}/noises.zip", tmp_path / "work")
            + (run / "noise.csv", run / "music.csv")
            for run in runs
        ]
        other = start(prepare_noise, *arguments[0])
        asked.acquire()
        prepare_noise(*arguments[1])
        other.join()
    assert not asked.acquire(blocking=False)
    for run in runs:
        assert files(run / "noise.csv") == [
            str(tmp_path / "work/archive/a.wav")
        ]


def test_a_list_is_kept_for_its_source_only(tmp_path):
    path = tmp_path / "rir.csv"
    prepare_rirs("generate", REFUSED, tmp_path, path)
    first = path.stat().st_mtime_ns
    prepare_rirs("generate", REFUSED, tmp_path, path)
    assert path.stat().st_mtime_ns == first
    wav(tmp_path / "mine" / "a.wav")
    prepare_rirs(tmp_path / "mine", REFUSED, tmp_path, path)
    assert files(path) == [str(tmp_path / "mine" / "a.wav")]


def test_other_formats_and_long_files_are_copied(tmp_path):
    """Mono, 16 kHz, in pieces: what the stock AddNoise can use."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "mine"
    folder.mkdir()
    stereo = rng.normal(scale=0.1, size=(44100, 2))
    soundfile.write(folder / "stereo.wav", stereo, 44100)
    long = rng.normal(scale=0.1, size=25 * 16000)
    soundfile.write(folder / "long.wav", long, 16000, subtype="FLOAT")
    noise, _ = prepare(tmp_path, folder)
    assert len(noise) == 3
    for file in noise:
        header = soundfile.info(file)
        assert (header.samplerate, header.channels) == (16000, 1)
        assert header.duration <= 10
    pieces = [soundfile.read(f)[0] for f in noise if "/long_" in f]
    np.testing.assert_allclose(
        np.concatenate(pieces), long[: 20 * 16000], atol=1e-4
    )
    assert sorted(p.name for p in folder.iterdir()) == [
        "long.wav",
        "stereo.wav",
    ]
    batch = torch.randn(3, 32240)
    add = AddNoise(tmp_path / "noise.csv", snr_low=0, snr_high=15)
    assert add(batch, torch.ones(3)).shape == batch.shape
