"""Speech against silence, noise, tones and music."""

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.dataio import audio, speech
from tests.dataio.test_audio import noise, tone

RATE = 16000


@pytest.fixture(scope="module")
def voice(speechocean):
    return audio.load(sorted(speechocean.glob("audio/*/*.ogg"))[0])


def music(seconds=8):
    """Chords of decaying harmonics."""
    generator = np.random.default_rng(0)
    sound = np.zeros(seconds * RATE)
    time = np.arange(RATE) / RATE
    for start in range(0, len(sound) - RATE + 1, RATE // 4):
        pitch = 220 * 2 ** (generator.integers(24) / 12)
        for k in range(1, 7):
            wave = np.sin(2 * np.pi * k * pitch * time) / k
            sound[start : start + RATE] += wave * np.exp(-4 * time)
    return sound / 10


NO_SPEECH = {
    "white noise": noise(5),
    "dial tone": tone(5, RATE, 350) + tone(5, RATE, 440),
    "hum": tone(5, RATE, 50),
    "quiet room": noise(5) * 10**-2.5,
    "zeros": np.zeros(5 * RATE),
    "constant": np.full(RATE, 0.3),
    "music": music(),
    "a click": noise(1)[:400],
}
SILENT = ("quiet room", "zeros", "constant")


@pytest.mark.parametrize("kind", NO_SPEECH)
def test_what_is_not_speech(kind):
    sound = torch.from_numpy(np.float32(NO_SPEECH[kind]))
    assert speech.speech_segments(sound, RATE) == []
    assert speech.is_silent(sound, RATE) == (kind in SILENT)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("peak", [0, -46])  # dBFS
def test_speech_is_found_where_it_is(voice, rate, peak):
    """Also if it is quiet, and between seconds of nothing."""
    voice = audio.resample(voice, RATE, rate)
    voice = voice / voice.abs().max() * 10 ** (peak / 20)
    threads = torch.get_num_threads()
    padded = torch.cat([torch.zeros(40 * rate), voice, torch.zeros(5 * rate)])
    assert not speech.is_silent(padded, rate)
    segments = speech.speech_segments(padded, rate)
    assert segments[0][0] > 39.8 * rate
    assert segments[-1][1] < 40.2 * rate + len(voice)
    kept = torch.cat([*speech.speech_windows([padded], rate)])
    assert len(kept) == sum(stop - start for start, stop in segments)
    assert len(kept) > 0.5 * len(voice)
    assert torch.get_num_threads() == threads
