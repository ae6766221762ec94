"""Reads any audio file as the recipe wants it: mono, at one sample rate.

wav, flac, ogg and what else libsndfile knows are read by ``soundfile``, with
random access; the rest (m4a, mp4, ...: VoxCeleb2 as released) by PyAV.
"""

import contextlib
import math
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import scipy.signal
import soundfile
import torch
import torchaudio

from speechbrain_hyperbolic.errors import InputError

_EXTENSIONS = (".wav", ".flac", ".ogg", ".m4a")
EXTENSIONS = _EXTENSIONS + tuple(e.upper() for e in _EXTENSIONS)
SAMPLE_RATES = (1000, 768000)  # Hz
MOST_FRAMES = 2**40  # libsndfile has 2^63 - 1 for what it doesn't know
_BLOCK = 2**24  # samples that are read at a time
_LARGEST_KERNEL = 10**7  # of torchaudio's resampler, about, in samples
BY_AV = (".m4a", ".mp4", ".aac")  # what libsndfile can't read
# FFmpeg goes by content, and would open whatever files a playlist names.
_FORMATS = "mov,aac,mp3,wav,flac,ogg"
# The start of a 16-bit wav file, but for its size: fmt has 16 bytes, PCM is 1;
# then channels, sample rate, bytes a second, bytes a frame, bits a sample.
_PCM = b"WAVEfmt \x10\0\0\0\1\0"
_FORMAT = struct.Struct("<HIIHH")
_CHUNK = struct.Struct("<4sI")
# A pipe that is named .wav must not be waited for; Windows has only O_BINARY.
_BINARY = (
    os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
)
# The header of an AAC file is exact to two of its frames.
AAC_SLACK = 2048


class AudioInfo(NamedTuple):
    """What the header of an audio file says.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    frames : int
        Number of samples per channel.
    channels : int
    """

    sample_rate: int
    frames: int
    channels: int


def info(path: str | pathlib.Path) -> AudioInfo:
    """Reads the header of an audio file.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    info : AudioInfo

    Raises
    ------
    InputError
        If the file is missing, empty or not audio; it names the file.
    """
    found = _info_of_pcm(path)
    if found is None:
        path = pathlib.Path(path)
        with naming(path):
            if path.suffix.lower() in BY_AV:
                with _open_by_av(path) as container:
                    stream = container.streams.audio[0]
                    found = AudioInfo(
                        stream.rate, _frames_of(stream), stream.channels
                    )
            else:
                header = soundfile.info(str(path))
                found = AudioInfo(
                    header.samplerate, header.frames, header.channels
                )
    _check_rate(path, found.sample_rate)
    if found.frames > MOST_FRAMES:
        raise InputError(
            f"the header of {path} has no length: convert it, to wav e.g."
        )
    if found.frames <= 0 or found.channels <= 0:
        raise InputError(f"{path} has no samples: replace or remove the file")
    return found


