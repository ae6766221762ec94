"""One augmentation an utterance, and babble at its level."""

import pytest
import torch

from speechbrain_hyperbolic.augment import AddBabble, OneOf
from speechbrain_hyperbolic.errors import InputError


class Set(torch.nn.Module):
    """Writes a constant; sees the pool where it asks for it."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, waveforms):
        return torch.full_like(waveforms, self.value)


class SetWithPool(Set):
    def forward(self, waveforms, lengths, pool):
        assert len(waveforms) == len(lengths) < len(pool)
        return super().forward(waveforms)


def test_each_utterance_has_its_own_choice():
    torch.manual_seed(0)
    one_of = OneOf([Set(1.0), Set(2.0), SetWithPool(3.0)])
    out = one_of(torch.zeros(3000, 4), torch.ones(3000))
    assert (out == out[:, :1]).all()
    counts = [(out[:, 0] == value).sum().item() for value in (1, 2, 3)]
    assert sum(counts) == 3000
    assert all(900 < count < 1100 for count in counts)


def test_nothing_to_choose():
    with pytest.raises(InputError, match="augmentations is empty"):
        OneOf([])


@pytest.mark.parametrize("snr", [0.0, 13.0, 20.0])
def test_babble_level(snr):
    torch.manual_seed(0)
    pool = torch.randn(20, 16000)
    speech = torch.randn(5, 16000)
    noisy = AddBabble(snr_low=snr, snr_high=snr)(speech, torch.ones(5), pool)
    share = (noisy * speech).sum(1) / speech.square().sum(1)
    babble = noisy - share.unsqueeze(1) * speech
    ratio = share.square() * speech.square().sum(1) / babble.square().sum(1)
    assert (10 * ratio.log10() - snr).abs().max() < 0.3


def test_number_of_voices():
    """Voices on separate frequencies are counted in the spectrum."""
    torch.manual_seed(0)
    time = torch.arange(16000) / 16000
    frequencies = torch.arange(100, 4100, 100)
    pool = torch.sin(2 * torch.pi * frequencies.unsqueeze(1) * time)
    silence = torch.zeros(200, 16000)
    babble = AddBabble()._babble(silence, pool)
    spectrum = torch.fft.rfft(babble).abs()[:, frequencies]
    voices = (spectrum > 1000).sum(1)
    # A voice may be drawn twice, so a few rows have fewer than three.
    assert voices.max() == 8
    assert (voices >= 3).float().mean() > 0.95
    assert set(voices.tolist()) >= {3, 4, 5, 6, 7, 8}


def test_a_batch_of_one():
    speech = torch.randn(1, 1000)
    out = AddBabble()(speech, torch.ones(1), pool=speech)
    assert out.isfinite().all() and (out != speech).any()
