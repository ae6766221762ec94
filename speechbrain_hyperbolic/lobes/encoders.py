"""The choice of an encoder by one key."""

import torch

from speechbrain_hyperbolic.errors import InputError


def choose_encoder(encoders: dict, encoder: str) -> torch.nn.Module:
    """Builds the one of several encoders that a key names.

    It stays a plain function, which is all that !apply takes.

    Arguments
    ---------
    encoders : dict
        Name -> callable, which !name: gives.
    encoder : str

    Returns
    -------
    embedding_model : torch.nn.Module

    Raises
    ------
    InputError
        If there is none of that name.

    Example
    -------
    >>> import functools, torch
    >>> choose_encoder({"linear": functools.partial(torch.nn.Linear, 80, 192)},
    ...     "linear")
    Linear(in_features=80, out_features=192, bias=True)
    """
    if encoder not in encoders:
        raise InputError(
            f"encoder is {encoder!r}, expected one of {', '.join(encoders)}"
        )
    return encoders[encoder]()
