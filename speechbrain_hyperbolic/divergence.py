"""Where a training diverged: the batch, in a file."""

import json
import math
import pathlib
from typing import Any, NoReturn

import torch

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError

NAME = "diverged.json"


def stop_diverged(
    output_folder: str | pathlib.Path,
    what: str,
    value: float,
    gradient_norms: list[torch.Tensor],
    **place: Any,
) -> NoReturn:
    """Ends a training whose loss or gradient is not finite.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        Where ``diverged.json`` goes.
    what : str
        "loss" or "gradient_norm".
    value : float
        Of it.
    gradient_norms : list of torch.Tensor
        Of the steps before, of which the last is noted.
    **place : dict
        "epoch", "step", "ids" of the batch, and "lr", the learning rate.

    Raises
    ------
    InputError
        Says where, and names the file.
    """
    path = pathlib.Path(output_folder) / NAME
    last = gradient_norms[-1].item() if gradient_norms else None
    report = {**place, "last_gradient_norm": last, what: value}
    # JSON has no NaN.
    report = {
        key: repr(v) if isinstance(v, float) and not math.isfinite(v) else v
        for key, v in report.items()
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    raise InputError(
        f"the {what.replace('_', ' ')} of epoch {place['epoch']}, batch "
        f"{place['step']} is {value}: {path} has the ids of its utterances; "
        f"look at them, or pass an --lr below {place['lr']:g} and another "
        "--output_folder; the last checkpoint is as it was"
    )
