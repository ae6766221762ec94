"""Reading audio of every kind, and refusing what is none."""

import contextlib
import io
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError


def tone(seconds=1.0, rate=16000, frequency=440.0):
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * frequency * time).astype(np.float32)


def write(path, samples, rate):
    """Any format; m4a (AAC) by PyAV, as VoxCeleb2 is released."""
    if path.suffix.lower() != ".m4a":
        soundfile.write(path, samples, rate)
        return path
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            samples[None], format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


EXTENSIONS = [".wav", ".flac", ".ogg", ".m4a"]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format_gives_the_signal(tmp_path, extension):
    path = write(tmp_path / f"a{extension}", tone(2.0), 16000)
    header = audio.info(path)
    assert header.sample_rate == 16000
    # AAC pads to whole frames of 1024 samples, one of them before the start.
    slack = 2048 if extension == ".m4a" else 0
    assert abs(header.frames - 32000) <= slack
    waveform = audio.load(path, 16000)
    assert waveform.dtype is torch.float32
    assert abs(len(waveform) - header.frames) <= slack
    spectrum = torch.fft.rfft(waveform[8000:24000]).abs()
    assert spectrum.argmax() == 440  # 1 s: one bin is 1 Hz


def test_wav_is_read_exactly(tmp_path):
    samples = tone()
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    torch.testing.assert_close(
        audio.load(path), torch.from_numpy(samples), rtol=0, atol=0
    )


def test_stereo_is_mixed_down(tmp_path):
    left, right = tone(frequency=440), tone(frequency=1000)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([left, right], 1), 16000, subtype="FLOAT")
    torch.testing.assert_close(
        audio.load(path), torch.from_numpy((left + right) / 2)
    )


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    path = write(tmp_path / "a.wav", tone(2.0, rate), rate)
    waveform = audio.load(path, 16000)
    assert len(waveform) == 32000
    expected = torch.from_numpy(tone(2.0))
    middle = slice(4000, -4000)
    assert (waveform - expected)[middle].abs().max() < 0.01


