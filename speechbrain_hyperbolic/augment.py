"""Waveform augmentation of the published protocol.

Each utterance gives its clean crop and one augmented copy: the stock
``Augmenter`` with ``concat_original`` around ``OneOf``.
"""

import inspect
import pathlib
from typing import Any

import torch
from speechbrain.augment.time_domain import AddNoise

from speechbrain_hyperbolic.errors import InputError


class OneOf(torch.nn.Module):
    """Gives each utterance one augmentation, drawn at random.

    The stock ``Augmenter`` draws one for the whole batch.

    Arguments
    ---------
    augmentations : list of torch.nn.Module
        Each takes ``(waveforms)`` or ``(waveforms, lengths)``; one that has
        an argument ``pool`` is also given the whole batch.

    Example
    -------
    >>> one_of = OneOf([AddNoise(snr_low=0, snr_high=15), AddBabble()])
    >>> one_of(torch.randn(4, 16000), torch.ones(4)).shape
    torch.Size([4, 16000])
    """

    def __init__(self, augmentations: list[torch.nn.Module]) -> None:
        super().__init__()
        if not augmentations:
            raise InputError("augmentations is empty, expected at least one")
        self.augmentations = torch.nn.ModuleList(augmentations)

    def forward(
        self, waveforms: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Augments a batch.

        Arguments
        ---------
        waveforms : torch.Tensor
            Shape [batch, time].
        lengths : torch.Tensor
            Relative lengths in (0, 1], shape [batch].

        Returns
        -------
        waveforms : torch.Tensor
            Of the same shape.
        """
        # On the CPU: else each look at the rows would wait for the GPU.
        chosen = torch.randint(len(self.augmentations), (len(waveforms),))
        augmented = torch.empty_like(waveforms)
        for number, augmentation in enumerate(self.augmentations):
            rows = (chosen == number).nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            accepted = inspect.signature(augmentation.forward).parameters
            extra = {"lengths": lengths[rows], "pool": waveforms}
            augmented[rows] = augmentation(
                waveforms[rows],
                **{k: v for k, v in extra.items() if k in accepted},
            )
        return augmented


class AddBabble(AddNoise):
    """Adds the voices of several utterances.

    They are drawn from files of speech, or, where there are none, from the
    batch. For each batch the files give as many crops as there are utterances
    to add babble to.

    Arguments
    ---------
    speakers_low : int
        Fewest voices in the babble. Published: 3.
    speakers_high : int
        Most voices. Published: 8.
    snr_low : float
        Lowest signal-to-noise ratio, in dB. Published: 13.
    snr_high : float
        Highest. Published: 20.
    csv_file : str or pathlib.Path
        Files of speech (MUSAN), as ``prepare_noise`` writes it. Where it is
        missing at the first batch, the batch is drawn from.
    **options : dict
        For the stock AddNoise.

    Example
    -------
    >>> waveforms = torch.randn(2, 16000)
    >>> AddBabble()(waveforms, torch.ones(2), pool=waveforms).shape
    torch.Size([2, 16000])
    """

    csv_file: str | pathlib.Path | None

    def __init__(
        self,
        speakers_low: int = 3,
        speakers_high: int = 8,
        snr_low: float = 13,
        snr_high: float = 20,
        csv_file: str | pathlib.Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            csv_file=csv_file, snr_low=snr_low, snr_high=snr_high, **options
        )
        self.speakers_low = speakers_low
        self.speakers_high = speakers_high

    def forward(
        self, waveforms: torch.Tensor, lengths: torch.Tensor, pool: torch.Tensor
    ) -> torch.Tensor:
        """Adds babble to a batch.

        Arguments
        ---------
        waveforms : torch.Tensor
            Shape [batch, time].
        lengths : torch.Tensor
            Relative lengths in (0, 1], shape [batch].
        pool : torch.Tensor
            Utterances to draw from where there are no files, shape
            [any, time].

        Returns
        -------
        waveforms : torch.Tensor
            Shape [batch, time].
        """
        if self.csv_file and not pathlib.Path(self.csv_file).is_file():
            self.csv_file = None  # what the stock class draws noise without
        self.noise_funct = lambda speech: self._babble(speech, pool)
        return super().forward(waveforms, lengths)

    def _load_noise(
        self, lengths: torch.Tensor, max_length: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the stock class draws from the files, mixed."""
        voices, lengths = super()._load_noise(lengths, max_length)
        return self._babble(voices, voices), lengths

    def _babble(self, speech: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
        # An own random shift a draw: in a small pool, where an utterance can
        # only be mixed with itself, the copy is at least not aligned with it.
        babble = torch.zeros_like(speech)
        for row in babble:
            voices = _draw(self.speakers_low, self.speakers_high + 1)
            for _ in range(voices):
                voice = pool[_draw(0, len(pool))]
                row += voice.roll(_draw(0, len(voice)))
        return babble


def _draw(low: int, high: int) -> int:
    return int(torch.randint(low, high, (1,)))
