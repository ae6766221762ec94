"""Several processes as one: they start, count and end together."""

import contextlib
import datetime
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import torch
from speechbrain.utils.distributed import (
    ddp_init_group,
    is_distributed_initialized,
)

from speechbrain_hyperbolic.errors import InputError, one_line

# What gloo and NCCL say where a process has gone. Of their other errors the
# traceback is needed.
LOST = re.compile(
    r"connection (closed|reset)|broken pipe|remote process exit", re.I
)

_Value = TypeVar("_Value")

STOPPED = (
    "the training has stopped, since one of its processes was killed (for want "
    "of memory, for example) or all were told to: the same command goes on "
    "from the last checkpoint"
)


class GivenUp(RuntimeError):
    """Another process has given up what all do, and tells why."""


def start_processes(run_opts: dict[str, Any]) -> None:
    """Joins the processes that torchrun has started, if it has.

    Arguments
    ---------
    run_opts : dict
        SpeechBrain's, with ``distributed_backend``.

    Raises
    ------
    InputError
        If there is not a GPU for each, or no such backend.
    """
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        raise InputError(
            f"distributed_backend is {run_opts['distributed_backend']}: "
            f"{' '.join(str(error).split())} Pass --nproc_per_node=<number of "
            "GPUs> to torchrun, or on CPUs --distributed_backend=gloo "
            "--device=cpu"
        ) from error


def of_processes(value: _Value) -> list[_Value]:
    """What each process has, in all of them.

    Arguments
    ---------
    value : object
        Any that can be pickled.

    Returns
    -------
    values : list
        Those of the first process first.

    Example
    -------
    >>> of_processes("alone")
    ['alone']
    """
    if not is_distributed_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def mean_over_processes(value: float) -> float:
    """The mean of a number that each process has.

    Arguments
    ---------
    value : float

    Returns
    -------
    mean : float

    Example
    -------
    >>> mean_over_processes(1.5)
    1.5
    """
    values = of_processes(value)
    return sum(values) / len(values)


def rows_of_processes(rows: torch.Tensor) -> torch.Tensor:
    """The rows that the processes have, those of the first one first.

    Arguments
    ---------
    rows : torch.Tensor
        Of the same shape in each process.

    Returns
    -------
    rows : torch.Tensor
        Shape [processes * rows, ...].

    Example
    -------
    >>> rows_of_processes(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    if not is_distributed_initialized():
        return rows
    return torch.cat(tensors_of_processes(rows))


def tensors_of_processes(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensor of each process.

    Arguments
    ---------
    tensor : torch.Tensor
        Of the same shape in each process of the group, which there is.

    Returns
    -------
    tensors : list of torch.Tensor
        That of the first process first.
    """
    tensors = [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for _ in range(torch.distributed.get_world_size())
    ]
    torch.distributed.all_gather(tensors, tensor.contiguous())
    return tensors


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """Where one of the processes of torchrun fails, one message says why.

    The first process that fails tells; one that fails in the same way, or has
    lost another one, leaves silently. Without torchrun this does nothing.

    Example
    -------
    >>> with end_together():
    ...     print("as usual")
    as usual
    """
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    # So does torchrun stop the others when one of its processes has ended.
    before = signal.signal(signal.SIGTERM, lambda *_: _leave())
    try:
        yield
        # Threads of gloo that are left at the exit may abort the process.
        if is_distributed_initialized():
            torch.distributed.destroy_process_group()
        signal.signal(signal.SIGTERM, before)
    except GivenUp:
        sys.exit(2)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, RuntimeError) and LOST.search(str(error)):
            _leave()
        known = isinstance(error, KeyboardInterrupt) or one_line(error)
        if not _is_first() and known:
            sys.exit(2)
        raise  # of a bug each traceback tells


def _leave() -> NoReturn:
    # On a line of its own: the progress bar may be another process'.
    sys.exit(f"\nerror: {STOPPED}" if _is_first() else 2)


def _is_first() -> bool:
    """Whether no process has told yet why the training ends."""
    # A message that was begun is not cut off.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        # That of torchrun itself, which outlives its processes.
        store = torch.distributed.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=datetime.timedelta(seconds=5),
        )
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return store.add(f"{__name__}/{restart}", 1) == 1
    except (RuntimeError, KeyError):
        return True  # there is none: better twice than never
