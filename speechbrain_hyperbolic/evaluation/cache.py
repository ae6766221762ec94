"""Embeddings on disk, so that each is computed once.

A folder per model and setting holds shards, each written whole and never
changed: an extraction that was killed resumes after its last shard, and two at
once do not disturb each other.
"""

import os
import pathlib
import time
import uuid
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.audio import split_segment
from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError

logger = get_logger(__name__)

# The most that a kill loses; a day's extraction makes some 1000 files.
SECONDS_PER_SHARD = 60


def identity(path: StrPath) -> str:
    """A key for this version of a file, without reading it."""
    try:
        status = os.stat(split_segment(path)[0])
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): replace it or leave it "
            "out"
        ) from error
    return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"


def arithmetic(device: str | torch.device) -> str:
    """Names what makes a device's embeddings differ by more than 1e-5."""
    kind = torch.device(device).type
    names = [kind]
    # In products and in convolutions
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    if kind == "cuda" and any(map(_has_tf32, flags)):
        names.append("tf32")
    if torch.is_autocast_enabled(kind):
        names.append(str(torch.get_autocast_dtype(kind)).split(".")[-1])
    return "-".join(names)


def _has_tf32(flags: Any) -> bool:
    try:
        return flags.allow_tf32
    except RuntimeError:  # the newer flag was set, and they must not be mixed
        return flags.fp32_precision != "ieee"


class Cache:
    """The embeddings that one model has given under one setting."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._pending: dict[str, tuple] = {}
        self._written = time.monotonic()

    def find(self, keys: Collection[str]) -> dict[str, tuple]:
        """Key -> (views, seconds) of those that are there, from all shards."""
        wanted, found = set(keys), {}
        for path in sorted(self.folder.glob("shard-*.npz")):
            try:
                # A zip archive has a checksum of each array.
                with np.load(path, allow_pickle=False) as file:
                    columns = file["keys"], file["views"], file["durations"]
            # Whatever is wrong with it, its embeddings can be computed again.
            except Exception as error:
                logger.warning(
                    f"{path} is damaged or not a shard "
                    f"({type(error).__name__}): it is not used, remove it"
                )
                continue
            for key, views, seconds in zip(*columns, strict=True):
                if key in wanted:
                    found[str(key)] = views, seconds
        return found

    def add(self, found: dict[str, tuple]) -> None:
        """Keeps embeddings, as ``find`` gives them; a shard once a minute."""
        self._pending |= found
        if time.monotonic() - self._written >= SECONDS_PER_SHARD:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last shard."""
        self._written = time.monotonic()
        if not self._pending:
            return
        views, durations = zip(*self._pending.values(), strict=True)
        path = self.folder / f"shard-{uuid.uuid4().hex}.npz"
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                keys=list(self._pending),
                views=views,
                durations=durations,
            )
        self._pending = {}
