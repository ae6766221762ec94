"""The sounds for augmentation, from each source."""

import json
import logging
import os
import zipfile

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic.dataio.noise import SoundBank
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_trials import serving

REFUSED = "http://127.0.0.1:9/noises.zip"  # the discard port
NOISE, RIR = "noise_source", "rir_source"


def write(path, samples, rate=16000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)


def random(count, seed=0):
    return np.random.default_rng(seed).normal(scale=0.1, size=count)


def make(folder, source, option=NOISE, url=REFUSED, rate=16000):
    bank = SoundBank(option, source, url, folder / "work", rate)
    bank.prepare()
    return bank


def number(bank, kind):
    return len(bank.spans[kind])


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("kind", ["noise", "music", "speech", "rir"])
def test_a_tone_keeps_its_frequency(tmp_path, rate, kind):
    for own in (8000, 16000, 44100, 48000):
        tone = np.sin(2 * np.pi * 1000 * np.arange(own) / own)
        write(tmp_path / "musan" / kind / f"{own}.flac", 0.3 * tone, own)
    option, name = (RIR, "reverb") if kind == "rir" else (NOISE, kind)
    bank = make(tmp_path, tmp_path / "musan", option, rate=rate)
    assert number(bank, name) == 4
    for which in (0, 0.25, 0.5, 0.75):
        spectrum = np.abs(np.fft.rfft(bank.sound(name, which)))
        assert len(bank.sound(name, which)) == pytest.approx(rate, abs=2)
        assert spectrum.argmax() == pytest.approx(1000, abs=1)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_generated_sounds(tmp_path, rate):
    """They differ, are the same each time, and are made only once."""
    bank = make(tmp_path, "generate", rate=rate)
    rooms = make(tmp_path, "generate", RIR, rate=rate)
    assert number(bank, "noise") == number(bank, "music") == 40
    assert number(rooms, "reverb") == 40
    written = bank.path.stat().st_mtime_ns
    assert len(np.unique(bank.samples[:: 10 * rate])) > 20
    assert bank.sound("music", 0.5).std() > 100
    first = bank.path.read_bytes()
    assert make(tmp_path, "generate", rate=rate).samples is not None
    assert bank.path.stat().st_mtime_ns == written
    bank.index.unlink()  # as after a kill
    assert make(tmp_path, "generate", rate=rate).path.read_bytes() == first


def test_folders(tmp_path):
    """MUSAN has a folder for each kind; another folder is for all."""
    for n, kind in enumerate(("noise", "music", "speech")):
        for count in range(n + 1):
            write(tmp_path / "musan" / kind / "x" / f"{count}.wav", random(99))
    bank = make(tmp_path, tmp_path)  # at any level
    kinds = "noise", "music", "speech"
    assert [number(bank, kind) for kind in kinds] == [1, 2, 3]
    bank = make(tmp_path, tmp_path / "musan" / "music")
    assert [number(bank, kind) for kind in kinds] == [2, 2, 0]
    assert bank.spans["noise"] == bank.spans["music"]
    assert len(bank.samples) == 2 * 99  # each is stored once
    write(tmp_path / "half" / "speech" / "a.wav", random(99))
    write(tmp_path / "half" / "other.wav", random(98))
    bank = make(tmp_path, tmp_path / "half")
    assert [len(bank.sound(kind, 0)) for kind in kinds] == [98, 98, 99]
    write(tmp_path / "half" / "new.wav", random(97))  # it is read again
    assert number(make(tmp_path, tmp_path / "half"), "noise") == 2
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "none"):
        with pytest.raises(InputError, match=f"{missing} has no audio files"):
            make(tmp_path, tmp_path / missing)


def test_what_is_read(tmp_path):
    """The samples of 16-bit files; of rooms the first channel, amplified."""
    samples = random(16000)
    write(tmp_path / "noise" / "a.wav", samples)
    both = np.stack([samples / 4, 3 * random(16000, seed=1)], 1)
    write(tmp_path / "rir" / "stereo.wav", both)
    write(tmp_path / "loud" / "a.wav", 20 * samples, subtype="FLOAT")
    bank = make(tmp_path, tmp_path / "noise")
    pcm, _ = soundfile.read(tmp_path / "noise" / "a.wav", dtype="int16")
    assert np.array_equal(bank.sound("noise", 0.9), pcm)
    room = make(tmp_path, tmp_path / "rir", RIR).sound("reverb", 0.1)
    pcm, _ = soundfile.read(tmp_path / "rir" / "stereo.wav", dtype="int16")
    assert np.abs(room.astype(int)).max() > 2**14
    assert np.array_equal(room, pcm[:, 0] * (room[0] // pcm[0, 0]))
    loud = make(tmp_path, tmp_path / "loud").sound("noise", 0)
    np.testing.assert_allclose(loud, samples * (loud[0] / samples[0]), atol=2)
    long = bank.sound("noise", 0)
    assert np.shares_memory(bank.crop("noise", 0, 0.5, 400), bank.samples)
    assert np.array_equal(bank.crop("noise", 0, 0.9999999, 400), long[-400:])
    repeated = bank.crop("noise", 0, 0.25, 40000)
    assert np.array_equal(repeated, np.resize(np.roll(long, -4000), 40000))


def test_damaged_files_are_counted_and_named(tmp_path, caplog):
    write(tmp_path / "mine" / "good.wav", random(1600))
    write(tmp_path / "mine" / "silent.wav", np.zeros(1600))
    write(tmp_path / "mine" / "cut.wav", random(1600))
    whole = (tmp_path / "mine" / "cut.wav").read_bytes()
    (tmp_path / "mine" / "cut.wav").write_bytes(whole[:2000])
    (tmp_path / "mine" / "README").write_text("Not a sound.")
    (tmp_path / "mine" / ".hidden.wav").write_bytes(whole[:100])
    os.mkfifo(tmp_path / "mine" / "pipe.wav")
    with caplog.at_level(logging.WARNING):
        bank = make(tmp_path, tmp_path / "mine")
    assert number(bank, "noise") == 1
    assert "3 of 4 files" in caplog.text and str(bank.index) in caplog.text
    named = " ".join(json.loads(bank.index.read_text())["left_out"])
    for name in ("silent.wav is silent", "cut.wav", "README"):
        assert name in named


def test_a_failed_download_names_the_option_for_generated_sounds(
    tmp_path, capsys
):
    """Nothing is generated instead, and the next run downloads."""
    served = tmp_path / "served"
    write(served / "a.wav", random(1600))
    with zipfile.ZipFile(served / "noises.zip", "w") as file:
        file.write(served / "a.wav", "a.wav")
    whole = (served / "noises.zip").read_bytes()
    (served / "cut.zip").write_bytes(whole[:500])
    with serving(served) as address:
        for url in (REFUSED, f"{address}/none.zip", f"{address}/cut.zip"):
            for option in (NOISE, RIR):
                with pytest.raises(InputError, match="download") as caught:
                    make(tmp_path, "download", option, url)
                assert url in str(caught.value)
                assert f"--{option}=generate" in str(caught.value)
            assert not list((tmp_path / "work").glob("*.int16"))
        capsys.readouterr()
        url = f"{address}/noises.zip"
        for rate in (16000, 16000, 8000):
            bank = make(tmp_path, "download", url=url, rate=rate)
            assert len(bank.sound("noise", 0)) == rate // 10
        assert capsys.readouterr().err.count("GET ") == 1
