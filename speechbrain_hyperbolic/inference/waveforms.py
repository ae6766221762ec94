"""What people pass as audio, as a waveform at the model's sample rate."""

import os

import numpy as np
import torch

from speechbrain_hyperbolic.dataio.audio import resample
from speechbrain_hyperbolic.errors import InputError

_MOST_CHANNELS = 64
# Resampling and mixing exceed 1 by a little, unscaled integers by far.
_LOUDEST = 8.0

Audio = str | os.PathLike | np.ndarray | torch.Tensor


def to_waveform(
    audio: np.ndarray | torch.Tensor, sample_rate: int | None, model_rate: int
) -> torch.Tensor:
    """A mono waveform [time] at the model's rate, which is the default."""
    if isinstance(audio, torch.Tensor):
        # NumPy has no bfloat16.
        audio = audio.float() if audio.is_floating_point() else audio
        audio = audio.detach().cpu().numpy()
    audio = np.asarray(audio)
    if audio.dtype.kind != "f" and audio.dtype != np.int16:
        raise InputError(
            f"the audio is of {audio.dtype}, expected floats in [-1, 1] or "
            "int16"
        )
    # A copy, since torch takes neither negative strides nor other byte orders
    waveform = torch.from_numpy(np.array(audio, np.float32, order="C"))
    if audio.dtype == np.int16:
        waveform /= 2**15
    channels = len(waveform) if waveform.ndim == 2 else 1
    is_signal = waveform.ndim in (1, 2) and waveform.numel() > 0
    if not is_signal or channels > _MOST_CHANNELS:
        raise InputError(
            f"the audio has shape {audio.shape}, expected (time,) or "
            f"(channels, time), with at most {_MOST_CHANNELS} channels"
        )
    loudest = float(waveform.abs().max())
    if not loudest <= _LOUDEST:  # unlike ">", this catches NaN
        raise InputError(
            f"the audio has samples up to {loudest:g}, expected finite floats "
            "in [-1, 1]: divide integers by their range"
        )
    if waveform.ndim == 2:
        waveform = waveform.mean(0)
    return resample(waveform, sample_rate or model_rate, model_rate)
