"""The sounds for augmentation, from each source."""

import csv
import pathlib
import zipfile

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.augment.time_domain import AddNoise, AddReverb

from speechbrain_hyperbolic.dataio.noise import prepare_noise, prepare_rirs
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_trials import serving

REFUSED = "http://127.0.0.1:9/noises.zip"  # the discard port


def files(path):
    with open(path, newline="") as file:
        return [row["wav"] for row in csv.DictReader(file)]


def wav(path, seconds=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(scale=0.1, size=seconds * 16000)
    soundfile.write(path, samples, 16000)


def prepare(tmp_path, source, url=REFUSED):
    tables = tmp_path / "noise.csv", tmp_path / "music.csv"
    prepare_noise(source, url, tmp_path / "work", *tables)
    return map(files, tables)


def test_generated_sounds_augment(tmp_path):
    """The stock modules take the files, and change the signal."""
    noise, music = prepare(tmp_path, "generate")
    prepare_rirs("generate", REFUSED, tmp_path, tmp_path / "rir.csv")
    assert not set(noise) & set(music)
    speech, lengths = torch.randn(4, 32240), torch.ones(4)
    for changed in (
        AddNoise(tmp_path / "noise.csv")(speech, lengths),
        AddNoise(tmp_path / "music.csv")(speech, lengths),
        AddReverb(tmp_path / "rir.csv")(speech),
    ):
        assert changed.shape == speech.shape and changed.isfinite().all()
        assert ((changed - speech).abs().mean(1) > 0.01).all()


def test_generated_sounds_are_kept_or_made_the_same_again(tmp_path):
    """A hidden partial file of a killed process is ignored."""
    table = tmp_path / "rir.csv"
    prepare_rirs("generate", REFUSED, tmp_path, table)
    first, written = files(table), table.stat().st_mtime_ns
    content = [pathlib.Path(file).read_bytes() for file in first]
    prepare_rirs("generate", REFUSED, tmp_path, table)
    assert table.stat().st_mtime_ns == written
    left = pathlib.Path(first[0]).with_name(".000.wav.a_b.wav")
    left.write_bytes(content[1][:1000])
    table.with_suffix(".json").unlink()
    prepare_rirs("generate", REFUSED, tmp_path, table)
    assert files(table) == first and len(first) == 40
    assert [pathlib.Path(file).read_bytes() for file in first] == content


def test_folders(tmp_path):
    """MUSAN has a folder for each file; another folder is for all."""
    kinds = "noise", "music", "speech"
    sounds = [tmp_path / "musan" / kind / "x" / f"{kind}.wav" for kind in kinds]
    tables = [tmp_path / f"{kind}.csv" for kind in kinds]
    for sound in sounds:
        wav(sound)
    prepare_noise(str(tmp_path / "musan"), "", tmp_path / "work", *tables)
    assert [files(table) for table in tables] == [[str(s)] for s in sounds]
    noise = str(tmp_path / "musan" / "noise")
    prepare_noise(noise, "", tmp_path / "work", *tables)
    assert not tables[2].exists()
    wav(tmp_path / "mine" / "a.wav")
    noise, music = prepare(tmp_path, tmp_path / "mine")
    assert noise == music == [str(tmp_path / "mine" / "a.wav")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no wav files"):
        prepare(tmp_path, tmp_path / "empty")


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


def test_other_formats_and_long_files_are_copied(tmp_path):
    """One channel, 16 kHz, in pieces: what the stock AddNoise can use."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "mine"
    folder.mkdir()
    both = np.stack([np.zeros(44100), rng.normal(scale=0.1, size=44100)], 1)
    soundfile.write(folder / "stereo.wav", both, 44100)
    long = rng.normal(scale=0.1, size=25 * 16000)
    soundfile.write(folder / "long.wav", long, 16000, subtype="FLOAT")
    noise, _ = prepare(tmp_path, folder)
    assert len(noise) == 3
    for file in noise:
        header = soundfile.info(file)
        assert (header.samplerate, header.channels) == (16000, 1)
        assert header.duration <= 10
    (stereo,) = [soundfile.read(f)[0] for f in noise if "/stereo_" in f]
    assert not stereo.any()  # the first channel, not the mean
    pieces = [soundfile.read(f)[0] for f in noise if "/long_" in f]
    np.testing.assert_allclose(
        np.concatenate(pieces), long[: 20 * 16000], atol=1e-4
    )
    assert {p.name for p in folder.iterdir()} == {"long.wav", "stereo.wav"}


def test_a_failed_download_names_the_option_for_generated_sounds(tmp_path):
    """Nothing is generated instead, and the next run downloads."""
    served, requests = tmp_path / "served", []
    wav(served / "a.wav")
    with zipfile.ZipFile(served / "noises.zip", "w") as file:
        file.write(served / "a.wav", "a.wav")
    whole = (served / "noises.zip").read_bytes()
    (served / "cut.zip").write_bytes(whole[:500])
    with serving(served, requests) as address:
        for url in (REFUSED, f"{address}/none.zip", f"{address}/cut.zip"):
            with pytest.raises(InputError, match="download") as caught:
                prepare(tmp_path, "download", url)
            assert url in str(caught.value)
            assert "--noise_source=generate" in str(caught.value)
            with pytest.raises(InputError, match="--rir_source=generate"):
                rirs = tmp_path / "rir.csv"
                prepare_rirs("download", url, tmp_path / "work", rirs)
            assert not list(tmp_path.glob("*.csv"))
            assert not list(tmp_path.glob("*.json"))
        requests.clear()
        noise, music = prepare(tmp_path, "download", f"{address}/noises.zip")
        assert len(requests) == 1
    assert noise == music == [str(tmp_path / "work" / "archive" / "a.wav")]