@pytest.mark.parametrize("extension", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_crop_is_a_part_of_the_whole(tmp_path, extension, rate):
    path = write(tmp_path / f"a{extension}", tone(3.0, rate), rate)
    whole = audio.load(path, 16000)
    crop = audio.load(path, 16000, start=16000, stop=32000)
    assert len(crop) == 16000
    middle = slice(2000, -2000)  # resampling sees no context at the ends
    difference = (crop - whole[16000:32000])[middle].abs().max()
    assert difference < (1e-6 if rate == 16000 else 0.02)


def test_crop_of_m4a(tmp_path):
    path = write(tmp_path / "a.m4a", tone(3.0), 16000)
    whole = audio.load(path, 16000)
    crop = audio.load(path, 16000, start=1000, stop=2000)
    torch.testing.assert_close(crop, whole[1000:2000])


def test_repeat_to_is_a_wrap():
    wave = torch.arange(5)
    for samples in (1, 5, 7, 23):
        expected = np.pad(wave.numpy(), (0, 30), mode="wrap")[:samples]
        np.testing.assert_array_equal(
            audio.repeat_to(wave, samples).numpy(), expected
        )


@pytest.mark.parametrize("reader", [audio.info, audio.load])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_is_not_audio_is_named(tmp_path, reader, extension):
    missing = tmp_path / f"missing{extension}"
    empty = tmp_path / f"empty{extension}"
    empty.touch()
    text = tmp_path / f"text{extension}"
    text.write_text("this is no audio " * 100)
    folder = tmp_path / f"folder{extension}"
    folder.mkdir()
    for path in (missing, empty, text, folder):
        with pytest.raises(InputError, match=str(path)) as caught:
            reader(path)
        assert "\n" not in str(caught.value)


def pcm(samples, name=b"", content=b""):
    """A wav file of 16 bits, with one more chunk between fmt and data."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="PCM_16")
    plain = file.getvalue()
    chunk = name and struct.pack("<4sI", name, len(content)) + content
    return plain[:36] + chunk + plain[36:]


def info_of_both(path):
    """The header by libsndfile and by this package; None if it's refused."""
    theirs = ours = None
    with contextlib.suppress(soundfile.SoundFileError):
        header = soundfile.info(str(path))
        low, high = audio.SAMPLE_RATES
        if header.frames and low <= header.samplerate <= high:
            theirs = header.samplerate, header.frames, header.channels
    with contextlib.suppress(InputError):
        ours = tuple(audio.info(path))
    return theirs, ours


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("shape", [(999,), (999, 2), (999, 6), (0,), (70000,)])
def test_wav_headers_are_those_of_libsndfile(tmp_path, subtype, shape):
    path = tmp_path / "a.wav"
    for form in ("WAV", "WAVEX", "RF64"):
        soundfile.write(path, np.zeros(shape), 8000, subtype, format=form)
        theirs, ours = info_of_both(path)
        assert ours == theirs
        assert (ours is None) == (len(np.zeros(shape)) == 0)


def test_other_chunks_of_a_wav_file(tmp_path):
    path = tmp_path / "a.wav"
    written = b"INFOISFT\x0e\0\0\0Lavf58.76.100\0"  # what ffmpeg writes
    for name, content in (
        (b"LIST", written),
        (b"LIST", b"INFOICMT\x2c\1\0\0" + 300 * b"a"),
        (b"JUNK", bytes(28)),
        (b"fact", bytes(4)),
    ):
        path.write_bytes(pcm(tone(), name, content))
        assert info_of_both(path) == 2 * ((16000, 16000, 1),)
        path.write_bytes(path.read_bytes() + b"LIST\4\0\0\0abcd")
        assert info_of_both(path) == 2 * ((16000, 16000, 1),)


def test_damaged_wav_headers(tmp_path):
    """Wrong bytes and missing ends: libsndfile says what is in the file."""
    path = tmp_path / "a.wav"
    random = np.random.default_rng(0)
    plain = pcm(tone(0.01))
    for _ in range(1000):
        damaged = bytearray(plain[: random.choice([len(plain), 200, 60])])
        for place in random.integers(0, 44, random.integers(1, 4)):
            damaged[place] = random.choice([0, 1, 2, 16, 32, 64, 128, 255])
        path.write_bytes(damaged)
        theirs, ours = info_of_both(path)
        assert ours == theirs, bytes(damaged[:44])
    for length in range(len(plain)):
        path.write_bytes(plain[:length])
        theirs, ours = info_of_both(path)
        assert ours == theirs, length


def test_no_samples(tmp_path):
    path = write(tmp_path / "a.wav", tone()[:0], 16000)
    with pytest.raises(InputError, match="has no samples"):
        audio.info(path)


def test_start_beyond_the_end(tmp_path):
    path = write(tmp_path / "a.wav", tone(), 16000)
    with pytest.raises(InputError, match="a.wav"):
        audio.load(path, 16000, start=32000, stop=33000)


def test_nan_samples(tmp_path):
    samples = tone()
    samples[5] = np.nan
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN"):
        audio.load(path)


@pytest.mark.parametrize("rate", [8000, 22050, 22051, 44101])
def test_any_rate(tmp_path, rate):
    """A tone stays that tone."""
    seconds = np.arange(2 * rate) / rate
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * seconds), rate)
    waveform = audio.load(path).numpy()
    assert abs(len(waveform) - 32000) <= 1
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(waveform)) / 16000)
    np.testing.assert_allclose(
        waveform[200:-200], expected[200:-200], atol=1e-3
    )


def test_rates_without_a_common_factor_take_little_memory(tmp_path):
    """torchaudio's kernel would have 12 GB."""
    path = write(tmp_path / "a.wav", tone(), 44101)
    script = f"""
import resource
from speechbrain_hyperbolic.dataio import audio
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
audio.load({str(path)!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert int(done.stdout.split()[-1]) < 300_000  # kilobytes


@pytest.mark.parametrize("rate", [10, 900_000])
def test_rates_that_are_none_of_audio(tmp_path, rate):
    path = tmp_path / "a.wav"
    path.write_bytes(
        pcm(tone())
        .replace((16000).to_bytes(4, "little"), rate.to_bytes(4, "little"))
        .replace(
            (32000).to_bytes(4, "little"), (2 * rate).to_bytes(4, "little")
        )
    )
    for read in (audio.info, audio.load):
        with pytest.raises(InputError, match=f"sample rate of {rate}, expec"):
            read(path)


def test_m4a_that_is_longer_than_its_header_says(tmp_path):
    """Limits of duration go by the header."""
    path = write(tmp_path / "a.m4a", tone(3.0), 16000)
    data = path.read_bytes()
    at = data.index(b"mdhd") + 4
    scale, duration = struct.unpack(">II", data[at + 12 : at + 20])
    assert duration == pytest.approx(3 * scale, rel=0.1)
    path.write_bytes(
        data[: at + 16] + struct.pack(">I", scale) + data[at + 20 :]
    )
    assert audio.info(path).frames == 16000
    with pytest.raises(InputError, match="longer than its header says"):
        audio.load(path)
