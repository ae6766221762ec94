"""Reads any audio file as one channel at one sample rate.

soundfile reads wav, flac, ogg, mp3 and the other formats of libsndfile; PyAV
reads the rest, such as m4a, the format in which VoxCeleb2 is released. What a
file is, its first bytes tell, not its name.
"""

import contextlib
import itertools
import math
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import soundfile
import torch
import torchaudio

from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.errors import InputError

EXTENSIONS = frozenset(
    ".wav .flac .ogg .m4a .mp3 .opus .oga .aac .amr .webm .mka .mkv .mp4 .mov "
    ".3gp .3g2 .wma .sph .aif .aiff .aifc .au .snd .caf .w64 .m4b .awb".split()
)
SAMPLE_RATES = (1000, 768000)  # Hz
# In seconds. Audio longer than LONGEST is cut into windows, so that hours of it
# fit in memory; the last window takes the remainder.
LONGEST = 60
WINDOW = 30

# How audio files begin; QuickTime and MP4, like pictures, with a box's size
_BEGIN = re.compile(
    rb"RIFF|RIFX|RF64|riff|FORM|\.snd|caff|fLaC|OggS|NIST_1A|ID3|#!AMR|"
    rb"\x1a\x45\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11|"  # Matroska, ASF
    rb"\xff[\xe2\xe3\xf0-\xf3\xf8-\xfd]|"  # MPEG
    rb".{4}(ftyp|moov|mdat|wide)(?!heic|heix|mif1|msf1|avif|jxl |crx )",
    re.DOTALL,
)
# FFmpeg would open whatever a playlist names: no playlists, and no network.
_AV_OPTIONS = {
    "format_whitelist": "mov,matroska,webm,aac,amr,mp3,ogg,wav,w64,asf,caf,"
    "aiff,au,flac,avi,flv,mpegts,mpeg,ac3,tta,wv",
    "protocol_whitelist": "file",
}
# libsndfile decodes these differently after seeking.
_DECODED_IN_ORDER = ("OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
# The header is exact to two frames, and decoding starts two frames early.
_AAC_FRAMES = 2048
_FAR = 5  # seconds from which on seeking is faster than decoding
_NO_LENGTH = 2**40  # frames; libsndfile says 2^63 - 1 where it knows none
_SKIPPED = 2**20  # frames that are decoded at a time to be dropped
_LOUDEST = 1e10  # 32-bit integers as floats; features of 1e17 overflow
_LARGEST_KERNEL = 10**7  # samples, roughly, of torchaudio's resampling kernel
# What libsndfile logs where the end of a file is missing. A program that
# writes to a pipe can't know the size, and writes one above 2^31 - 4097.
_WAV_SIZE = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_PIPE_SIZE = 0x7FFFF000
_OGG_END = "Last page lacks an end-of-stream bit"
_HEAD = 256  # bytes, in which a plain header of wav ends
# Non-blocking, because opening a named pipe would wait for a writer
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WAV = ("WAV", "WAVEX", "RF64")  # formats whose length a pipe can't know
# RIFF, size, WAVEfmt, 16, format, channels, sample rate, bytes per second,
# bytes per frame, bits per sample
_WAV_HEADER = struct.Struct("<4sI8sIHHIIHH")
# What is left of the power of channels whose mean cancels; it is 1 where they
# are equal, and 1 / channels^2 where all others are silent.
_CANCELED = 0.04
# A part of a file, named as the web does it: a.wav#t=1.5,4
_FRAGMENT = re.compile(r"(.+)#t=([\d.e+-]+)(?:,([\d.e+-]+))?", re.DOTALL)


class AudioInfo(NamedTuple):
    """What the header of an audio file says."""

    sample_rate: int  # Hz
    frames: int  # samples per channel
    channels: int


def looks_like_audio(path: StrPath) -> bool:
    """Whether the name or, for other names, the first bytes are of audio."""
    if os.path.splitext(path)[1].lower() in EXTENSIONS:
        return True
    try:
        head, _ = _head(path)
    except (OSError, ValueError):
        return False
    return _BEGIN.match(head) is not None


def _head(path: StrPath) -> tuple[bytes, int]:
    """The first bytes of a file, and its size."""
    # By system calls: many threads read headers, and Python's own file objects
    # hold each other up.
    try:
        file = os.open(path, _OPEN)
        try:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode):
                return os.read(file, _HEAD), status.st_size
        finally:
            os.close(file)
    except (FileNotFoundError, NotADirectoryError):
        pass
    raise InputError(f"{path} is missing or not a file")


