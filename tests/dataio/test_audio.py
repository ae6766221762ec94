"""Reading audio of every kind, and refusing what can't be used."""

import io
import os

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio import audio
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
    return write_by_av(path, samples, rate, "mp4", "aac", **options)


def write_by_av(path, samples, rate, form, codec, bit_rate=None, **options):
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if bit_rate:
            stream.bit_rate = bit_rate
        kind = av.codec.Codec(codec, "w").audio_formats[0].name
        convert = av.AudioResampler(format=kind, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate = rate
        for part in [*convert.resample(frame), None]:
            for packet in stream.encode(part):
                container.mux(packet)
    return path


EXTENSIONS = [".wav", ".flac", ".ogg", ".m4a"]
ANY = settings(max_examples=200)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
def test_wav_is_read_exactly_and_channels_are_averaged(tmp_path, subtype):
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(path, "w", 16000, 2, subtype) as file:
        file.title = "data\0\0\0\0"  # in another chunk, before the samples
        file.write(np.stack([tone(frequency=440), tone(frequency=1000)], 1))
    both = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    assert audio.info(path) == (16000, 16000, 2)
    assert torch.equal(audio.load(path, channel=1), both[:, 1])
    torch.testing.assert_close(audio.load(path), both.mean(1))
    soundfile.write(path, both, 16000, subtype)  # without that chunk
    assert torch.equal(audio.load(path, channel=1), both[:, 1])


@pytest.mark.parametrize("rate", [8000, 22050, 44101, 48000])
def test_any_rate_is_resampled(tmp_path, rate):
    path = write(tmp_path / "a.wav", tone(2.0, rate), rate)
    waveform = audio.load(path, 16000)
    assert abs(len(waveform) - 32000) <= 1
    middle = slice(200, 31800)
    expected = torch.from_numpy(tone(2.0))
    assert (waveform[middle] - expected[middle]).abs().max() < 1e-3
    crop = audio.load(path, 16000, start=9000, stop=25000)
    assert len(crop) == 16000
    # Resampling sees no context at the ends.
    difference = (crop - expected[9000:25000])[2000:-2000].abs().max()
    assert difference < 0.02


@pytest.mark.parametrize("bit_rate", [12000, 24000, 128000])
def test_crops_of_m4a_are_exact(tmp_path, bit_rate):
    """By seeking, and where AAC fills bands with random numbers."""
    path = tmp_path / "a.m4a"
    write_by_av(path, noise(20.0), 16000, "mp4", "aac", bit_rate)
    check_crops(path, 16000)


def check_crops(path, rate):
    """Crops are slices of the whole, bit by bit; a file object is the file."""
    whole = audio.load(path, rate)
    file = io.BytesIO(path.read_bytes())
    crop = audio.load("shard.tar/1", rate, 20000, 36000, file)
    assert torch.equal(crop, whole[20000:36000])
    for start in range(0, len(whole) - 5000, 7001):
        crop = audio.load(path, rate, start=start, stop=start + 5000)
        assert torch.equal(crop, whole[start : start + 5000])
    bounds = [(0, 9000), (9000, 30000), (31000, 37000), (37000, None)]
    parts = audio.load_parts(path, rate, bounds)
    for (start, stop), part in zip(bounds, parts, strict=True):
        assert torch.equal(part, whole[start:stop])


BY_AV = {
    "m4a": ("mp4", "aac", 44100, {}),
    "adts": ("adts", "aac", 16000, {}),
    "fragments": ("mp4", "aac", 16000, {"movflags": "empty_moov+frag_custom"}),
    "alac": ("ipod", "alac", 44100, {}),
    "amr": ("amr", "libopencore_amrnb", 8000, {}),
    "live webm": ("webm", "libopus", 48000, {"live": "1"}),
    "mp3": ("mp3", "libmp3lame", 44100, {}),
    "opus": ("ogg", "libopus", 48000, {}),
    "mp3 in wav": ("wav", "libmp3lame", 16000, {}),
}
BY_SOUNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "GSM": ("WAV", "GSM610"),
    "24 bits": ("WAV", "PCM_24"),
    "WAVEX": ("WAVEX", "PCM_16"),
    "RF64": ("RF64", "PCM_16"),
    "SPHERE": ("NIST", "PCM_16"),
    "mp3 of libsndfile": ("MP3", "MPEG_LAYER_III"),
    "opus of libsndfile": ("OGG", "OPUS"),
    "ALAC in CAF": ("CAF", "ALAC_16"),
}


