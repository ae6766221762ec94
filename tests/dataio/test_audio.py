"""Reading audio of every kind, and refusing what can't be used."""

import contextlib
import io
import os
import re

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio import audio, windows
from speechbrain_hyperbolic.errors import InputError


def tone(seconds=1.0, rate=16000, frequency=440.0):
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * frequency * time).astype(np.float32)


def noise(seconds=1.0, rate=16000):
    generator = np.random.default_rng(0)
    samples = generator.normal(scale=0.1, size=round(seconds * rate))
    return samples.astype(np.float32)


def write(path, samples, rate, **options):
    """Any format; m4a (AAC) by PyAV, as VoxCeleb2 is released."""
    if path.suffix.lower() != ".m4a":
        soundfile.write(path, samples, rate)
        return path
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


EXTENSIONS = [".wav", ".flac", ".ogg", ".m4a"]
ANY = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_wav_is_read_exactly_and_channels_are_averaged(tmp_path):
    both = np.stack([tone(frequency=440), tone(frequency=1000)], 1)
    path = tmp_path / "a.wav"
    soundfile.write(path, both[:, 0], 16000, subtype="FLOAT")
    assert torch.equal(audio.load(path), torch.from_numpy(both[:, 0]))
    soundfile.write(path, both, 16000, subtype="FLOAT")
    torch.testing.assert_close(audio.load(path), torch.from_numpy(both).mean(1))


@pytest.mark.parametrize("rate", [8000, 22050, 44101, 48000])
def test_any_rate_is_resampled(tmp_path, rate):
    path = write(tmp_path / "a.wav", tone(2.0, rate), rate)
    waveform = audio.load(path, 16000)
    assert abs(len(waveform) - 32000) <= 1
    middle = slice(200, 31800)
    expected = torch.from_numpy(tone(2.0))
    assert (waveform[middle] - expected[middle]).abs().max() < 1e-3


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_every_format_gives_the_signal_and_its_crops(tmp_path, extension, rate):
    """Also where a crop is found by seeking, and in a file object."""
    path = write(tmp_path / f"a{extension}", tone(3.0, rate), rate)
    header = audio.info(path)
    assert header.sample_rate == rate and header.channels == 1
    # AAC pads to whole frames of 1024 samples, one of them before the start.
    assert abs(header.frames - 3 * rate) <= 2048 * (extension == ".m4a")
    whole = audio.load(path, 16000)
    assert whole.dtype is torch.float32
    assert torch.fft.rfft(whole[8000:24000]).abs().argmax() == 440  # Hz
    crop = audio.load(path, 16000, start=20000, stop=36000)
    assert len(crop) == 16000
    middle = slice(2000, -2000)  # resampling sees no context at the ends
    difference = (crop - whole[20000:36000])[middle].abs().max()
    assert difference < (1e-6 if rate == 16000 else 0.02)
    file = io.BytesIO(path.read_bytes())
    name = f"shard.tar/1{extension}"
    assert torch.equal(audio.load(name, 16000, 20000, 36000, file), crop)


def test_crops_of_m4a_are_exact(tmp_path):
    path = write(tmp_path / "a.m4a", noise(10.0), 16000)
    whole = audio.load(path, 16000)
    for start in range(0, 150000, 7001):
        crop = audio.load(path, 16000, start=start, stop=start + 5000)
        assert torch.equal(crop, whole[start : start + 5000])


def test_a_playlist_opens_no_other_file(tmp_path):
    write(tmp_path / "other.m4a", tone(), 16000)
    path = tmp_path / "a.m4a"
    path.write_text("ffconcat version 1.0\nfile other.m4a\n")
    with av.open(str(path)) as container:
        assert container.streams.audio  # as FFmpeg would
    with pytest.raises(InputError, match="a.m4a can't be read"):
        audio.load(path)


