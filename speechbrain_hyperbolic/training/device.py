"""What a GPU needs: data that arrives early, few kernels, plain errors."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from speechbrain_hyperbolic.dataio.crops import SharedEpochCounter
from speechbrain_hyperbolic.errors import InputError

PREFETCH = 4  # batches that each worker reads ahead


def loader_options(
    options: dict[str, Any], device_type: str, counter: Any
) -> dict[str, Any]:
    """A data loader's options with the defaults that suit device and workers.

    Workers stay for all epochs if they see which epoch it is.
    """
    own: dict[str, Any] = {"pin_memory": device_type == "cuda"}
    if options.get("num_workers"):
        own["persistent_workers"] = isinstance(counter, SharedEpochCounter)
        own["prefetch_factor"] = PREFETCH
    return own | options


def fused(opt_class: Callable) -> Callable:
    """An optimizer's class that takes its step in few kernels, if it can."""
    parameters = inspect.signature(opt_class).parameters
    chosen = getattr(opt_class, "keywords", {}).keys() & {"fused", "foreach"}
    if "fused" not in parameters or chosen:
        return opt_class
    return functools.partial(opt_class, fused=True)


def make_deterministic() -> None:
    """Makes CUDA repeat the same bits, and warn of what can't.

    The gradient of reflection padding, which ECAPA has, is one that can't.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def explain_out_of_memory(hparams: Any) -> Iterator[None]:
    """Turns CUDA's error into one line that says which options to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        keys = ("batch_size", "channels", "chunk_size")
        now = [f"--{k} (now {getattr(hparams, k, None)})" for k in keys]
        raise InputError(
            f"{'. '.join(str(error).split('. ')[:2])}: lower {now[0]} or "
            f"{now[1]}; with very many speakers, set or lower {now[2]}; "
            "--precision=bf16 also takes less"
        ) from error
