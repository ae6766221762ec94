"""The sounds for augmentation, from each source."""

import csv
import pathlib
import threading
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
    """What a kill has left of a sound is none of them."""
    table = tmp_path / "rir.csv"
    prepare_rirs("generate", REFUSED, tmp_path, table)
    first = files(table)
    content = [pathlib.Path(file).read_bytes() for file in first]
    left = pathlib.Path(first[0]).with_name(".000.wav.a_b.wav")
    left.write_bytes(content[1][:1000])
    table.with_suffix(".json").unlink()
    prepare_rirs("generate", REFUSED, tmp_path, table)
    assert files(table) == first and len(first) == 40
    assert [pathlib.Path(file).read_bytes() for file in first] == content
    levels = [np.abs(soundfile.read(f)[0]).max() for f in first]
    assert np.allclose(levels, 0.5, atol=1e-3)


def test_folders(tmp_path):
    """Each folder of MUSAN serves its file; another folder serves all."""
    for kind in ("noise", "music", "speech"):
        wav(tmp_path / "musan" / kind / "x" / f"{kind}.wav")
    noise, music = prepare(tmp_path, tmp_path / "musan")
    assert [f.rsplit("/", 1)[1] for f in noise] == ["noise.wav"]
    assert [f.rsplit("/", 1)[1] for f in music] == ["music.wav"]
    wav(tmp_path / "mine" / "a.wav")
    noise, music = prepare(tmp_path, tmp_path / "mine")
    assert noise == music == [str(tmp_path / "mine" / "a.wav")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no wav files"):
        prepare(tmp_path, tmp_path / "empty")


def test_speech_for_babble_is_listed_where_there_is_any(tmp_path):
    for kind in ("noise", "music", "speech"):
        wav(tmp_path / "musan" / kind / f"{kind}.wav")
    tables = [tmp_path / f"{k}.csv" for k in ("noise", "music", "speech")]
    prepare_noise(str(tmp_path / "musan"), "", tmp_path / "work", *tables)
    assert files(tables[2]) == [str(tmp_path / "musan/speech/speech.wav")]
    noise = str(tmp_path / "musan" / "noise")
    prepare_noise(noise, "", tmp_path / "work", *tables)
    assert not tables[2].exists()


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
    assert sorted(p.name for p in folder.iterdir()) == [
        "long.wav",
        "stereo.wav",
    ]
    batch = torch.randn(3, 32240)
    add = AddNoise(tmp_path / "noise.csv", snr_low=0, snr_high=15)
    assert add(batch, torch.ones(3)).shape == batch.shape


def test_a_list_is_kept_for_its_source_only(tmp_path):
    path = tmp_path / "rir.csv"
    prepare_rirs("generate", REFUSED, tmp_path, path)
    first = path.stat().st_mtime_ns
    prepare_rirs("generate", REFUSED, tmp_path, path)
    assert path.stat().st_mtime_ns == first
    wav(tmp_path / "mine" / "a.wav")
    prepare_rirs(tmp_path / "mine", REFUSED, tmp_path, path)
    assert files(path) == [str(tmp_path / "mine" / "a.wav")]


# ---------------------------------------------------------------- download


@pytest.fixture
def served(tmp_path):
    """A folder with the archive noises.zip of one sound."""
    folder = tmp_path / "served"
    wav(tmp_path / "a.wav")
    folder.mkdir()
    with zipfile.ZipFile(folder / "noises.zip", "w") as file:
        file.write(tmp_path / "a.wav", "a.wav")
    return folder


def test_download(tmp_path, served):
    """Once, by two runs at the same time."""
    requests = []

    def log(address):
        prepare_noise(
            "download",
            f"{address}/noises.zip",
            tmp_path / "work",
            tmp_path / f"{threading.get_ident()}" / "noise.csv",
            tmp_path / f"{threading.get_ident()}" / "music.csv",
        )

    with serving(served, requests) as address:
        runs = [threading.Thread(target=log, args=[address]) for _ in range(2)]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
    assert len(requests) == 1
    tables = list(tmp_path.glob("*/noise.csv")) + list(
        tmp_path.glob("*/music.csv")
    )
    assert len(tables) == 4
    for table in tables:
        assert files(table) == [str(tmp_path / "work" / "archive" / "a.wav")]


def test_a_failed_download_names_the_option_for_generated_sounds(
    tmp_path, served
):
    """Nothing is generated instead, and the next run downloads."""
    whole = (served / "noises.zip").read_bytes()
    (served / "cut.zip").write_bytes(whole[:500])
    (tmp_path / "file").touch()
    with serving(served) as address:
        for url, work in (
            (REFUSED, "work"),
            (f"{address}/none.zip", "work"),
            (f"{address}/cut.zip", "work"),
            (f"{address}/noises.zip", "file"),
        ):
            tables = tmp_path / "noise.csv", tmp_path / "music.csv"
            with pytest.raises(InputError, match="download") as caught:
                prepare_noise("download", url, tmp_path / work, *tables)
            assert url in str(caught.value)
            assert "--noise_source=generate" in str(caught.value)
            with pytest.raises(InputError, match="--rir_source=generate"):
                prepare_rirs("download", url, tmp_path / work, tables[0])
            assert not any(path.exists() for path in tables)
            assert not list(tmp_path.glob("*.json"))
        noise, music = prepare(tmp_path, "download", f"{address}/noises.zip")
    assert noise == music == [str(tmp_path / "work" / "archive" / "a.wav")]


def test_generated_sounds_of_the_first_version_are_no_download(
    tmp_path, served
):
    """It stamped them as the download where that had failed."""
    (tmp_path / "noise.csv").write_text("ID,duration,wav,wav_format,wav_opts\n")
    with serving(served) as address:
        url = f"{address}/noises.zip"
        (tmp_path / "noise.json").write_text(f'["download", "{url}"]')
        noise, _ = prepare(tmp_path, "download", url)
    assert noise == [str(tmp_path / "work" / "archive" / "a.wav")]
