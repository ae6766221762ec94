"""Long audio in windows, so that hours of it fit in memory."""

import pathlib
from collections.abc import Iterable, Iterator

import soundfile
import torch

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError

# In seconds. What is longer than LONGEST is cut into windows; a remainder
# joins the last one.
LONGEST = 60
WINDOW = 30


def is_long(samples: int, sample_rate: int) -> bool:
    """Whether audio is cut into windows.

    Arguments
    ---------
    samples : int
    sample_rate : int
        In Hz.

    Returns
    -------
    long : bool

    Example
    -------
    >>> is_long(960000, 16000), is_long(960001, 16000)
    (False, True)
    """
    return samples > LONGEST * sample_rate


def split_windows(
    waveform: torch.Tensor, sample_rate: int
) -> tuple[int, Iterable[torch.Tensor]]:
    """Cuts a waveform into windows.

    Arguments
    ---------
    waveform : torch.Tensor
        Shape [time].
    sample_rate : int
        In Hz.

    Returns
    -------
    count : int
    windows : iterable of torch.Tensor
        Shape [time] each.

    Example
    -------
    >>> count, windows = split_windows(torch.zeros(61), sample_rate=1)
    >>> [len(window) for window in windows]
    [30, 31]
    """
    if not is_long(len(waveform), sample_rate):
        return 1, [waveform]
    size = WINDOW * sample_rate
    return len(waveform) // size, _merged(waveform.split(size), size)


def read_windows(
    path: str | pathlib.Path, sample_rate: int
) -> tuple[int, Iterable[torch.Tensor]]:
    """Reads the windows of an audio file, one at a time.

    Arguments
    ---------
    path : str or pathlib.Path
    sample_rate : int
        The rate wanted, in Hz.

    Returns
    -------
    count : int
        By the header of the file.
    windows : iterable of torch.Tensor
        float32, shape [time] each, mono and resampled.

    Raises
    ------
    InputError
        As ``dataio.audio.load``, on the call or while they are read.

    Example
    -------
    >>> path = getfixture("tmpdir") / "a.wav"
    >>> soundfile.write(path, torch.zeros(8000 * 61).numpy(), 8000)
    >>> count, windows = read_windows(path, sample_rate=16000)
    >>> count, [len(window) for window in windows]
    (2, [480000, 496000])
    """
    header = audio.info(path)
    if not is_long(header.frames, header.sample_rate):
        return 1, iter([audio.load(path, sample_rate)])
    size = WINDOW * header.sample_rate
    return header.frames // size, (
        audio.resample(window, header.sample_rate, sample_rate)
        for window in _merged(_read_blocks(pathlib.Path(path), size), size)
    )


def _merged(
    blocks: Iterable[torch.Tensor], size: int
) -> Iterator[torch.Tensor]:
    """Blocks of one size, of which the last takes what is left over."""
    held = None
    for block in blocks:
        if held is None:
            held = block
        elif len(block) < size:
            held = torch.cat([held, block])
        else:
            yield held
            held = block
    if held is not None:
        yield held


def _read_blocks(path: pathlib.Path, size: int) -> Iterator[torch.Tensor]:
    """Yields mono blocks at the rate of the file; the last may be shorter."""
    total = 0
    with audio.naming(path):
        by_av = path.suffix.lower() in audio.BY_AV
        for block in (_by_av if by_av else _by_soundfile)(path, size):
            total += len(block)
            if not block.isfinite().all():
                raise InputError(
                    f"{path} holds NaN or infinite samples: replace or remove "
                    "the file"
                )
            yield block
        audio.check_whole(path, total)


def _by_soundfile(path: pathlib.Path, size: int) -> Iterator[torch.Tensor]:
    with soundfile.SoundFile(str(path)) as file:
        while len(block := audio.read_frames(file, size)):
            yield block


def _by_av(path: pathlib.Path, size: int) -> Iterator[torch.Tensor]:
    held, n_held = [], 0
    for _, samples in audio.blocks_by_av(path):
        held.append(audio.to_mono(samples))
        n_held += len(samples)
        if n_held >= size:
            block = torch.cat(held)
            yield block[:size]
            held, n_held = [block[size:]], n_held - size
    if n_held:
        yield torch.cat(held)
