"""Processes that train together; each one's random numbers and memory."""

import ctypes
import random
from typing import Any

import numpy as np
import torch
from speechbrain.utils.distributed import (
    ddp_init_group,
    get_rank,
    is_distributed_initialized,
)

from speechbrain_hyperbolic.errors import InputError

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


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Makes random numbers a function of these and of the process's rank."""
    seeds = np.random.SeedSequence([seed, epoch, step, get_rank() or 0])
    number = int(seeds.generate_state(1)[0])
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def keep_freed_memory() -> bool:
    """Makes glibc, if it is there, keep freed memory for the next step."""
    # To return it to the system costs a sixth of the time on the CPU.
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Allocate no block outside the heap, and never shrink the heap.
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
