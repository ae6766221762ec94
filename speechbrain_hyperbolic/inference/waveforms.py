"""What people pass as audio, as a waveform at the model's sample rate."""

import numbers
import os

import numpy as np
import torch

from speechbrain_hyperbolic.dataio.audio import (
    SAMPLE_RATES,
    SILENCE,
    repeat_to,
    resample,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import SHORTEST

_MOST_CHANNELS = 64
# Resampling and mixing exceed 1 by a little, unscaled integers by far.
_LOUDEST = 8.0

Audio = str | os.PathLike | np.ndarray | torch.Tensor


def is_silent(waveform: torch.Tensor) -> bool:
    """Whether there is nothing to recognize; its embedding would look valid."""
    return bool(waveform.abs().mean() < SILENCE)


def long_enough(waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Repeated as the training's evaluation repeats it, if it is too short."""
    shortest = int(SHORTEST * sample_rate)
    return repeat_to(waveform, max(len(waveform), shortest))


def to_waveform(
    audio: np.ndarray | torch.Tensor, sample_rate: int | None, model_rate: int
) -> torch.Tensor:
    """A mono waveform [time] at the model's rate, which is the default."""
    if isinstance(audio, torch.Tensor):
        audio = audio.detach().cpu().resolve_neg()
        audio = audio.float() if audio.is_floating_point() else audio
        audio = audio.numpy()
    if not isinstance(audio, np.ndarray):
        raise InputError(
            f"the audio is of type {type(audio).__name__}, expected a "
            "path, an array or a tensor"
        )
    # By kind and size, for arrays of any byte order
    is_int16 = (audio.dtype.kind, audio.dtype.itemsize) == ("i", 2)
    if audio.dtype.kind != "f" and not is_int16:
        raise InputError(
            f"the audio is of {audio.dtype}, expected floats in [-1, 1] or "
            "int16"
        )
    with np.errstate(over="ignore"):  # an overflow is found below
        waveform = torch.from_numpy(np.array(audio, np.float32, order="C"))
    channels = len(waveform) if waveform.ndim == 2 else 1
    is_signal = waveform.ndim in (1, 2) and waveform.numel() > 0
    if not is_signal or channels > _MOST_CHANNELS:
        raise InputError(
            f"the audio has shape {tuple(waveform.shape)}, expected (time,) or "
            f"(channels, time), of {_MOST_CHANNELS} channels at most"
        )
    loudest = waveform.abs().max() / (2**15 if is_int16 else 1)
    if not loudest <= _LOUDEST:  # unlike ">", this catches NaN
        raise InputError(
            f"the audio has samples up to {float(loudest):g}, expected finite "
            "floats in [-1, 1]: divide integers by their range"
        )
    if is_int16:
        waveform /= 2**15
    if sample_rate is None:
        sample_rate = model_rate
    low, high = SAMPLE_RATES
    is_integer = isinstance(sample_rate, numbers.Integral)
    if not is_integer or not low <= sample_rate <= high:
        raise InputError(
            f"sample_rate is {sample_rate!r}, expected an integer from "
            f"{low} to {high}, in Hz"
        )
    if waveform.ndim == 2:
        waveform = waveform.mean(0)
    return resample(waveform, int(sample_rate), model_rate)
