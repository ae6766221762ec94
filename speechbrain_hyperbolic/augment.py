"""Waveform augmentation of the published protocol.

Each utterance gives its clean crop and one augmented copy: the stock
``Augmenter`` with ``concat_original`` around ``OneOf``.
"""

import inspect
import pathlib
from typing import Any

import torch
from speechbrain.augment.time_domain import AddNoise

from speechbrain_hyperbolic.dataio.files import StrPath


class OneOf(torch.nn.Module):
    """Gives each utterance one augmentation, drawn at random.

    The stock ``Augmenter`` draws one for the whole batch.

    Arguments
    ---------
    augmentations : list of torch.nn.Module
        Each takes ``(waveforms)`` or ``(waveforms, lengths)``; one with an
        argument ``pool`` also gets the whole batch.

    Example
    -------
    >>> one_of = OneOf([AddNoise(snr_low=0, snr_high=15), AddBabble()])
    >>> one_of(torch.randn(4, 16000), torch.ones(4)).shape
    torch.Size([4, 16000])
    """

    def __init__(self, augmentations: list[torch.nn.Module]) -> None:
        super().__init__()
        self.augmentations = torch.nn.ModuleList(augmentations)

    def forward(
        self, waveforms: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Augments waveforms [batch, time] of relative lengths [batch]."""
        # On the CPU, since reading the rows would otherwise wait for the GPU.
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
    """Adds the voices of several speakers.

    They are drawn from files of speech or, without any, from the batch.

    Arguments
    ---------
    speakers_low : int
        Fewest voices. Published: 3.
    speakers_high : int
        Most voices. Published: 8.
    snr_low : float
        Lowest signal-to-noise ratio, in dB. Published: 13.
    snr_high : float
        Highest, in dB. Published: 20.
    csv_file : str or pathlib.Path
        Files of speech, as ``prepare_noise`` lists them. If the file does not
        exist, voices are drawn from the batch.
    **options : dict
        For the stock AddNoise.

    Example
    -------
    >>> waveforms = torch.randn(2, 16000)
    >>> AddBabble()(waveforms, torch.ones(2), pool=waveforms).shape
    torch.Size([2, 16000])
    """

    csv_file: StrPath | None

    def __init__(
        self,
        speakers_low: int = 3,
        speakers_high: int = 8,
        snr_low: float = 13,
        snr_high: float = 20,
        csv_file: StrPath | None = None,
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
        """Adds babble to waveforms [batch, time], of files or of ``pool``."""
        if self.csv_file and not pathlib.Path(self.csv_file).is_file():
            self.csv_file = None  # then the stock class calls noise_funct
        self.noise_funct = lambda speech: self._babble(speech, pool)
        return super().forward(waveforms, lengths)

    def _load_noise(
        self, lengths: torch.Tensor, max_length: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixes what the stock class draws from the files."""
        voices, lengths = super()._load_noise(lengths, max_length)
        return self._babble(voices, voices), lengths

    def _babble(self, speech: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
        # Each voice has its own random shift, so that in a small pool an
        # utterance is at least not mixed with an aligned copy of itself.
        babble = torch.zeros_like(speech)
        for row in babble:
            for _ in range(_draw(self.speakers_low, self.speakers_high + 1)):
                voice = pool[_draw(0, len(pool))]
                row += voice.roll(_draw(0, len(voice)))
        return babble


def _draw(low: int, high: int) -> int:
    return int(torch.randint(low, high, (1,)))
