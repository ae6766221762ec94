"""Enrolled speakers, kept in one file that runs no code."""

import json
import pathlib

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.model_folder import open_tensors

FORMAT = "speechbrain-hyperbolic voiceprints 1"
_VECTORS = "vectors"
_MAX_NAME = 1000


class VoiceprintStore:
    """The embeddings of speakers by their names, all made by one model.

    Arguments
    ---------
    model_fingerprint : str
        Of that model, see ``HyperbolicSpeakerRecognition.fingerprint``.

    Example
    -------
    >>> store = VoiceprintStore("c0ffee")
    >>> store.add("Ada", np.ones(192, np.float32))
    >>> store.names, store.vectors.shape
    (['Ada'], (1, 192))
    >>> path = getfixture("tmpdir") / "voices.safetensors"
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
        """Their embeddings: float32, shape [speakers, D]."""
        if not self._voices:
            return np.zeros((0, 0), np.float32)
        return np.stack(list(self._voices.values()))

    def add(self, name: str, vector: npt.ArrayLike) -> None:
        """Adds a speaker, or replaces the one of that name.

        Arguments
        ---------
        name : str
        vector : array_like
            What ``HyperbolicSpeakerRecognition.enrol`` gives, shape [D].

        Raises
        ------
        InputError
            If the name is empty, too long or not printable, or the vector is
            zero, not finite or not as long as the others.
        """
        # A control character in a stranger's store could rewrite a terminal.
        if not (
            isinstance(name, str)
            and 0 < len(name) <= _MAX_NAME
            and name.isprintable()
        ):
            raise InputError(
                f"a speaker's name is {ascii(name):.60}, expected 1 to "
                f"{_MAX_NAME} printable characters"
            )
        try:
            vector = np.array(vector, np.float32)
        except (TypeError, ValueError):
            vector = np.zeros(0, np.float32)
        if vector.ndim != 1 or not (vector.any() and np.isfinite(vector).all()):
            raise InputError(
                f"the voiceprint of {name} is no row of finite numbers, not "
                "all zero, as enrol gives"
            )
        others = next(iter(self._voices.values()), vector)
        if len(others) != len(vector):
            raise InputError(
                f"the voiceprint of {name} has {len(vector)} numbers, and the "
                f"others {len(others)}: enrol all with one model"
            )
        self._voices[name] = vector

    def remove(self, name: str) -> None:
        """Removes a speaker.

        Arguments
        ---------
        name : str

        Raises
        ------
        InputError
            If there is none of that name.
        """
        if name not in self._voices:
            raise InputError(f"{name} is not among the {len(self)} enrolled")
        del self._voices[name]

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the store, whole or not at all.

        Arguments
        ---------
        path : str or pathlib.Path
            A safetensors file; the names are in its header.

        Raises
        ------
        InputError
            If it can't be written.
        """
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
            raise InputError(
                f"{path} can't be written ({error}): pass another path"
            ) from error

    @classmethod
    def load(
        cls, path: str | pathlib.Path, model_fingerprint: str
    ) -> "VoiceprintStore":
        """Reads a store.

        Arguments
        ---------
        path : str or pathlib.Path
        model_fingerprint : str
            Of the model that is to use it.

        Returns
        -------
        store : VoiceprintStore

        Raises
        ------
        InputError
            If it is missing, damaged, no voiceprint store, or was made by
            another model.
        """
        path = pathlib.Path(path)
        with open_tensors(path) as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise InputError(
                    f"{path} is no voiceprint store of this version: pass the "
                    "file that enrolment wrote"
                )
            if header.get("model") != model_fingerprint:
                raise InputError(
                    f"{path} was made by another model, whose voiceprints "
                    "can't be compared with this one's: enrol again"
                )
            names = _read_names(path, header.get("names", ""))
            if set(file.keys()) != {_VECTORS}:
                raise InputError(f"{path} has not just its {_VECTORS}")
            if file.get_slice(_VECTORS).get_dtype() != "F32":
                raise InputError(f"{path} has {_VECTORS} that are not float32")
            vectors = file.get_tensor(_VECTORS).numpy()
        if vectors.ndim != 2 or len(vectors) != len(names):
            raise InputError(
                f"{path} has {len(names)} names for voiceprints of shape "
                f"{vectors.shape}: enrol again"
            )
        store = cls(model_fingerprint)
        for name, vector in zip(names, vectors, strict=True):
            try:
                store.add(name, vector)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
        if len(store) != len(names):
            raise InputError(f"{path} has a name twice: enrol again")
        return store


def _read_names(path: pathlib.Path, text: str) -> list[str]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise InputError(f"{path} has no list of names: enrol again")
    return names
