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
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError

logger = get_logger(__name__)

# Raise it when the same model, file and setting come to give other embeddings.
VERSION = 1
# The most that a kill loses; a day's extraction makes some 1000 files.
SECONDS_PER_SHARD = 60
_KEY_BYTES = 16


class Shard(NamedTuple):
    """Embeddings of some audio files."""

    keys: list[bytes]  # what ``identity`` gives for each file
    views: np.ndarray  # float32 [files, V, D]
    durations: np.ndarray  # seconds [files]


def identity(path: StrPath, made_by: str = "") -> bytes:
    """A key of 16 bytes for this version of a file, without reading it.

    ``made_by`` names the cache, so that a shard which is moved to the cache of
    another model is not used there.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): replace it or leave it "
            "out"
        ) from error
    parts = [os.path.abspath(path), status.st_size, status.st_mtime_ns, made_by]
    digest = hashlib.sha256(os.fsencode("\n".join(map(str, parts)))).digest()
    return digest[:_KEY_BYTES]


class Cache:
    """The embeddings that one model has given under one setting.

    ``cache_folder`` may serve any number of models. ``model`` is a fingerprint
    in hexadecimal, ``setting`` whatever else decides the embeddings, as a file
    name. As a context manager it also writes what was added when the block
    raises.
    """

    def __init__(self, cache_folder: StrPath, model: str, setting: str) -> None:
        cache_folder = pathlib.Path(cache_folder)
        self.folder = cache_folder / f"v{VERSION}-{model[:32]}-{setting}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cache_folder {cache_folder} cannot be written "
                f"({error.strerror}): choose another"
            ) from error
        self._pending: list[Shard] = []
        self._written = time.monotonic()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def find(self, keys: Collection[bytes]) -> dict[bytes, tuple]:
        """Key -> (views, seconds) of those keys that are there."""
        wanted = set(keys)
        return {
            key: (views, seconds)
            for shard in self.shards()
            for key, views, seconds in zip(*shard, strict=True)
            if key in wanted
        }

    def shards(self) -> Iterator[Shard]:
        """Reads all shards; warns of a damaged one and skips it."""
        for path in sorted(self.folder.glob("shard-*.npz")):
            try:
                shard = _read(path)
            # Whatever is wrong with the file: its embeddings are only computed
            # again.
            except Exception as error:
                logger.warning(
                    f"{path} is damaged or not a shard "
                    f"({type(error).__name__}): it is not used, remove it"
                )
            else:
                yield shard

    def add(
        self, keys: list[bytes], views: npt.ArrayLike, durations: npt.ArrayLike
    ) -> None:
        """Keeps embeddings; writes a shard once a minute."""
        views = np.asarray(views, np.float32)
        self._pending.append(Shard(keys, views, np.asarray(durations, float)))
        if time.monotonic() - self._written >= SECONDS_PER_SHARD:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last shard."""
        self._written = time.monotonic()
        if not self._pending:
            return
        keys, views, durations = zip(*self._pending, strict=True)
        joined = b"".join(key for some in keys for key in some)
        path = self.folder / f"shard-{uuid.uuid4().hex}.npz"
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                keys=np.frombuffer(joined, np.uint8).reshape(-1, _KEY_BYTES),
                views=np.concatenate(views),
                durations=np.concatenate(durations),
            )
        self._pending = []


def _read(path: pathlib.Path) -> Shard:
    # A zip archive has a checksum of each array.
    with np.load(path, allow_pickle=False) as file:
        keys, views, durations = (file[name] for name in Shard._fields)
    n = len(keys)
    found = [(a.dtype.str, a.ndim, len(a)) for a in (keys, views, durations)]
    if found != [("|u1", 2, n), ("<f4", 3, n), ("<f8", 1, n)]:
        raise ValueError("other arrays than those of a shard")
    return Shard([key.tobytes() for key in keys], views, durations)
