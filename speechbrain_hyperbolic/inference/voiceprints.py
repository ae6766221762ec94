"""Enrolled speakers, kept in one file that runs no code."""

import json
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import filelock
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.model import read_tensors

FORMAT = "speechbrain-hyperbolic voiceprints 1"
_VECTORS = "vectors"
_LONGEST_NAME = 1000


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

    def __contains__(self, name: object) -> bool:
        return name in self._voices

    @property
    def names(self) -> list[str]:
        """The speakers, in the order in which they were added."""
        return list(self._voices)

    @property
    def vectors(self) -> np.ndarray:
        """Their voiceprints: float32, shape [speakers, D]."""
        if not self._voices:
            return np.zeros((0, 0), np.float32)
        return np.stack(list(self._voices.values()))

    def add(self, name: str, vector: npt.ArrayLike) -> None:
        """Adds a speaker by a vector [D] that ``enroll`` made, or replaces the
        speaker of that name."""
        # A control character in a stranger's store could rewrite a terminal.
        if not (
            isinstance(name, str)
            and 0 < len(name) <= _LONGEST_NAME
            and name.isprintable()
        ):
            raise InputError(
                f"a speaker's name is {ascii(name):.60}, expected 1 to "
                f"{_LONGEST_NAME} printable characters"
            )
        try:
            vector = np.array(vector, np.float32)
        except (TypeError, ValueError):
            vector = np.zeros(0, np.float32)
        if vector.ndim != 1 or not (vector.any() and np.isfinite(vector).all()):
            raise InputError(
                f"the voiceprint of {name} is not a vector of finite numbers, "
                "not all zero, as enroll makes it"
            )
        others = next(iter(self._voices.values()), vector)
        if len(others) != len(vector):
            raise InputError(
                f"the voiceprint of {name} has {len(vector)} numbers, and the "
                f"others have {len(others)}: enroll all with one model"
            )
        self._voices[name] = vector

    def remove(self, name: str) -> None:
        """Removes a speaker."""
        if name not in self._voices:
            raise InputError(f"{name} is not among the {len(self)} enrolled")
        del self._voices[name]

    def save(self, path: str | pathlib.Path) -> None:
        """Writes a safetensors file, with the names in its header."""
        header = {
            "format": FORMAT,
            "model": self.model_fingerprint,
            "names": json.dumps(self.names),
        }
        try:
            with atomic_path(path) as temporary:
                safetensors.numpy.save_file(
                    {_VECTORS: self.vectors}, temporary, metadata=header
                )
        except (OSError, safetensors.SafetensorError) as error:
            raise _unwritable(path, error) from error

    @classmethod
    def load(
        cls, path: str | pathlib.Path, model_fingerprint: str
    ) -> "VoiceprintStore":
        """Reads a store for the model of that fingerprint.

        A store that is missing or damaged, or that another model made, raises
        an InputError.
        """
        tensors, header = read_tensors(path)
        if header.get("format") != FORMAT:
            raise InputError(
                f"{path} is not a voiceprint store: pass the file that "
                "enrollment wrote"
            )
        if header.get("model") != model_fingerprint:
            raise InputError(
                f"{path} was made by another model, and can't be compared with "
                "this one's embeddings: enroll its speakers again"
            )
        try:
            names = json.loads(header["names"])
            vectors = tensors[_VECTORS].numpy()
            store = cls(model_fingerprint)
            for name, vector in zip(names, vectors, strict=True):
                store.add(name, vector)
            if len(store) != len(names):
                raise InputError("a name is there twice")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            text = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path} is damaged ({text}): enroll its speakers again"
            ) from error
        return store

    @classmethod
    @contextmanager
    def update(
        cls, path: str | pathlib.Path, model_fingerprint: str
    ) -> Iterator["VoiceprintStore"]:
        """A store to change, written at the end; made if it is missing.

        Others who update it wait, so that no one's speakers are lost.
        """
        path = pathlib.Path(path)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            if path.exists():
                store = cls.load(path, model_fingerprint)
            else:
                store = cls(model_fingerprint)
            yield store
            store.save(path)
        finally:
            lock.release()


def _unwritable(path: str | pathlib.Path, error: Exception) -> InputError:
    return InputError(f"{path} can't be written ({error}): pass another path")
