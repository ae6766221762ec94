"""Small audio files of every format that is read, to be damaged."""

import functools
import io
import re
import struct
import zlib

import av
import numpy as np
import soundfile
from hypothesis import strategies as st

from benchmarks.fuzz.mutations import NUMBERS, damaged

_RATE = 16000
# Extension -> what soundfile writes under it: format and subtype.
_BY_SOUNDFILE = {
    ".wav": [("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24")]
    + [("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW")]
    + [("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610")]
    + [("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16")]
    + [("AIFF", "PCM_16"), ("AIFF", "IMA_ADPCM"), ("AU", "PCM_16")]
    + [("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("NIST", "PCM_16")]
    + [("VOC", "PCM_16"), ("SVX", "PCM_16"), ("MAT5", "PCM_16")]
    + [("PAF", "PCM_16"), ("XI", "DPCM_16"), ("SDS", "PCM_16")],
    ".flac": [("FLAC", "PCM_16"), ("FLAC", "PCM_24")],
    ".ogg": [("OGG", "VORBIS"), ("OGG", "OPUS")],
    ".mp3": [("MP3", "MPEG_LAYER_III")],
}
# Extension -> what PyAV writes under it: format and codec, and what else
# whole_file takes.
_BY_AV = {
    ".m4a": [("mp4", "aac"), ("mp4", "alac"), ("mov", "pcm_s16le")]
    + [("mp4", "aac", 0.1, _RATE, 8)],
    ".aac": [("adts", "aac")],
}
_EXTENSIONS = (*_BY_SOUNDFILE, *_BY_AV)
# Names of what holds lengths, counts and rates.
_HEADERS = re.compile(
    rb"fmt |data|fact|ds64|COMM|SSND|desc|pakt|fLaC|OggS|OpusHead|vorbis|Xing"
    rb"|Info|stsz|stco|co64|stts|stsc|stsd|mdhd|mvhd|tkhd|esds|mp4a|alac|elst"
)
# Much audio in few bytes: format, codec, seconds, rate, channels.
_BOMBS = {
    ".flac": [
        ("FLAC", "PCM_16", 600, 16000, 1),
        ("FLAC", "PCM_16", 10, 192000, 8),
    ],
    ".ogg": [("OGG", "VORBIS", 120, 16000, 1), ("OGG", "OPUS", 120, 48000, 1)],
    ".mp3": [("MP3", "MPEG_LAYER_III", 120, 16000, 1)],
    ".m4a": [("mp4", "aac", 120, 16000, 1)],
}
_BITS_REVERSED = bytes(int(f"{n:08b}"[::-1], 2) for n in range(256))
# Playlists: they name other files, which are not to be opened.
_PLAYLISTS = (
    b"ffconcat version 1.0\nfile a.wav\n",
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.wav\n#EXT-X-ENDLIST\n",
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
)


@functools.cache
def whole_file(
    extension, form, codec, seconds=0.1, rate=_RATE, channels=1, loudness=0.3
):
    """The bytes of an audio file of noise."""
    rng = np.random.default_rng(0)
    samples = rng.uniform(-1, 1, (round(seconds * rate), channels))
    samples *= loudness
    file = io.BytesIO()
    if extension in _BY_SOUNDFILE:
        with soundfile.SoundFile(
            file, "w", rate, channels, codec, format=form
        ) as sound:
            for start in range(0, len(samples), rate):  # at once it may crash
                sound.write(samples[start : start + rate])
        return file.getvalue()
    with av.open(file, "w", format=form) as container:
        layout = {1: "mono", 2: "stereo", 8: "7.1"}[channels]
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            (samples.reshape(1, -1) * 32767).astype(np.int16),
            format="s16",
            layout=layout,
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return file.getvalue()


@st.composite
def _wav(draw):
    """A wav file with a header of any content."""
    small = st.integers(0, 9) | NUMBERS
    channels = draw(st.sampled_from([1, 2]) | small) % 2**16
    bits = draw(st.sampled_from([8, 16, 24, 32, 64]) | small) % 2**16
    rate = draw(st.sampled_from([1000, 8000, 22051, 44100, 767999]) | NUMBERS)
    block = draw(st.just(channels * bits // 8) | small) % 2**16
    kind = draw(st.sampled_from([1, 3, 6, 7, 17, 2, 49, 85, 0xFFFE]))
    data = draw(st.binary(max_size=200)) * draw(st.sampled_from([1, 20]))
    length = draw(st.just(len(data)) | st.just(len(data)) | NUMBERS) % 2**32
    second = rate * block % 2**32
    form = struct.pack(
        "<HHIIHH", kind, channels, rate % 2**32, second, block, bits
    )
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", length) + data
    size = draw(st.just(len(body)) | st.just(len(body)) | NUMBERS) % 2**32
    return ".wav", b"RIFF" + struct.pack("<I", size) + body


@st.composite
def _flac(draw):
    """A flac file with another rate and length, of 20 and 36 bits."""
    data = bytearray(whole_file(".flac", "FLAC", "PCM_16"))
    rate = draw(st.just(_RATE) | NUMBERS) % 2**20
    length = draw(st.sampled_from([0, 1600, 2**30]) | NUMBERS) % 2**36
    (old,) = struct.unpack_from(">Q", data, 18)
    middle = old >> 36 & 0xFF  # channels and bits
    struct.pack_into(">Q", data, 18, rate << 44 | middle << 36 | length)
    return ".flac", bytes(data)


@st.composite
def _damaged(draw):
    extension = draw(st.sampled_from(_EXTENSIONS))
    kinds = {**_BY_SOUNDFILE, **_BY_AV}[extension]
    whole = whole_file(extension, *draw(st.sampled_from(kinds)))
    near = [match.start() for match in _HEADERS.finditer(whole)]
    data = draw(damaged(whole, most=2, near=near))
    if extension == ".ogg" and draw(st.booleans()):
        data = with_checksums(data)
    if draw(st.integers(0, 9)) == 0:  # it's opened by what it holds
        extension = draw(st.sampled_from(_EXTENSIONS))
    return extension, data


def with_checksums(data):
    """An Ogg file whose pages have their checksums again.

    Without, a damaged page is passed over, and what it says is not heeded.
    """
    data = bytearray(data)
    for match in re.finditer(b"OggS", bytes(data)):
        at = match.start()
        if at + 27 > len(data):
            break
        lengths = data[at + 27 : at + 27 + data[at + 26]]
        end = at + 27 + len(lengths) + sum(lengths)
        data[at + 22 : at + 26] = bytes(4)
        # Ogg's CRC-32 is zlib's without its inversions, bits in reverse.
        page = data[at:end].translate(_BITS_REVERSED)
        crc = zlib.crc32(page, 2**32 - 1) ^ (2**32 - 1)
        crc = int(f"{crc:032b}"[::-1], 2)
        data[at + 22 : at + 26] = struct.pack("<I", crc)
    return bytes(data)


@st.composite
def _bombs(draw):
    extension = draw(st.sampled_from([*_BOMBS]))
    kind = draw(st.sampled_from(_BOMBS[extension]))
    whole = whole_file(extension, *kind, loudness=0)
    return extension, draw(damaged(whole, most=1))


@st.composite
def _no_audio(draw):
    extension = draw(st.sampled_from(_EXTENSIONS))
    data = draw(st.sampled_from(_PLAYLISTS) | st.binary(max_size=300))
    return extension, data


_ANY = st.one_of(
    _damaged(), _damaged(), _damaged(), _damaged(), _wav(), _flac(), _no_audio()
)
# A bomb takes a second to read.
AUDIO = st.integers(0, 100).flatmap(lambda n: _bombs() if n == 100 else _ANY)