def info(path: StrPath) -> AudioInfo:
    """What the header says; a file whose header lacks the length is decoded."""
    file, start, stop = split_segment(path)
    with _opened(file) as sound:
        frames = sound.count()
        if stop is not None:
            frames = min(frames, round(stop * sound.rate))
        frames -= round(start * sound.rate)
        if not 0 < frames < _NO_LENGTH:
            raise InputError(
                f"{path} is empty, or its header doesn't tell its length: "
                "replace or remove the file, or convert it to wav"
            )
        return AudioInfo(sound.rate, frames, sound.channels)


def load(
    path: StrPath,
    sample_rate: int = 16000,
    start: int = 0,
    stop: int | None = None,
    file: BinaryIO | None = None,
    channel: int | None = None,
) -> torch.Tensor:
    """Reads samples ``start`` to ``stop``, at ``sample_rate``: float32 [time].

    Channels are averaged, unless ``channel`` is the number of one, from 0.
    ``file`` is read instead of ``path``, its name.
    """
    source, first, _ = split_segment(path)
    if source != str(path):
        found = info(path)
        length = _to_rate(found.frames, found.sample_rate, sample_rate)
        stop = round(first * sample_rate) + (length if stop is None else stop)
        start += round(first * sample_rate)
    parts = load_parts(source, sample_rate, [(start, stop)], file, channel)
    return next(iter(parts))


def load_parts(
    path: StrPath,
    sample_rate: int,
    bounds: Iterable[tuple[int, int | None]],
    file: BinaryIO | None = None,
    channel: int | None = None,
) -> Iterator[torch.Tensor]:
    """As ``load`` of each (start, stop), in order, in one pass of the file."""
    with _opened(path, file) as sound:
        rate = sound.rate
        for start, stop in bounds:
            first, last, least = _to_rate(start, sample_rate, rate), None, 1
            if stop is not None:
                wanted = _to_rate(stop - start, sample_rate, rate)
                last = first + wanted
                least = max(1, wanted - max(sound.slack, 1))  # rounded bounds
            samples = to_mono(sound.read(first, last), channel, str(path))
            if len(samples) < least:
                raise _truncated(path)
            if not np.abs(samples).max() <= _LOUDEST:  # unlike ">", finds NaN
                raise InputError(
                    f"{path} has NaN, infinite or huge samples: leave it out"
                )
            part = resample(torch.from_numpy(samples), rate, sample_rate)
            yield part if stop is None else part[: stop - start]


class _Pcm:
    """16-bit wav, in a fifth of soundfile's time."""

    slack = 0

    def __init__(
        self, path: StrPath, file: BinaryIO | None, header: AudioInfo, data: int
    ) -> None:
        self.path, self.file, self.data = path, file, data
        self.rate, self.frames, self.channels = header

    def count(self) -> int:
        return self.frames

    def read(self, first: int, last: int | None) -> np.ndarray:
        """Samples of all channels, float32 [time, channels]."""
        block = 2 * self.channels
        last = self.frames if last is None else min(last, self.frames)
        with contextlib.ExitStack() as stack:
            stream = self.file or stack.enter_context(open(self.path, "rb"))
            stream.seek(self.data + first * block)
            content = stream.read(max(last - first, 0) * block)
        samples = np.frombuffer(content, "<i2").astype(np.float32)
        samples *= 2.0**-15
        return samples.reshape(-1, self.channels)


class _BySoundfile:
    """What libsndfile reads."""

    def __init__(self, path: StrPath, file: BinaryIO | None) -> None:
        self.path = path
        self.sound = soundfile.SoundFile(file or str(path))
        self.rate, self.channels = self.sound.samplerate, self.sound.channels
        lossy = self.sound.subtype in _DECODED_IN_ORDER
        self.slack = _AAC_FRAMES if lossy else 0
        self.seeks = self.sound.seekable() and not lossy
        if lossy:  # else soundfile seeks after each reading
            self.sound.seekable = lambda: False  # type: ignore[method-assign]
        self.position = 0

    def count(self) -> int:
        """Finds a missing end in what libsndfile logs."""
        log = self.sound.extra_info
        size = _WAV_SIZE.search(log)
        cut = size and int(size[2]) < int(size[1]) < _PIPE_SIZE
        if cut or _OGG_END in log:
            raise _truncated(self.path)
        return self.sound.frames

    def read(self, first: int, last: int | None) -> np.ndarray:
        end = self.count() if last is None else last
        if self.seeks and not self.position:  # Vorbis is exact only once
            self.position = self.sound.seek(first)
        while self.position < first:
            wanted = min(first - self.position, _SKIPPED)
            found = len(self.sound.read(wanted, "float32"))
            self.position += found or first
        samples = self.sound.read(
            max(end - first, 0), "float32", always_2d=True
        )
        self.position = first + len(samples)
        if last is None and len(samples) < end - first - self.slack:
            raise _truncated(self.path)
        return samples