def _info_of_pcm(path: str | pathlib.Path) -> AudioInfo | None:
    """The header of a whole 16-bit wav file of the usual layout, else None.

    It takes a quarter of the time of soundfile, to which the rest is left.
    """
    try:
        file = os.open(path, _BINARY)
    except OSError:
        return None
    try:
        head = os.read(file, 256)
        size = os.fstat(file).st_size
    except OSError:  # a folder
        return None
    finally:
        os.close(file)
    if head[:4] != b"RIFF" or head[8:22] != _PCM or len(head) < 44:
        return None
    channels, rate, per_second, block, bits = _FORMAT.unpack_from(head, 22)
    if (bits, block, per_second) != (16, 2 * channels, rate * block):
        return None
    if per_second == 0:  # no channels, or no rate
        return None
    start = 36
    while start + 8 <= len(head):
        name, length = _CHUNK.unpack_from(head, start)
        start += 8
        if name == b"data":
            whole = start + length <= size and length % block == 0
            return AudioInfo(rate, length // block, channels) if whole else None
        if name != b"LIST":  # what ffmpeg writes of itself
            return None
        start += length + length % 2
    return None


def load(
    path: str | pathlib.Path,
    sample_rate: int = 16000,
    start: int = 0,
    stop: int | None = None,
    channel: int | None = None,
    file: BinaryIO | None = None,
) -> torch.Tensor:
    """Reads audio, as one channel and resampled.

    Arguments
    ---------
    path : str or pathlib.Path
    sample_rate : int
        The rate wanted, in Hz.
    start : int
        First sample, counted at the rate wanted.
    stop : int
        The sample after the last, counted likewise; None: to the end.
    channel : int
        The channel to take; None: their mean.
    file : file object
        What to read, to a stop; the path is its name. None: the path itself.

    Returns
    -------
    waveform : torch.Tensor
        float32 in [-1, 1], shape [time].

    Raises
    ------
    InputError
        If the file can't be decoded, has nothing there, or is truncated: ends
        before ``stop`` or, where all of it is read, before it should; it names
        the file.

    Example
    -------
    >>> path = getfixture("tmpdir") / "stereo.wav"
    >>> soundfile.write(path, np.zeros((8000, 2)), 8000)
    >>> load(path, sample_rate=16000, start=0, stop=4000).shape
    torch.Size([4000])
    """
    path = pathlib.Path(path)
    slack = 1  # start and length are rounded
    with naming(path, there=file is not None):
        if path.suffix.lower() in BY_AV:
            slack = AAC_SLACK
            waveform, rate = _decode_by_av(file or path, channel)
            waveform = waveform[_to_rate(start, sample_rate, rate) :]
            if stop is not None:
                waveform = waveform[: _to_rate(stop - start, sample_rate, rate)]
        else:
            with soundfile.SoundFile(file or str(path)) as sound:
                rate = sound.samplerate
                sound.seek(_to_rate(start, sample_rate, rate))
                frames = sound.frames
                if stop is not None:
                    frames = _to_rate(stop - start, sample_rate, rate)
                waveform = read_frames(sound, frames, channel)
    _check_rate(path, rate)
    if len(waveform) == 0:
        raise InputError(
            f"{path} has no samples from {start / sample_rate:.2f} s on: it "
            "is empty or truncated; replace or remove the file"
        )
    if stop is None:
        if start == 0:
            check_whole(path, len(waveform))
    elif len(waveform) < _to_rate(stop - start, sample_rate, rate) - slack:
        raise InputError(
            f"{path} ends before {stop / sample_rate:.2f} s: it is truncated; "
            "replace or remove the file"
        )
    if not waveform.isfinite().all():
        raise InputError(
            f"{path} holds NaN or infinite samples: replace or remove the file"
        )
    waveform = resample(waveform, rate, sample_rate)
    return waveform if stop is None else waveform[: stop - start]


def read_frames(
    file: soundfile.SoundFile, frames: int, channel: int | None = None
) -> torch.Tensor:
    """Reads one channel, in blocks: what a header claims may not be there.

    Arguments
    ---------
    file : soundfile.SoundFile
    frames : int
        The most that are read.
    channel : int
        The channel to take; None: their mean.

    Returns
    -------
    waveform : torch.Tensor
        float32, shape [time]: shorter where the file ends.
    """
    most = max(1, _BLOCK // file.channels)
    blocks = []
    # A damaged file may be somewhere behind its end.
    while frames > 0 and file.tell() < file.frames:
        wanted = min(frames, most)
        blocks.append(
            to_mono(file.read(wanted, "float32", always_2d=True), channel)
        )
        if len(blocks[-1]) < wanted:
            break
        frames -= wanted
    return (
        blocks[0] if len(blocks) == 1 else torch.cat([torch.zeros(0), *blocks])
    )


def to_mono(samples: np.ndarray, channel: int | None = None) -> torch.Tensor:
    """One channel of what was decoded.

    Arguments
    ---------
    samples : np.ndarray
        float32, shape [time, channels].
    channel : int
        The channel to take; None: their mean.

    Returns
    -------
    waveform : torch.Tensor
        float32, shape [time].
    """
    waveform = torch.from_numpy(samples)
    if channel is not None:
        return waveform[:, channel].contiguous()
    return waveform.squeeze(1) if waveform.shape[1] == 1 else waveform.mean(1)


def resample(
    waveform: torch.Tensor, rate_from: int, rate_to: int
) -> torch.Tensor:
    """Resamples a waveform, with bounded memory at any rate.

    Arguments
    ---------
    waveform : torch.Tensor
        float32, shape [time].
    rate_from : int
        In Hz.
    rate_to : int
        In Hz.

    Returns
    -------
    waveform : torch.Tensor
        float32, shape [time].

    Example
    -------
    >>> resample(torch.zeros(441), 44100, 16000).shape
    torch.Size([160])
    """
    if rate_from == rate_to:
        return waveform
    common = math.gcd(rate_from, rate_to)
    if rate_from * rate_to // common**2 <= _LARGEST_KERNEL:
        return torchaudio.functional.resample(waveform, rate_from, rate_to)
    # Of two rates without a common factor torchaudio's kernel has gigabytes.
    return torch.from_numpy(
        scipy.signal.resample_poly(
            waveform.numpy(), rate_to // common, rate_from // common
        ).astype(np.float32)
    )


def repeat_to(waveform: torch.Tensor, samples: int) -> torch.Tensor:
    """Repeats a waveform until it is long enough, and cuts it there.

    Arguments
    ---------
    waveform : torch.Tensor
        Shape [time].
    samples : int

    Returns
    -------
    waveform : torch.Tensor
        Shape [samples].

    Example
    -------
    >>> repeat_to(torch.tensor([1, 2, 3]), 5)
    tensor([1, 2, 3, 1, 2])
    """
    times = -(-samples // len(waveform))
    return (waveform.repeat(times) if times > 1 else waveform)[:samples]


def check_whole(path: pathlib.Path, samples: int) -> None:
    """Notices a cut file, over whose missing end decoders pass.

    Arguments
    ---------
    path : pathlib.Path
    samples : int
        That were decoded, of each channel, at the rate of the file.

    Raises
    ------
    InputError
        If there should be more.
    """
    slack = AAC_SLACK if path.suffix.lower() in BY_AV else 0
    whole = samples >= info(path).frames - slack
    if path.suffix.lower() == ".wav":
        with open(path, "rb") as file:
            magic, size = struct.unpack("<4sI", file.read(8))
        # A writer to a pipe can't know the size, and writes a huge one.
        known = magic == b"RIFF" and size < 0x7FFFF000
        whole &= not known or size + 8 <= path.stat().st_size
    elif path.suffix.lower() == ".ogg":
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))  # a page, at most
            tail = file.read()
        # The sixth byte of the last page's header flags the end of the stream.
        page = tail.rfind(b"OggS")
        whole &= page >= 0 and bool(tail[page + 5] & 4)
    if not whole:
        raise InputError(
            f"{path} is truncated, its end is missing: replace or remove the "
            "file"
        )


def _check_rate(path: str | pathlib.Path, rate: int) -> None:
    low, high = SAMPLE_RATES
    if not low <= rate <= high:
        raise InputError(
            f"{path} has a sample rate of {rate}, expected {low} to {high} Hz"
        )


def _to_rate(samples: int, rate_from: int, rate_to: int) -> int:
    return round(samples * rate_to / rate_from)


def _decode_by_av(
    path: pathlib.Path | BinaryIO, channel: int | None
) -> tuple[torch.Tensor, int]:
    decoded = [
        (rate, to_mono(samples, channel))
        for rate, samples in blocks_by_av(path)
    ]
    if not decoded:
        return torch.zeros(0), info(path).sample_rate  # type: ignore[arg-type]
    rates, blocks = zip(*decoded, strict=True)
    return torch.cat(blocks), rates[0]


def blocks_by_av(
    path: str | pathlib.Path | BinaryIO,
) -> Iterator[tuple[int, np.ndarray]]:
    """Decodes what libsndfile can't, a block at a time.

    Arguments
    ---------
    path : str, pathlib.Path or file object

    Yields
    ------
    rate : int
        Of the file, in Hz.
    samples : np.ndarray
        float32, shape [time, channels].

    Raises
    ------
    InputError
        If it is longer than its header says, by which limits go, or its
        channels or rate change.
    """
    with _open_by_av(path) as container:
        stream = container.streams.audio[0]
        # Packed: of eight channels or more PyAV reads planes that aren't there.
        resampler = av.AudioResampler(format="flt", rate=stream.rate)
        left = _frames_of(stream) + AAC_SLACK
        first = None
        for frame in container.decode(stream):
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            first = first or kind
            if kind != first:
                raise InputError(
                    f"{path} changes from {first} to {kind} in its midst: "
                    "convert it, to wav e.g."
                )
            for block in resampler.resample(frame):
                samples = block.to_ndarray().reshape(block.samples, -1)
                left -= len(samples)
                if left < 0:
                    raise InputError(
                        f"{path} is longer than its header says: convert it, "
                        "to wav e.g."
                    )
                yield stream.rate, samples


def _open_by_av(
    path: str | pathlib.Path | BinaryIO,
) -> av.container.InputContainer:
    return av.open(
        path if hasattr(path, "read") else str(path),
        "r",
        options={"format_whitelist": _FORMATS},
        metadata_errors="replace",  # of tags, which no one reads
    )


def _frames_of(stream: av.audio.stream.AudioStream) -> int:
    # Without a duration it's a TypeError, as which ``naming`` knows it.
    length = stream.duration * stream.time_base  # type: ignore[operator]
    return round(length * stream.rate)


@contextlib.contextmanager
def naming(path: pathlib.Path, there: bool = False) -> Iterator[None]:
    """Turns a decoder's error into one line that names the file.

    Arguments
    ---------
    path : pathlib.Path
    there : bool
        Whether it is known to be, e.g. in another file.

    Raises
    ------
    InputError
        If there is no such file, or it can't be decoded in the block.
    """
    try:
        if not there and path.is_dir():
            raise InputError(f"{path} is a folder, expected an audio file")
        if not there and not path.is_file():
            raise InputError(f"{path} is missing: no such audio file")
        yield
    except (
        soundfile.SoundFileError,
        av.FFmpegError,
        IndexError,  # a container without an audio stream
        AttributeError,  # a stream without a rate
        TypeError,  # a stream without a duration
        OSError,
    ) as error:
        why = getattr(error, "strerror", None) or error  # without the path
        raise InputError(
            f"{path} can't be read as audio ({why}): replace or remove the file"
        ) from error
