"""Long audio in windows, so that hours of it fit in memory."""

from collections.abc import Iterator

import torch

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import StrPath

# In seconds. Audio longer than LONGEST is cut into windows; the last window
# takes the remainder.
LONGEST = 60
WINDOW = 30


def split_windows(
    waveform: torch.Tensor, sample_rate: int
) -> tuple[int, Iterator[torch.Tensor]]:
    """Cuts a waveform [time] into (number of windows, windows [time])."""
    bounds = _bounds(len(waveform) / sample_rate, sample_rate)
    return len(bounds), (waveform[start:stop] for start, stop in bounds)


def read_windows(
    path: StrPath, sample_rate: int, channel: int | None = None
) -> tuple[int, Iterator[torch.Tensor]]:
    """As ``split_windows`` of an audio file, read one window at a time."""
    header = audio.info(path)
    bounds = _bounds(header.frames / header.sample_rate, sample_rate)
    return len(bounds), audio.load_parts(
        path, sample_rate, bounds, channel=channel
    )


def _bounds(seconds: float, sample_rate: int) -> list[tuple[int, int | None]]:
    count = int(seconds / WINDOW) if seconds > LONGEST else 1
    size = WINDOW * sample_rate
    starts = range(0, count * size, size)
    return list(zip(starts, [*starts[1:], None], strict=True))
