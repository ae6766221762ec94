"""Where a training diverged: the batch, in a file."""

import json
import math
import pathlib
from typing import Any, NoReturn

import torch
from speechbrain.utils.distributed import ddp_barrier, main_process_only

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.distributed import of_processes
from speechbrain_hyperbolic.errors import InputError

NAME = "diverged.json"


def stop_diverged(
    output_folder: str | pathlib.Path,
    what: str,
    value: float,
    ids: list[str],
    gradient_norms: list[torch.Tensor],
    **place: Any,
) -> NoReturn:
    """Ends a training whose loss or gradient is not finite.

    Of several processes all call it, also those where it is finite.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        Where ``diverged.json`` goes.
    what : str
        "loss" or "gradient_norm".
    value : float
        Of it.
    ids : list of str
        Of the utterances of the batch.
    gradient_norms : list of torch.Tensor
        Of the steps before, of which the last is noted.
    **place : dict
        "epoch", "step", and "lr", the learning rate.

    Raises
    ------
    InputError
        Says where, and names the file.
    """
    path = pathlib.Path(output_folder) / NAME
    last = gradient_norms[-1].item() if gradient_norms else None
    batches = [b for b in of_processes((value, ids)) if not math.isfinite(b[0])]
    report = {
        **place,
        "ids": [name for _, names in batches for name in names],
        "last_gradient_norm": last,
        what: batches[0][0],
    }
    # JSON has no NaN.
    report = {
        key: repr(v) if isinstance(v, float) and not math.isfinite(v) else v
        for key, v in report.items()
    }
    _write(path, report)
    if math.isfinite(value):
        ddp_barrier()  # until a process that is concerned has told and gone
    raise InputError(
        f"the {what.replace('_', ' ')} of epoch {place['epoch']}, batch "
        f"{place['step']} is {value}: {path} has the ids of its utterances; "
        f"look at them, or pass an --lr below {place['lr']:g} and another "
        "--output_folder; the last checkpoint is as it was"
    )


@main_process_only
def _write(path: pathlib.Path, report: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
