"""Reads any audio file as one channel at one sample rate.

soundfile reads wav, flac, ogg and the other formats of libsndfile; PyAV reads
m4a, the format in which VoxCeleb2 is released, and mp4.
"""

import contextlib
import math
import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import scipy.signal
import soundfile
import torch
import torchaudio

from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.errors import InputError

_EXTENSIONS = (".wav", ".flac", ".ogg", ".m4a")
EXTENSIONS = _EXTENSIONS + tuple(e.upper() for e in _EXTENSIONS)
SAMPLE_RATES = (1000, 768000)  # Hz
# Mean absolute amplitude below which the stock preparation drops a chunk
SILENCE = 5e-4

_BY_AV = (".m4a", ".mp4")
# FFmpeg detects formats by content, and would open whatever a playlist names.
_FORMATS = "mov"
# The header is exact to two frames, and decoding starts one frame early.
_AAC_FRAMES = 2048
_NO_LENGTH = 2**40  # frames; libsndfile says 2^63 - 1 where it knows none
_LARGEST_KERNEL = 10**7  # samples, roughly, of torchaudio's resampling kernel
# What libsndfile logs where the end of a file is missing. A program that
# writes to a pipe can't know the size, and writes one above 2^31 - 4097.
_WAV_SIZE = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_PIPE_SIZE = 0x7FFFF000
_OGG_END = "Last page lacks an end-of-stream bit"
# PyAV raises errors of any kind, e.g. for a stream without a duration. A
# header may claim more samples than memory holds.
_DECODER_ERRORS = (
    *(soundfile.SoundFileError, av.FFmpegError, OSError, MemoryError),
    *(AttributeError, TypeError, IndexError, ValueError),
)
# RIFF, size, WAVEfmt, 16, format, channels, sample rate, bytes per second,
# bytes per frame, bits per sample
_WAV_HEADER = struct.Struct("<4sI8sIHHIIHH")


class AudioInfo(NamedTuple):
    """What the header of an audio file says."""

    sample_rate: int  # Hz
    frames: int  # samples per channel
    channels: int


def info(path: StrPath) -> AudioInfo:
    """Reads the header; refuses truncated wav and ogg files."""
    found = _info_of_pcm(path)
    if found is None:
        with _naming(path):
            found = _info(path)
    _check_rate(path, found.sample_rate)
    if not 0 < found.frames < _NO_LENGTH:
        raise InputError(
            f"{path} is empty, or its header doesn't tell its length: replace "
            "or remove the file, or convert it to wav"
        )
    return found


def _info(path: StrPath) -> AudioInfo:
    if not _is_for_av(path):
        with soundfile.SoundFile(str(path)) as sound:
            _check_log(path, sound)
            return AudioInfo(sound.samplerate, sound.frames, sound.channels)
    with _open_by_av(path) as container:
        stream = container.streams.audio[0]
        # Without a duration it's a TypeError, which _naming handles.
        length = stream.duration * stream.time_base  # type: ignore[operator]
        frames = round(length * stream.rate)
        return AudioInfo(stream.rate, frames, stream.channels)


