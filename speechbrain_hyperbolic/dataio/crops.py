"""Crops of utterances that do not depend on the order of reading."""

import dataclasses
import hashlib
from typing import BinaryIO

import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import StrPath


class SharedEpochCounter(EpochCounter):
    """The stock counter, in memory that all workers of a data loader share.

    Otherwise persistent workers would keep the counter of their first epoch,
    and read the same crops in every epoch.

    Arguments
    ---------
    limit : int
        The last epoch.

    Example
    -------
    >>> list(SharedEpochCounter(3))
    [1, 2, 3]
    """

    def __init__(self, limit: int) -> None:
        self._current = torch.zeros((), dtype=torch.int64).share_memory_()
        super().__init__(limit)

    @property
    def current(self) -> int:
        """The epoch, from 1; 0 before the first."""
        return int(self._current)

    @current.setter
    def current(self, epoch: int) -> None:
        self._current.fill_(epoch)


def draw(below: int, *key: str | int) -> int:
    """A pseudorandom number in [0, below) that is a function of its key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % below


@dataclasses.dataclass
class Crop:
    """Reads a crop at a place that depends on seed, epoch and name only.

    Without a counter it is the middle. A shorter utterance is repeated.
    """

    samples: int
    sample_rate: int
    seed: int = 0
    counter: EpochCounter | None = None

    def __call__(
        self,
        name: str,
        wav: StrPath,
        start: int,
        stop: int,
        file: BinaryIO | None = None,
    ) -> torch.Tensor:
        """A crop [samples] of samples ``start`` to ``stop`` of a file."""
        surplus = stop - start - self.samples
        if surplus > 0:
            offset = surplus // 2
            if self.counter is not None:
                epoch = self.counter.current
                offset = draw(surplus + 1, self.seed, epoch, name)
            start += offset
            stop = start + self.samples
        waveform = audio.load(wav, self.sample_rate, start, stop, file=file)
        return audio.repeat_to(waveform, self.samples)