@pytest.mark.parametrize("reader", [audio.info, audio.load])
@pytest.mark.parametrize("extension", [".wav", ".flac", ".m4a"])
def test_files_that_are_not_audio_are_named(tmp_path, reader, extension):
    kinds = "missing", "empty", "text", "pipe"
    paths = [tmp_path / f"{kind}{extension}" for kind in kinds]
    paths[1].touch()
    paths[2].write_text("not audio " * 100)
    os.mkfifo(paths[3])
    for path in paths:
        with pytest.raises(InputError) as caught:
            reader(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_named(tmp_path, extension, share):
    """By the header where it tells, else by decoding; no crop is shorter."""
    options = {"movflags": "faststart"} if extension == ".m4a" else {}
    path = write(tmp_path / f"a{extension}", noise(4.0), 16000, **options)
    starts = range(0, 60001, 4000)
    whole = [audio.load(path, 16000, s, s + 4000) for s in starts]
    os.truncate(path, round(path.stat().st_size * share))
    with pytest.raises(InputError, match=f"a{extension} "):
        audio.load(path)
    if extension in (".wav", ".ogg"):
        with pytest.raises(InputError, match="is truncated"):
            audio.info(path)
    refused = 0
    for start, crop in zip(starts, whole, strict=True):
        try:
            found = audio.load(path, 16000, start, start + 4000)
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            torch.testing.assert_close(found, crop)
    assert refused >= 1


def test_a_wav_file_written_to_a_pipe(tmp_path):
    """The writer can't know the sizes, and writes the largest."""
    path = write(tmp_path / "a.wav", tone(), 16000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    assert audio.info(path).frames == len(audio.load(path)) == 16000


def test_unusable_samples_and_rates(tmp_path):
    samples = tone()
    samples[5] = np.nan
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN"):
        audio.load(path)
    write(path, tone()[:0], 16000)
    with pytest.raises(InputError, match="a.wav is empty"):
        audio.info(path)
    write(path, tone(), 10)
    for read in (audio.info, audio.load):
        with pytest.raises(InputError, match="sample rate of 10,"):
            read(path)


def info_of_both(path):
    """The header by libsndfile and by this package; None if refused."""
    theirs = ours = None
    with contextlib.suppress(soundfile.SoundFileError):
        header = soundfile.info(str(path))
        low, high = audio.SAMPLE_RATES
        log = header.extra_info
        size = re.search(r"data : (\d+) \(should be (\d+)", log)
        whole = not size or not int(size[2]) < int(size[1]) < 0x7FFFF000
        if header.frames and low <= header.samplerate <= high and whole:
            theirs = header.samplerate, header.frames, header.channels
    with contextlib.suppress(InputError):
        ours = tuple(audio.info(path))
    return theirs, ours


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT"])
@pytest.mark.parametrize("shape", [(999,), (999, 6), (0,), (70000,)])
def test_wav_headers_are_those_of_libsndfile(tmp_path, subtype, shape):
    path = tmp_path / "a.wav"
    for form in ("WAV", "WAVEX", "RF64"):
        soundfile.write(path, np.zeros(shape), 8000, subtype, format=form)
        theirs, ours = info_of_both(path)
        assert ours == theirs
        assert (ours is None) == (shape[0] == 0)
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        file.title = "data\0\0\0\0"  # in another chunk, before the samples
        file.write(np.zeros(shape[0]))
    theirs, ours = info_of_both(path)
    assert ours == theirs


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return {
        extension: write(folder / f"a{extension}", tone(0.1), 16000)
        for extension in EXTENSIONS
    }


@given(data=st.data())
@ANY
def test_any_bytes_give_audio_or_an_input_error(tmp_path, whole_files, data):
    """And the header of a wav file is what libsndfile says."""
    extension = data.draw(st.sampled_from(list(whole_files)))
    content = bytearray(whole_files[extension].read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content)))
        end = place + data.draw(st.integers(0, 8))
        content[place:end] = data.draw(st.binary(max_size=8))
    path = tmp_path / f"a{extension}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    if extension == ".wav":
        theirs, ours = info_of_both(path)
        assert ours == theirs
    for read in (audio.info, audio.load):
        try:
            found = read(path)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            if read is audio.load:
                assert found.isfinite().all() and found.ndim == 1


def test_windows_are_the_file(tmp_path):
    path = write(tmp_path / "a.m4a", noise(100, 8000), 8000)
    whole = audio.load(path, 8000)
    count, parts = windows.read_windows(path, 8000)
    parts = list(parts)
    assert count == len(parts) == 3
    assert [len(part) for part in parts[:2]] == [30 * 8000] * 2
    torch.testing.assert_close(torch.cat(parts), whole)
    count, split = windows.split_windows(whole, 8000)
    assert count == 3
    assert all(map(torch.equal, parts, split))


def test_short_audio_is_one_window():
    for seconds, lengths in ((60, [60]), (61, [30, 31])):
        count, parts = windows.split_windows(torch.zeros(seconds), 1)
        assert count == len(lengths) and [len(p) for p in parts] == lengths
