"""One augmentation an utterance, and babble at its level."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic.augment import AddBabble, OneOf
from speechbrain_hyperbolic.dataio.noise import prepare_noise


class Set(torch.nn.Module):
    """Writes a constant."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, waveforms):
        return torch.full_like(waveforms, self.value)


class SetWithPool(Set):
    """Gets the lengths of its rows, and the whole batch."""

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
    speech = torch.sin(2 * torch.pi * 6000 * time).repeat(200, 1)
    noisy = AddBabble()(speech, torch.ones(200), pool)
    spectrum = torch.fft.rfft(noisy).abs()[:, frequencies]
    voices = (spectrum > 10).sum(1)
    # A voice may be drawn twice, so a few rows have fewer than three.
    assert voices.max() == 8
    assert (voices >= 3).float().mean() > 0.95
    assert set(voices.tolist()) >= {3, 4, 5, 6, 7, 8}


def test_a_batch_of_one():
    speech = torch.randn(1, 1000)
    out = AddBabble()(speech, torch.ones(1), pool=speech)
    assert out.isfinite().all() and (out != speech).any()


def test_babble_of_files(tmp_path):
    """Voices come from the files, not from the batch, where there are any."""
    torch.manual_seed(0)
    time = np.arange(16000) / 16000
    for number in range(8):
        tone = 0.3 * np.sin(2 * np.pi * (1000 + 100 * number) * time)
        path = tmp_path / "musan" / "speech" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone, 16000)
    tables = [tmp_path / f"{kind}.csv" for kind in ("noise", "music", "speech")]
    prepare_noise(tmp_path / "musan", "", tmp_path / "work", *tables)
    speech = torch.sin(2 * torch.pi * 300 * torch.as_tensor(time)).float()
    speech = speech.repeat(6, 1)
    pool = torch.sin(2 * torch.pi * 5000 * torch.as_tensor(time)).float()
    add = AddBabble(csv_file=tables[2], snr_low=13, snr_high=13)
    noisy = add(speech, torch.ones(6), pool=pool.unsqueeze(0))
    spectrum = torch.fft.rfft(noisy).abs()
    of_files = spectrum[:, 1000:1800:100]
    assert (of_files.amax(1) > 100).all()
    assert ((of_files > 20).sum(1) >= 2).all()  # a mixture
    assert (spectrum[:, 5000] < 1).all()
    add = AddBabble(csv_file=tmp_path / "none.csv", snr_low=13, snr_high=13)
    spectrum = torch.fft.rfft(add(speech, torch.ones(6), pool[None])).abs()
    assert (spectrum[:, 5000] > 100).all()
