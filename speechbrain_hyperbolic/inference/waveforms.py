"""What people pass as audio, as a waveform at the model's sample rate."""

import io
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import torch

from speechbrain_hyperbolic.dataio.audio import (
    load,
    read_windows,
    resample,
    split_windows,
    to_mono,
)
from speechbrain_hyperbolic.errors import InputError, check_positive

_MOST_CHANNELS = 64
# Resampling and mixing exceed 1 by a little, unscaled integers by far.
_LOUDEST = 8.0

# Type -> what is at zero, and the largest amplitude
_INTEGERS = {"int16": (0, 2**15), "int32": (0, 2**31), "uint8": (128, 2**7)}

Audio = str | os.PathLike | BinaryIO | np.ndarray | torch.Tensor


def read_audio(
    audio: Audio,
    sample_rate: int | None,
    model_rate: int,
    channel: int | None = None,
) -> tuple[str, Iterator[torch.Tensor]]:
    """The name of audio for messages, and its windows at the model's rate."""
    name = "the audio"
    if isinstance(audio, (str, os.PathLike)):
        name = os.fspath(audio)
        if name != "-":
            return name, read_windows(name, model_rate, channel)
        name = "standard input"
        audio = getattr(sys.stdin, "buffer", io.BytesIO())  # if it is closed
    if hasattr(audio, "read"):
        file = io.BytesIO(audio.read())  # a pipe can't seek
        waveform = load(name, model_rate, file=file, channel=channel)
    else:
        rate = model_rate if sample_rate is None else sample_rate
        rate = int(check_positive("sample_rate", rate))
        waveform = resample(_mono(audio, channel), rate, model_rate)
    return name, split_windows(waveform, model_rate)


def _mono(
    audio: np.ndarray | torch.Tensor, channel: int | None
) -> torch.Tensor:
    """A waveform [time]; the smaller dimension is that of the channels."""
    if isinstance(audio, torch.Tensor):
        # NumPy has no bfloat16.
        audio = audio.float() if audio.is_floating_point() else audio
        audio = audio.detach().cpu().numpy()
    audio = np.asarray(audio)
    zero, scale = _INTEGERS.get(audio.dtype.name, (0, 1))
    if audio.dtype.kind != "f" and scale == 1:
        raise InputError(
            f"the audio is of {audio.dtype}, expected floats in [-1, 1], "
            "int16, int32 or uint8"
        )
    samples = np.atleast_2d((audio.astype(np.float32) - zero) / scale)
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    is_signal = samples.ndim == 2 and samples.size > 0
    if not is_signal or samples.shape[1] > _MOST_CHANNELS:
        raise InputError(
            f"the audio has shape {audio.shape}, expected (time,), (channels, "
            f"time) or (time, channels), with at most {_MOST_CHANNELS} channels"
        )
    loudest = float(np.abs(samples).max())
    if not loudest <= _LOUDEST:  # unlike ">", this catches NaN
        raise InputError(
            f"the audio has samples up to {loudest:g}, expected finite floats "
            "in [-1, 1]: divide integers by their range"
        )
    mono = np.ascontiguousarray(to_mono(samples, channel), np.float32)
    return torch.from_numpy(mono)