def _info_of_pcm(path: StrPath) -> AudioInfo | None:
    """The header of a 16-bit wav file, in a fifth of soundfile's time."""
    # Non-blocking, because opening a named pipe would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    try:
        file = os.open(path, flags)
        try:
            head, size = os.read(file, 256), os.fstat(file).st_size
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None
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
    return AudioInfo(rate, samples // block, channels)


def load(
    path: StrPath,
    sample_rate: int = 16000,
    start: int = 0,
    stop: int | None = None,
    file: BinaryIO | None = None,
) -> torch.Tensor:
    """Reads samples ``start`` to ``stop``, at ``sample_rate``: float32 [time].

    Channels are averaged. ``file`` is read instead of ``path``, its name.
    """
    decode = _decode_by_av if _is_for_av(path) else _decode
    with _naming(path, exists=file is not None):
        samples, rate = decode(path, sample_rate, start, stop, file)
    _check_rate(path, rate)
    least = 1
    if stop is not None:
        slack = _AAC_FRAMES if _is_for_av(path) else 1  # bounds are rounded
        least = max(1, _to_rate(stop - start, sample_rate, rate) - slack)
    if len(samples) < least:
        raise _truncated(path)
    if not np.isfinite(samples).all():
        raise InputError(
            f"{path} has NaN or infinite samples: replace or remove the file"
        )
    waveform = resample(torch.from_numpy(samples), rate, sample_rate)
    return waveform if stop is None else waveform[: stop - start]


def _decode(
    path: StrPath,
    sample_rate: int,
    start: int,
    stop: int | None,
    file: BinaryIO | None,
) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(file or str(path)) as sound:
        rate = sound.samplerate
        sound.seek(_to_rate(start, sample_rate, rate))
        if stop is None:
            _check_log(path, sound)
            wanted = sound.frames - sound.tell()
        else:
            wanted = _to_rate(stop - start, sample_rate, rate)
        samples = sound.read(max(wanted, 0), "float32", always_2d=True)
    if stop is None and len(samples) < wanted:
        raise _truncated(path)
    return _to_mono(samples), rate


def _decode_by_av(
    path: StrPath,
    sample_rate: int,
    start: int,
    stop: int | None,
    file: BinaryIO | None,
) -> tuple[np.ndarray, int]:
    with _open_by_av(file or path) as container:
        stream = container.streams.audio[0]
        rate = stream.rate
        unit = float(stream.time_base * rate)  # type: ignore[operator]
        first = _to_rate(start, sample_rate, rate)
        end = round(stream.duration * unit)  # type: ignore[operator]
        last = end
        if stop is not None:
            last = first + _to_rate(stop - start, sample_rate, rate)
        if first > _AAC_FRAMES:
            container.seek(int((first - _AAC_FRAMES) / unit), stream=stream)
        # Packed: with eight channels PyAV reads planes that don't exist.
        resampler = av.AudioResampler(format="flt", rate=rate)
        blocks, position = [np.zeros(0, np.float32)], None
        for frame in container.decode(stream):
            if position is None:
                position = round((frame.pts or 0) * unit)
            for part in resampler.resample(frame):
                block = part.to_ndarray().reshape(part.samples, -1)
                blocks.append(_to_mono(block[max(0, first - position) :]))
                position += len(block)
            if stop is not None and position >= last:
                break
    samples = np.concatenate(blocks)
    if stop is not None:
        return samples[: last - first], rate
    if len(samples) < end - first - _AAC_FRAMES:
        raise _truncated(path)
    return samples, rate


def _to_mono(samples: np.ndarray) -> np.ndarray:
    # By NumPy: many threads read files, and PyTorch would start more in each.
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(1)


def resample(
    waveform: torch.Tensor, rate_from: int, rate_to: int
) -> torch.Tensor:
    """Resamples a waveform [time] from and to any rate, in Hz."""
    if rate_from == rate_to:
        return waveform
    common = math.gcd(rate_from, rate_to)
    if rate_from * rate_to // common**2 <= _LARGEST_KERNEL:
        return torchaudio.functional.resample(waveform, rate_from, rate_to)
    # Without a common factor of the rates the kernel would take gigabytes.
    return torch.from_numpy(
        scipy.signal.resample_poly(
            waveform.numpy(), rate_to // common, rate_from // common
        ).astype(np.float32)
    )


def repeat_to(waveform: torch.Tensor, samples: int) -> torch.Tensor:
    """Repeats a waveform until it is long enough, and cuts it there."""
    times = -(-samples // len(waveform))
    return (waveform.repeat(times) if times > 1 else waveform)[:samples]


def _is_for_av(path: StrPath) -> bool:
    return os.path.splitext(path)[1].lower() in _BY_AV


def _open_by_av(source: StrPath | BinaryIO) -> av.container.InputContainer:
    return av.open(
        source if hasattr(source, "read") else str(source),
        "r",
        options={"format_whitelist": _FORMATS},
        metadata_errors="replace",  # in tags, which are not used
    )


def _to_rate(samples: int, rate_from: int, rate_to: int) -> int:
    return round(samples * rate_to / rate_from)


def _check_rate(path: StrPath, rate: int) -> None:
    low, high = SAMPLE_RATES
    if not low <= rate <= high:
        raise InputError(
            f"{path} has a sample rate of {rate}, expected {low} to {high} Hz"
        )


def _check_log(path: StrPath, sound: soundfile.SoundFile) -> None:
    """Finds a missing end in what libsndfile logs."""
    log = sound.extra_info
    size = _WAV_SIZE.search(log)
    if _OGG_END in log or (size and int(size[2]) < int(size[1]) < _PIPE_SIZE):
        raise _truncated(path)


def _truncated(path: StrPath) -> InputError:
    return InputError(
        f"{path} is truncated or empty: replace or remove the file"
    )


@contextlib.contextmanager
def _naming(path: StrPath, exists: bool = False) -> Iterator[None]:
    """Turns a decoder's error into one line that names the file."""
    try:
        if not exists and not os.path.isfile(path):
            raise InputError(f"{path} is missing or not a file")
        yield
    except InputError:
        raise
    except _DECODER_ERRORS as error:
        why = getattr(error, "strerror", None) or error  # without the path
        raise InputError(
            f"{path} can't be read as audio ({why}): replace or remove the file"
        ) from error
