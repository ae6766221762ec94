"""Crops of utterances that the order of their reading does not change."""

import hashlib
import pathlib
from typing import BinaryIO

import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.dataio import audio


class SharedEpochCounter(EpochCounter):
    """The stock counter, whose count all workers of a data loader see.

    Workers that persist were made with the count of their first epoch.

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
        """The epoch, from 1; 0: before the first."""
        return int(self._current)

    @current.setter
    def current(self, epoch: int) -> None:
        self._current.fill_(epoch)


def draw(below: int, *key: str | int) -> int:
    """A number that looks random and is a function of its key.

    Arguments
    ---------
    below : int
        One more than the largest that is drawn.
    *key : str or int
        What it is drawn for, e.g. seed, epoch and utterance.

    Returns
    -------
    number : int

    Example
    -------
    >>> draw(100, 1986, 1, "a"), draw(100, 1986, 2, "a")
    (86, 4)
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % below


class Crop:
    """Reads a crop of an utterance; of a shorter one, its repetition.

    It is drawn of the seed, the epoch and the utterance's name alone: not of
    the worker that reads it, nor of what was read before.

    Arguments
    ---------
    samples : int
        The length.
    sample_rate : int
        In Hz.
    seed : int
    counter : EpochCounter
        Says which epoch it is, in ``current``; None: the middle is read.
    """

    def __init__(
        self,
        samples: int,
        sample_rate: int,
        seed: int = 0,
        counter: EpochCounter | None = None,
    ) -> None:
        self.samples = samples
        self.sample_rate = sample_rate
        self.seed = seed
        self.counter = counter

    def __call__(
        self,
        name: str,
        wav: str | pathlib.Path,
        start: int,
        stop: int,
        file: BinaryIO | None = None,
    ) -> torch.Tensor:
        """Reads it.

        Arguments
        ---------
        name : str
            Of the utterance.
        wav : str or pathlib.Path
        start, stop : int
            The first sample of the utterance, and that after its last.
        file : file object
            What to read, where it is not in a file ``wav`` of its own.

        Returns
        -------
        crop : torch.Tensor
            Shape [samples].
        """
        slack = stop - start - self.samples
        if slack > 0:
            start += self._offset(slack, name)
            stop = start + self.samples
        waveform = audio.load(wav, self.sample_rate, start, stop, file=file)
        return audio.repeat_to(waveform, self.samples)

    def _offset(self, slack: int, name: str) -> int:
        if self.counter is None:
            return slack // 2
        return draw(slack + 1, self.seed, self.counter.current, name)
