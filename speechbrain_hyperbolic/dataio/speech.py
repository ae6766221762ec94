"""Finds speech and silence, so that no embedding is made of anything else.

The detector is Silero VAD, whose package brings its weights. It misses quiet
words, so that the loudest part is brought to one level first.
"""

import functools
import threading
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from speechbrain_hyperbolic.dataio.audio import WINDOW, resample

_RATES = (8000, 16000)  # Hz, that the detector knows
_PROBABILITY = 0.5
_SHORTEST = 0.1  # seconds of a segment
# Music has short stretches that the detector takes for speech. It is believed
# if it finds this share of what is about as loud as the loudest part, which
# can be a single word, or as many seconds.
_LEAST_SHARE = 0.2
_ENOUGH = 3.0  # seconds
_ABOUT_AS_LOUD = 1 / 30  # -30 dB
# Thresholds are measured on whole utterances, so shorter pauses stay: cutting
# those of 0.5 s raised the EER of two models from 19 to 20 and from 22 to 25 %.
_PAUSE = 1.5  # seconds
_MARGIN = 0.4  # seconds, kept around a segment
_LEVEL = 0.1  # the RMS of the loudest part
_LARGEST_GAIN = 1000.0

# RMS amplitudes of 50 ms. What stays below QUIET is silent unless it rises
# RISE times above its own floor; what stays below NOTHING is silent.
_FRAME = 0.05  # seconds
_NOTHING = 1e-4  # -80 dBFS
_QUIET = 1e-3  # -60 dBFS
_RISE = 4.0

_lock = threading.Lock()  # the detector has a state


def is_silent(waveform: torch.Tensor, sample_rate: int) -> bool:
    """Whether even the loudest part of a waveform [time] is silence."""
    levels = _levels(waveform, sample_rate)
    loudest = levels.max()
    if loudest >= _QUIET or loudest < _NOTHING:
        return bool(loudest < _NOTHING)
    return bool(loudest < _RISE * np.quantile(levels, 0.1))


def speech_segments(
    waveform: torch.Tensor,
    sample_rate: int,
    pause: float = _PAUSE,
    margin: float = _MARGIN,
) -> list[tuple[int, int]]:
    """The (start, stop) of speech in a waveform [time], in samples.

    Pauses shorter than ``pause`` seconds stay, and ``margin`` seconds around.
    """
    enough = len(waveform) >= _SHORTEST * sample_rate  # for the detector
    if not enough or is_silent(waveform, sample_rate):
        return []
    rate = sample_rate if sample_rate in _RATES else _RATES[-1]
    centered = waveform.float().cpu() - waveform.float().mean().cpu()
    levels = _levels(centered, sample_rate)
    gain = float(_LEVEL / levels.max())
    centered *= min(max(gain, 1.0), _LARGEST_GAIN)
    heard = resample(centered, sample_rate, rate)
    model, find = _detector()
    with _lock, torch.inference_mode():
        model.reset_states()
        probabilities = model.audio_forward(heard[None], rate)[0]
    found = find(
        probabilities.numpy(),
        sampling_rate=rate,
        threshold=_PROBABILITY,
        min_speech_duration_ms=1000 * _SHORTEST,
        speech_pad_ms=0,
        audio_length_samples=len(heard),
    )
    segments = [(s["start"] / rate, s["end"] / rate) for s in found]
    loud = _FRAME * np.sum(levels > _ABOUT_AS_LOUD * levels.max())
    speech = sum(stop - start for start, stop in segments)
    if speech < min(_ENOUGH, _LEAST_SHARE * loud):
        return []
    joined: list[tuple[float, float]] = []
    for start, stop in segments:
        if joined and start - joined[-1][1] < pause:
            start = joined.pop()[0]
        joined.append((start, stop))
    return [
        (
            round(max(0.0, start - margin) * sample_rate),
            min(round((stop + margin) * sample_rate), len(waveform)),
        )
        for start, stop in joined
    ]


def speech_windows(
    windows: Iterable[torch.Tensor], sample_rate: int
) -> Iterator[torch.Tensor]:
    """The speech of consecutive windows, joined to windows of 30 s again."""
    parts: list[torch.Tensor] = []
    for window in windows:
        segments = speech_segments(window, sample_rate)
        parts += (window[start:stop] for start, stop in segments)
        if sum(map(len, parts)) >= WINDOW * sample_rate:
            yield torch.cat(parts)
            parts = []
    if parts:
        yield torch.cat(parts)


def _levels(waveform: torch.Tensor, sample_rate: int) -> np.ndarray:
    """RMS amplitudes without the offset, a frame at a time."""
    samples = waveform.detach().cpu().numpy()
    size = min(max(1, int(_FRAME * sample_rate)), len(samples))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    return frames.astype(np.float64).std(1)


@functools.cache
def _detector() -> tuple:
    """The model, and the function that turns probabilities to segments."""
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a format that PyTorch will retire
        import silero_vad  # type: ignore[import-untyped]

        torch.set_num_threads(threads)  # which that module sets to 1
        model = silero_vad.load_silero_vad()
    return model, silero_vad.get_speech_timestamps_from_probs