class _ByAv:
    """What FFmpeg reads."""

    slack = _AAC_FRAMES

    def __init__(self, path: StrPath, file: BinaryIO | None) -> None:
        self.path, self.file = path, file
        self._open()

    def _open(self) -> None:
        if self.file:
            self.file.seek(0)
        self.container = av.open(
            self.file or f"file:{self.path}",  # colons or not
            "r",
            options=_AV_OPTIONS,
            metadata_errors="replace",  # in tags, which are not used
        )
        if not self.container.streams.audio:
            raise InputError(f"{self.path} has no audio: leave it out")
        self.stream = stream = self.container.streams.audio[0]
        self.rate, self.channels = stream.rate, stream.channels
        self.unit = float((stream.time_base or 0) * self.rate)
        # Only QuickTime and MP4 tell the length exactly.
        exact = self.container.format.name.startswith("mov")
        length = stream.duration if exact else None
        self.frames = round(length * self.unit) if length else None
        self.resampler = av.AudioResampler(format="flt", rate=self.rate)
        self.blocks = self._decode()
        self.rest = np.zeros((0, self.channels), np.float32)
        self.position = 0  # of the rest

    def _decode(self) -> Iterator[np.ndarray]:
        for frame in self.container.decode(self.stream):
            yield from self._arrays(frame)

    def _arrays(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        for part in self.resampler.resample(frame):
            yield part.to_ndarray().reshape(part.samples, -1)

    def count(self) -> int:
        return self.frames or sum(map(len, self.blocks))

    def read(self, first: int, last: int | None) -> np.ndarray:
        if last is not None and first - self.position > _FAR * self.rate:
            samples = self._read_by_seeking(first, last)
            if samples is not None:
                return samples
        samples = self._read_on(first, last)
        if last is None and self.frames:
            if len(samples) < self.frames - first - _AAC_FRAMES:
                raise _truncated(self.path)
        return samples

    def _read_by_seeking(self, first: int, last: int) -> np.ndarray | None:
        """None where only decoding from the start gives the samples."""
        twice = []
        if self.frames and self.stream.codec_context.profile == "LC":
            origin = self.stream.start_time or 0
            for _ in range(2):
                place = int((first - _AAC_FRAMES) / self.unit) + origin
                self.container.seek(place, stream=self.stream)
                frame = next(self.container.decode(self.stream))
                self.rest = np.concatenate([*self._arrays(frame)])
                self.position = round(((frame.pts or 0) - origin) * self.unit)
                self.blocks = self._decode()
                twice.append(self._read_on(first, last))
            # Bands of noise are drawn by a generator that every earlier frame
            # moves: where there are any, the second time differs.
            if np.array_equal(twice[0], twice[1]):
                return twice[0]
        self._open()
        return None

    def _read_on(self, first: int, last: int | None) -> np.ndarray:
        """Decodes up to ``last``, and drops what is before ``first``."""
        blocks, end = [], self.position
        for block in itertools.chain([self.rest], self.blocks):
            start, end = end, end + len(block)
            if end > first:
                blocks.append(block[max(0, first - start) :])
            if last is not None and end >= last:
                break
        samples = np.concatenate([self.rest[:0], *blocks])
        if last is None:
            return samples
        kept = max(0, last - first)
        self.rest, self.position = samples[kept:], min(end, last)
        return samples[:kept]


@contextlib.contextmanager
def _opened(
    path: StrPath, file: BinaryIO | None = None
) -> Iterator[_Pcm | _BySoundfile | _ByAv]:
    """The reader of a file; its errors name the file in one line."""
    try:
        if file is None:
            head, size = _head(path)
        else:
            head, size = file.read(_HEAD), file.seek(0, os.SEEK_END)
            file.seek(0)
        pcm = _pcm_header(head, size)
        sound = _Pcm(path, file, *pcm) if pcm else _by_library(path, file)
        low, high = SAMPLE_RATES
        if not low <= sound.rate <= high:
            raise InputError(
                f"{path} has a sample rate of {sound.rate}, expected {low} to "
                f"{high} Hz"
            )
        yield sound
    except InputError:
        raise
    # PyAV raises errors of any kind, e.g. for a stream without a duration. A
    # header may claim more samples than memory holds.
    except Exception as error:
        why = getattr(error, "strerror", None) or error  # without the path
        raise InputError(
            f"{path} can't be read as audio ({why}): replace or remove the file"
        ) from error


def _by_library(path: StrPath, file: BinaryIO | None) -> _BySoundfile | _ByAv:
    """libsndfile first; FFmpeg knows more codecs, and wav without a length."""
    try:
        sound = _BySoundfile(path, file)
    except soundfile.SoundFileError:
        return _ByAv(path, file)
    if not sound.sound.frames and sound.sound.format in _WAV:
        return _ByAv(path, file)
    return sound


def _pcm_header(head: bytes, size: int) -> tuple[AudioInfo, int] | None:
    """What a 16-bit wav file says, and where its samples begin."""
    data = head.find(b"data", _WAV_HEADER.size)
    if data < 0 or len(head) < data + 8:
        return None
    riff, length, wave, chunk, form, channels, rate, _, block, bits = (
        _WAV_HEADER.unpack_from(head)
    )
    samples = int.from_bytes(head[data + 4 : data + 8], "little")
    kind = riff, wave, chunk, form, bits, block
    if kind != (b"RIFF", b"WAVEfmt ", 16, 1, 16, 2 * channels) or not channels:
        return None
    if not size == length + 8 == data + 8 + samples:
        return None
    return AudioInfo(rate, samples // block, channels), data + 8


def segment_path(path: str, start: float, stop: float | None) -> str:
    """The name of seconds ``start`` to ``stop`` of a file; None: its end."""
    if not start and stop is None:
        return path
    return f"{path}#t={start!r}" + ("" if stop is None else f",{stop!r}")


def split_segment(path: object) -> tuple[str, float, float | None]:
    """The file, start and stop of what ``segment_path`` returned."""
    found = _FRAGMENT.fullmatch(str(path)) if "#t=" in str(path) else None
    if not found:
        return str(path), 0.0, None
    return found[1], float(found[2]), float(found[3]) if found[3] else None


def to_mono(
    samples: np.ndarray, channel: int | None = None, name: str = "the audio"
) -> np.ndarray:
    """One channel of [time, channels]: that of a number, or their mean, or
    the loudest where the mean cancels: two may be of opposite phase.
    """
    # By NumPy: many threads read files, and PyTorch would start more in each.
    channels = samples.shape[1]
    if channel is not None and not 0 <= channel < channels:
        raise InputError(
            f"{name} has {channels} channel(s): channel {channel} is not one "
            f"of 0 to {channels - 1}"
        )
    if channel is not None or channels == 1:
        return samples[:, channel or 0]
    mean = samples.mean(1)
    powers = np.einsum("ij,ij->j", samples, samples)
    canceled = mean @ mean < _CANCELED / channels**2 * powers.max()
    return samples[:, powers.argmax()] if canceled else mean


def split_windows(
    waveform: torch.Tensor, sample_rate: int
) -> Iterator[torch.Tensor]:
    """The windows of a waveform [time]."""
    bounds = _bounds(len(waveform) / sample_rate, sample_rate)
    return (waveform[start:stop] for start, stop in bounds)


def read_windows(
    path: StrPath, sample_rate: int, channel: int | None = None
) -> Iterator[torch.Tensor]:
    """The windows of an audio file, read one at a time."""
    header = info(path)
    bounds = _bounds(header.frames / header.sample_rate, sample_rate)
    return load_parts(path, sample_rate, bounds, channel=channel)


def _bounds(seconds: float, sample_rate: int) -> list[tuple[int, int | None]]:
    count = int(seconds / WINDOW) if seconds > LONGEST else 1
    size = WINDOW * sample_rate
    starts = range(0, count * size, size)
    return list(zip(starts, [*starts[1:], None], strict=True))


def resample(
    waveform: torch.Tensor, rate_from: int, rate_to: int
) -> torch.Tensor:
    """Resamples a waveform [time] from and to any rate, in Hz."""
    if rate_from == rate_to:
        return waveform
    common = math.gcd(rate_from, rate_to)
    if rate_from * rate_to // common**2 <= _LARGEST_KERNEL:
        return torchaudio.functional.resample(waveform, rate_from, rate_to)
    # Without a common factor of the rates the kernel would take gigabytes. The
    # import takes half a second, which commands that need no other rate save.
    from scipy.signal import resample_poly

    return torch.from_numpy(
        resample_poly(
            waveform.numpy(), rate_to // common, rate_from // common
        ).astype(np.float32)
    )


def repeat_to(waveform: torch.Tensor, samples: int) -> torch.Tensor:
    """Repeats a waveform until it is long enough, and cuts it there."""
    times = -(-samples // len(waveform))
    return (waveform.repeat(times) if times > 1 else waveform)[:samples]


def _to_rate(samples: int, rate_from: int, rate_to: int) -> int:
    return round(samples * rate_to / rate_from)


def _truncated(path: StrPath) -> InputError:
    return InputError(
        f"{path} is truncated or empty: replace or remove the file"
    )
