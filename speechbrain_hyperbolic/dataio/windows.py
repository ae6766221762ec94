"""Long audio in windows, so that hours of it fit in memory."""

from collections.abc import Iterator

import torch

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import StrPath

# In seconds. Audio longer than LONGEST is cut into windows; the last window
# takes the remainder.
LONGEST = 60
WINDOW = 30


def is_long(samples: int, sample_rate: int) -> bool:
    """Whether audio is cut into windows."""
    return samples > LONGEST * sample_rate


def split_windows(
    waveform: torch.Tensor, sample_rate: int
) -> tuple[int, Iterator[torch.Tensor]]:
    """Cuts a waveform [time] into (number of windows, windows [time])."""
    count = _count(len(waveform), sample_rate)
    bounds = _bounds(count, sample_rate)
    return count, (waveform[start:stop] for start, stop in bounds)


def read_windows(
    path: StrPath, sample_rate: int
) -> tuple[int, Iterator[torch.Tensor]]:
    """As ``split_windows`` of an audio file, read one window at a time.

    Windows are mono at ``sample_rate`` Hz. Errors are those of ``audio.load``,
    here or while the windows are read.
    """
    header = audio.info(path)
    count = _count(header.frames, header.sample_rate)
    bounds = _bounds(count, sample_rate)
    return count, (audio.load(path, sample_rate, *part) for part in bounds)


def _count(samples: int, sample_rate: int) -> int:
    if not is_long(samples, sample_rate):
        return 1
    return samples // (WINDOW * sample_rate)


def _bounds(count: int, sample_rate: int) -> list[tuple[int, int | None]]:
    size = WINDOW * sample_rate
    starts = range(0, count * size, size)
    return list(zip(starts, [*starts[1:], None], strict=True))
