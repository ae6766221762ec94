"""One channel out of several."""

import functools

import numpy as np
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.errors import InputError

logger = get_logger(__name__)

# What is left of the power of channels whose mean cancels; it is 1 where they
# are equal, and 1 / channels^2 where all others are silent.
_CANCELED = 0.04


def to_mono(
    samples: np.ndarray, channel: int | None = None, name: str = "the audio"
) -> np.ndarray:
    """One channel of [time, channels]: their mean, or that of a number."""
    # By NumPy: many threads read files, and PyTorch would start more in each.
    channels = samples.shape[1]
    if channel is not None and not 0 <= channel < channels:
        raise InputError(
            f"{name} has {channels} channel(s): channel {channel} is not one "
            f"of 0 to {channels - 1}"
        )
    if channel is not None or channels == 1:
        return samples[:, channel or 0]
    mean = samples.mean(1)
    powers = np.einsum("ij,ij->j", samples, samples)
    if mean @ mean < _CANCELED / channels**2 * powers.max():
        _warn_of_cancellation(name)
        return samples[:, powers.argmax()]
    return mean


@functools.cache  # once for each file
def _warn_of_cancellation(name: str) -> None:
    logger.warning(
        f"{name} has channels of opposite phase, whose mean cancels: its "
        "loudest channel is read"
    )
