"""Processes that train together, and the memory that each keeps."""

import contextlib
import ctypes
import datetime
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from speechbrain.utils.distributed import (
    ddp_init_group,
    is_distributed_initialized,
)

from speechbrain_hyperbolic.errors import InputError, one_line

# What gloo and NCCL report when another process has ended
_CONNECTION_LOST = re.compile(
    r"connection (closed|reset)|broken pipe|remote process exit", re.I
)

# From glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def start_processes(run_opts: Any) -> None:
    """Joins the processes that torchrun started, if it did."""
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        raise InputError(
            f"distributed_backend is {run_opts['distributed_backend']}: "
            f"{' '.join(str(error).split())} Pass --nproc_per_node=<number of "
            "GPUs> to torchrun or, on CPUs, --distributed_backend=gloo "
            "--device=cpu to the script"
        ) from error


def gather(value: Any) -> list[Any]:
    """The values of all processes, in all of them, ordered by rank."""
    if not is_distributed_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """Under torchrun, only the first process that fails reports its error."""
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    # torchrun terminates the other processes when one has ended.
    before = signal.signal(signal.SIGTERM, lambda *_: _exit_after_another())
    try:
        yield
        # Threads that gloo leaves running can abort the process at its exit.
        if is_distributed_initialized():
            torch.distributed.destroy_process_group()
        signal.signal(signal.SIGTERM, before)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, RuntimeError) and _CONNECTION_LOST.search(
            str(error)
        ):
            _exit_after_another()
        expected = isinstance(error, KeyboardInterrupt) or one_line(error)
        if expected and not _is_first_to_report():
            sys.exit(2)
        raise  # if it is a bug, every process shows its traceback


def _exit_after_another() -> NoReturn:
    if _is_first_to_report():
        # On a line of its own, below another process's progress bar
        print(
            "\nerror: the training has stopped because one of its processes "
            "ended, for example for lack of memory: run the same command again "
            "to resume",
            file=sys.stderr,
        )
    sys.exit(2)


def _is_first_to_report() -> bool:
    """Whether no process has reported yet, as counted in torchrun's store."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # finish the message
    try:
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
        return True  # without a store, better twice than not at all


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next training step.

    Returning it to the system, as by default, costs a sixth of the time on the
    CPU. The result is False with other C libraries.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Allocate no block outside the heap, and never shrink the heap.
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
