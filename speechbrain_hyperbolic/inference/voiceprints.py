"""Enrolled speakers, kept in one file that runs no code."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator

import filelock
import numpy as np
import numpy.typing as npt
import safetensors.numpy

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.dataio.names import normalized
from speechbrain_hyperbolic.errors import InputError, message_of, shown
from speechbrain_hyperbolic.inference.model import read_tensors

FORMAT = "speechbrain-hyperbolic voiceprints 1"


class VoiceprintStore:
    """The voiceprints of speakers by their names, all made by one model.

    A store that is saved keeps the speakers that other processes have saved in
    the same file since it was loaded.

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
        # Name -> voiceprint [D], and embeddings of the utterances [N, D]
        self._voices: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._changed: set[str] = set()  # since the store was read

    def __len__(self) -> int:
        return len(self._voices)

    @property
    def names(self) -> list[str]:
        """The speakers, in the order in which they were added."""
        return list(self._voices)

    @property
    def vectors(self) -> np.ndarray:
        """Their voiceprints: float32, shape [speakers, D]."""
        return np.array([v for v, _ in self._voices.values()], np.float32)

    def embeddings(self, name: str) -> np.ndarray:
        """Those of a speaker's utterances, [N, D]."""
        name = normalized(name)
        if name not in self._voices:
            raise InputError(
                f"{shown(name)} is not among the {len(self)} enrolled "
                "speaker(s): check the name"
            )
        return self._voices[name][1]

    def add(
        self,
        name: str,
        vector: npt.ArrayLike,
        embeddings: npt.ArrayLike | None = None,
    ) -> None:
        """Adds or replaces a speaker by a vector [D] that ``enroll`` made.

        ``embeddings`` [N, D] of its utterances allow to add others to them;
        None means that there is one, the vector.
        """
        # A control character in a stranger's store could rewrite a terminal.
        if not (isinstance(name, str) and name.isprintable() and name.strip()):
            raise InputError(
                f"a speaker's name is {ascii(name):.60}, expected printable "
                "characters"
            )
        name, vector = normalized(name), np.array(vector, np.float32)
        rows = vector[None] if embeddings is None else embeddings
        rows = np.array(rows, np.float32)
        size = self.vectors.shape[1] if self._voices else vector.size
        valid = vector.shape == (size,) and rows.shape == (len(rows), size)
        finite = np.isfinite(vector).all() and np.isfinite(rows).all()
        if not (valid and vector.any() and finite):
            raise InputError(
                f"the voiceprint of {name} is not a vector of {size} finite "
                "numbers, not all zero: enroll all speakers with one model"
            )
        self._voices[name] = vector, rows
        self._changed.add(name)

    def remove(self, name: str) -> None:
        """Removes a speaker."""
        name = normalized(name)
        self.embeddings(name)  # refuses an unknown name
        del self._voices[name]
        self._changed.add(name)

    def save(self, path: StrPath) -> None:
        """Writes a safetensors file, with the names in its header.

        Speakers who are in the file already stay, unless they were replaced or
        removed here. A store of another model is refused.
        """
        with _locked(path):
            if os.path.exists(path):
                voices = self.load(path, self.model_fingerprint)._voices
                for name in self._changed:
                    voices.pop(name, None)
                    if name in self._voices:
                        voices[name] = self._voices[name]
                self._voices = voices
            rows = [rows for _, rows in self._voices.values()]
            header = {
                "format": FORMAT,
                "model": self.model_fingerprint,
                "names": json.dumps(self.names),
                "utterances": json.dumps(list(map(len, rows))),
            }
            vectors = self.vectors
            embeddings = np.concatenate([vectors[:0], *rows])
            tensors = {"vectors": vectors, "embeddings": embeddings}
            with atomic_path(path) as temporary:
                content = safetensors.numpy.save(tensors, header)
                temporary.write_bytes(content)
            self._changed.clear()

    @classmethod
    def load(
        cls, path: StrPath, model_fingerprint: str | None = None
    ) -> "VoiceprintStore":
        """Reads a store, or raises an InputError if it is missing or damaged,
        or if another model made it (None: any model may have)."""
        tensors, header = read_tensors(path)
        if header.get("format") != FORMAT:
            raise InputError(f"{path} is not a store that enroll has made")
        store = cls(header.get("model", ""))
        if model_fingerprint is not None:
            store.check_model(model_fingerprint, str(path))
        try:
            names = json.loads(header["names"])
            counts = json.loads(header["utterances"])
            parts = tensors["embeddings"].split(counts)
            voices = zip(names, tensors["vectors"], parts, strict=True)
            for name, vector, part in voices:
                store.add(name, vector.numpy(), part.numpy())
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{path} is damaged ({message_of(error)}): enroll its speakers "
                "again"
            ) from error
        store._changed.clear()
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
    @contextlib.contextmanager
    def update(
        cls, path: StrPath, model_fingerprint: str
    ) -> Iterator["VoiceprintStore"]:
        """A store to change in a ``with`` block, at whose end it is written.

        A missing store is created. Other processes that update it wait.
        """
        with _locked(path):
            store = cls(model_fingerprint)
            if os.path.exists(path):
                store = cls.load(path, model_fingerprint)
            yield store
            store.save(path)


def _locked(path: StrPath) -> contextlib.AbstractContextManager:
    """Waits until no other process reads and writes a store."""
    path = pathlib.Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.with_name(f".{path.name}.lock")
    # One object for each path, so that ``update`` can ``save``
    return filelock.FileLock(lock_path, is_singleton=True)