@pytest.mark.parametrize("kind", [*BY_AV, *BY_SOUNDFILE])
def test_a_file_is_what_it_contains(tmp_path, kind):
    """Without an extension, with the length and all crops exact."""
    path, seconds = tmp_path / "recording", 5
    if kind in BY_AV:
        form, codec, rate, options = BY_AV[kind]
        samples = tone(seconds, rate) + noise(seconds, rate) / 4
        write_by_av(path, samples, rate, form, codec, **options)
    else:
        form, subtype = BY_SOUNDFILE[kind]
        rate = 8000
        samples = tone(seconds, rate) + noise(seconds, rate) / 4
        soundfile.write(path, samples, rate, subtype, format=form)
    assert audio.looks_like_audio(path)
    found, whole = audio.info(path), audio.load(path, rate)
    assert found.sample_rate == rate and found.channels == 1
    assert abs(found.frames - seconds * rate) <= 4096
    assert abs(found.frames - len(whole)) <= 2048
    spectrum = torch.fft.rfft(whole[: 3 * rate]).abs()
    assert spectrum.argmax() == 3 * 440
    check_crops(path, rate)


@pytest.mark.parametrize(
    "content",
    [b"", b"speaker,sex\n", b"\xff\xfes\0p\0", b"\x89PNG\r\n\x1a\n" + b"0" * 9],
    ids=["empty", "text", "UTF-16", "PNG"],
)
def test_what_is_no_audio(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not audio.looks_like_audio(path)
    assert not audio.looks_like_audio(tmp_path)
    assert not audio.looks_like_audio(tmp_path / "absent")
    assert audio.looks_like_audio(tmp_path / "absent.MP3")


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.aac\n"


@pytest.mark.parametrize(
    "text",
    ["ffconcat version 1.0\nfile other.aac\n", PLAYLIST + "#EXT-X-ENDLIST\n"],
    ids=["concat", "HLS"],
)
@pytest.mark.parametrize("name", ["a.m4a", "a.wav", "a"])
def test_a_playlist_opens_no_other_file(tmp_path, text, name):
    write_by_av(tmp_path / "other.aac", tone(), 16000, "adts", "aac")
    path = tmp_path / name
    path.write_text(text)
    assert not audio.looks_like_audio(path) or path.suffix
    for source in (None, io.BytesIO(text.encode())):
        with pytest.raises(InputError, match=f"{name} can't be read"):
            audio.load(path, file=source)


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
    """The writer can't know the sizes, and writes the largest, or zero."""
    path = write(tmp_path / "a.wav", tone(), 16000)
    whole = audio.load(path)
    content = bytearray(path.read_bytes())
    for size in b"\xff" * 4, bytes(4):
        content[4:8] = content[40:44] = size
        path.write_bytes(content)
        assert audio.info(path).frames == len(audio.load(path)) == 16000
        assert torch.equal(audio.load(path, 16000, 99, 500), whole[99:500])


def test_unusable_samples_and_rates(tmp_path):
    path, samples = tmp_path / "a.wav", tone()
    for samples[5] in np.nan, 1e15:
        soundfile.write(path, samples, 16000, subtype="FLOAT")
        with pytest.raises(InputError, match="NaN, infinite or huge"):
            audio.load(path)
    write(path, tone()[:0], 16000)
    with pytest.raises(InputError, match="a.wav is empty"):
        audio.info(path)
    write(path, tone(), 10)
    for read in (audio.info, audio.load):
        with pytest.raises(InputError, match="sample rate of 10,"):
            read(path)


@given(data=st.data())
@ANY
def test_any_bytes_give_audio_or_an_input_error(tmp_path, data):
    """And the header of a wav file is what libsndfile says."""
    extension = data.draw(st.sampled_from(EXTENSIONS))
    path = write(tmp_path / f"a{extension}", tone(0.1), 16000)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content)))
        end = place + data.draw(st.integers(0, 8))
        content[place:end] = data.draw(st.binary(max_size=8))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (audio.info, audio.load):
        try:
            found = read(path)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        if read is audio.load:
            assert found.isfinite().all() and found.ndim == 1
        elif extension == ".wav":
            header = soundfile.info(str(path))
            theirs = header.samplerate, header.frames, header.channels
            assert found == theirs


def test_windows_are_the_file(tmp_path):
    path = write(tmp_path / "a.m4a", noise(100, 8000), 8000)
    whole = audio.load(path, 8000)
    first, second, last = audio.read_windows(path, 8000)
    assert len(first) == len(second) == 30 * 8000
    torch.testing.assert_close(torch.cat([first, second, last]), whole)
    split = audio.split_windows(whole, 8000)
    for part, expected in zip([first, second, last], split, strict=True):
        assert torch.equal(part, expected)
