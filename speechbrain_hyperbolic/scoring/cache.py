"""Embeddings on disk, so that each is computed once.

A folder per model and setting holds shards, each written whole and never
changed: an extraction that was killed goes on after its last shard, and two
at once don't disturb each other.
"""

import hashlib
import os
import pathlib
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError

logger = get_logger(__name__)

# To be raised when other embeddings come of the same model, file and setting.
VERSION = 1
# What a kill loses at most; the shards of a day are then some 1000 files.
SECONDS_PER_SHARD = 60
_KEY_BYTES = 16


class Shard(NamedTuple):
    """Embeddings of some audio files.

    Arguments
    ---------
    keys : list of bytes
        What ``identity`` gives of each file.
    views : np.ndarray
        float32, shape [files, V, D].
    durations : np.ndarray
        float64, in seconds, shape [files].
    """

    keys: list[bytes]
    views: np.ndarray
    durations: np.ndarray


def identity(path: str | pathlib.Path, made_by: str = "") -> bytes:
    """Tells a version of a file from all others, without reading it.

    Arguments
    ---------
    path : str or pathlib.Path
    made_by : str
        The cache that the key is for, so that shards which were moved to that
        of another model give nothing there.

    Returns
    -------
    key : bytes
        16 of them, of the absolute path, the size, the time of the last
        change, and the cache.

    Raises
    ------
    InputError
        If the file can't be read.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}): replace it or leave "
            "it out"
        ) from error
    text = "\n".join(
        [
            os.path.abspath(path),
            str(status.st_size),
            str(status.st_mtime_ns),
            made_by,
        ]
    )
    digest = hashlib.sha256(os.fsencode(text)).digest()
    return digest[:_KEY_BYTES]


class Cache:
    """The embeddings that one model has given under one setting.

    As a context manager it writes what it was given also when the block
    raises.

    Arguments
    ---------
    cache_folder : str or pathlib.Path
        Of any number of models; made where it is missing.
    model : str
        Fingerprint, in hexadecimal.
    setting : str
        What else decides the embeddings; for a file name.

    Raises
    ------
    InputError
        If the folder can't be made.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> with Cache(folder, "c0ffee", "16000") as cache:
    ...     cache.add([bytes(16)], np.ones((1, 6, 192), np.float32), [2.5])
    >>> [shard] = Cache(folder, "c0ffee", "16000").shards()
    >>> shard.views.shape, shard.durations
    ((1, 6, 192), array([2.5]))
    """

    def __init__(
        self, cache_folder: str | pathlib.Path, model: str, setting: str
    ) -> None:
        cache_folder = pathlib.Path(cache_folder)
        model = model[:32]
        self.folder = cache_folder / f"v{VERSION}-{model}-{setting}"
        is_new = not self.folder.is_dir()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cache_folder {cache_folder} can't be written "
                f"({error.strerror}): pass another"
            ) from error
        if is_new and any(
            folder.name.split("-")[1] != model
            for folder in cache_folder.glob("v*-*-*")
        ):
            logger.info(
                f"cache_folder {cache_folder} holds embeddings of another "
                "model too: those are not used"
            )
        self._pending: list = []
        self._written = time.monotonic()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def shards(self) -> Iterator[Shard]:
        """Reads what is there; of a damaged shard it says so.

        Yields
        ------
        shard : Shard
        """
        for path in sorted(self.folder.glob("shard-*.npz")):
            try:
                shard = _read(path)
            # Whatever is wrong with the bytes of a file, or with its being
            # there, all that it costs is to embed again.
            except Exception as error:
                logger.warning(
                    f"{path} is damaged or no shard ({type(error).__name__}): "
                    "not used, remove it"
                )
            else:
                yield shard

    def add(
        self, keys: list[bytes], views: npt.ArrayLike, durations: npt.ArrayLike
    ) -> None:
        """Keeps embeddings, and writes a shard once a minute.

        Arguments
        ---------
        keys : list of bytes
        views : array_like
            float32, shape [files, V, D].
        durations : array_like
            In seconds, shape [files].
        """
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
        with atomic_path(
            self.folder / f"shard-{uuid.uuid4().hex}.npz"
        ) as temporary:
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
    kinds = [(a.dtype.str, a.ndim, len(a)) for a in (keys, views, durations)]
    n = len(keys)
    if kinds != [("|u1", 2, n), ("<f4", 3, n), ("<f8", 1, n)]:
        raise ValueError("not the arrays that belong there")
    raw = keys.tobytes()
    starts = range(0, len(raw), _KEY_BYTES)
    keys = [raw[start : start + _KEY_BYTES] for start in starts]
    return Shard(keys, views, durations)
