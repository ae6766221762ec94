"""Enrolled speakers, kept in one file that runs no code."""

import json
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import filelock
import numpy as np
import numpy.typing as npt
import safetensors.numpy

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.config import one_line
from speechbrain_hyperbolic.inference.model import (
    explain_failed_writes,
    read_tensors,
)

FORMAT = "speechbrain-hyperbolic voiceprints 1"


class VoiceprintStore:
    """The voiceprints of speakers by their names, all made by one model.

    Arguments
    ---------
    model_fingerprint : str
        ``HyperbolicSpeakerRecognition.fingerprint`` of that model.

    Example
    -------
    >>> store = VoiceprintStore("c0ffee")
    >>> store.add("Ada", np.ones(192, np.float32))
    >>> store.names, store.vectors.shape
    (['Ada'], (1, 192))
    >>> path = getfixture("tmp_path") / "voices.safetensors"
    >>> store.save(path)
    >>> len(VoiceprintStore.load(path, "c0ffee"))
    1
    """

    def __init__(self, model_fingerprint: str) -> None:
        self.model_fingerprint = model_fingerprint
        self._voices: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._voices)

    @property
    def names(self) -> list[str]:
        """The speakers, in the order in which they were added."""
        return list(self._voices)

    @property
    def vectors(self) -> np.ndarray:
        """Their voiceprints: float32, shape [speakers, D]."""
        return np.array(list(self._voices.values()), np.float32)

    def add(self, name: str, vector: npt.ArrayLike) -> None:
        """Adds or replaces a speaker by a vector [D] that ``enroll`` made."""
        # A control character in a stranger's store could rewrite a terminal.
        if not (isinstance(name, str) and name.isprintable() and name):
            raise InputError(
                f"a speaker's name is {ascii(name):.60}, expected printable "
                "characters"
            )
        vector = np.array(vector, np.float32)
        others = next(iter(self._voices.values()), vector)
        valid = vector.ndim == 1 and vector.shape == others.shape
        if not (valid and vector.any() and np.isfinite(vector).all()):
            raise InputError(
                f"the voiceprint of {name} is not a vector of {others.size} "
                "finite numbers, not all zero: enroll all speakers with one "
                "model"
            )
        self._voices[name] = vector

    def save(self, path: StrPath) -> None:
        """Writes a safetensors file, with the names in its header."""
        header = {
            "format": FORMAT,
            "model": self.model_fingerprint,
            "names": json.dumps(self.names),
        }
        with explain_failed_writes(path):
            with atomic_path(path) as temporary:
                safetensors.numpy.save_file(
                    {"vectors": self.vectors}, temporary, metadata=header
                )

    @classmethod
    def load(cls, path: StrPath, model_fingerprint: str) -> "VoiceprintStore":
        """Reads a store, or raises an InputError if it is missing or damaged,
        or if another model made it."""
        tensors, header = read_tensors(path)
        if header.get("format") != FORMAT:
            raise InputError(f"{path} is not a store that enroll has made")
        store = cls(header.get("model", ""))
        store.check_model(model_fingerprint, str(path))
        try:
            names = json.loads(header["names"])
            vectors = tensors["vectors"].numpy()
            for name, vector in zip(names, vectors, strict=True):
                store.add(name, vector)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is damaged ({one_line(error)}): enroll its speakers "
                "again"
            ) from error
        return store

    def check_model(
        self, fingerprint: str, name: str = "the voiceprint store"
    ) -> None:
        """Raises an InputError if another model made the store."""
        if self.model_fingerprint != fingerprint:
            raise InputError(
                f"{name} was made by another model, and can't be compared with "
                "this one's embeddings: enroll its speakers again"
            )

    @classmethod
    @contextmanager
    def update(
        cls, path: StrPath, model_fingerprint: str
    ) -> Iterator["VoiceprintStore"]:
        """A store to change in a ``with`` block, at whose end it is written.

        A missing store is created. Other processes that update it wait.
        """
        path = pathlib.Path(path)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        with explain_failed_writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            if path.exists():
                store = cls.load(path, model_fingerprint)
            else:
                store = cls(model_fingerprint)
            yield store
            store.save(path)
        finally:
            lock.release()
