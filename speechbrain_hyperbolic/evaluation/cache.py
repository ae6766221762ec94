"""Embeddings on disk, so that each is computed once.

A folder per model and setting holds shards, each written whole and never
changed: an extraction that was killed resumes after its last shard, and two at
once do not disturb each other.
"""

import hashlib
import os
import pathlib
import time
import uuid
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.dataio.segments import split_segment
from speechbrain_hyperbolic.errors import InputError

logger = get_logger(__name__)

# Raise it when the same model, file and setting come to give other embeddings.
VERSION = 1
# The most that a kill loses; a day's extraction makes some 1000 files.
SECONDS_PER_SHARD = 60


def identity(path: StrPath, made_by: str = "") -> bytes:
    """A key of 16 bytes for this version of a file, without reading it.

    ``made_by`` names the cache: a shard that someone moves to another model's
    cache is not used there.
    """
    try:
        status = os.stat(split_segment(path)[0])
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): replace it or leave it "
            "out"
        ) from error
    parts = [os.path.abspath(path), status.st_size, status.st_mtime_ns, made_by]
    text = os.fsencode("\n".join(map(str, parts)))
    return hashlib.sha256(text).digest()[:16]


def arithmetic(device: str | torch.device) -> str:
    """Names what makes a device's embeddings differ by more than 1e-5.

    It is empty for float32 on the CPU, so that old caches serve.
    """
    kind = torch.device(device).type
    names = [] if kind == "cpu" else [kind]
    # In products and in convolutions
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    if kind == "cuda" and any(map(_has_tf32, flags)):
        names.append("tf32")
    if torch.is_autocast_enabled(kind):
        names.append(str(torch.get_autocast_dtype(kind)).split(".")[-1])
    return "".join(f"-{name}" for name in names)


def _has_tf32(flags: Any) -> bool:
    try:
        return flags.allow_tf32
    except RuntimeError:  # the newer flag was set, and they must not be mixed
        return flags.fp32_precision != "ieee"


class Cache:
    """The embeddings that one model has given under one setting.

    ``cache_folder`` may serve any number of models. ``model`` is a fingerprint
    in hexadecimal, ``setting`` whatever else decides the embeddings, as a file
    name; the ``device`` on which they are computed decides too. As a context
    manager it also writes what was added when the block raises.
    """

    def __init__(
        self,
        cache_folder: StrPath,
        model: str,
        setting: str,
        device: str | torch.device = "cpu",
    ) -> None:
        name = f"v{VERSION}-{model[:32]}-{setting}{arithmetic(device)}"
        self.folder = pathlib.Path(cache_folder) / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pending: dict[bytes, tuple] = {}
        self._written = time.monotonic()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def find(self, keys: Collection[bytes]) -> dict[bytes, tuple]:
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
            for row, views, seconds in zip(*columns, strict=True):
                if (key := row.tobytes()) in wanted:
                    found[key] = views, seconds
        return found

    def add(self, found: dict[bytes, tuple]) -> None:
        """Keeps embeddings, as ``find`` gives them; a shard once a minute."""
        self._pending |= found
        if time.monotonic() - self._written >= SECONDS_PER_SHARD:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last shard."""
        self._written = time.monotonic()
        if not self._pending:
            return
        keys = [np.frombuffer(key, np.uint8) for key in self._pending]
        views, durations = zip(*self._pending.values(), strict=True)
        path = self.folder / f"shard-{uuid.uuid4().hex}.npz"
        with atomic_path(path) as temporary:
            np.savez(temporary, keys=keys, views=views, durations=durations)
        self._pending = {}
