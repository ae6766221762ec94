"""Many recordings at a time, of which some may be bad."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from speechbrain_hyperbolic.dataio.audio import looks_like_audio
from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.recognition import (
    Embedding,
    HyperbolicSpeakerRecognition,
)

T = TypeVar("T")


def find_files(arguments: Sequence[str]) -> list[str]:
    """Files as they were given, and the audio files in folders."""
    found = []
    for argument in arguments:
        if not os.path.isdir(argument):
            found.append(argument)
            continue
        inside = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(argument)
            for name in names
            if not name.startswith(".")
        ]
        some = sorted(path for path in inside if looks_like_audio(path))
        if not some:
            raise InputError(f"{argument} is a folder without audio files")
        found += some
    return found


def each(
    paths: Sequence[str], function: Callable[[str], T]
) -> Iterator[tuple[str, T]]:
    """Calls a function of every path, and passes over files it can't read.

    The error of a single file, or the last one if all fail, is raised.
    """
    passed_over = 0
    for path in paths:
        try:
            result = function(path)
        except (InputError, OSError) as error:
            passed_over += 1
            if passed_over == len(paths):
                raise
            print(f"warning: {error}: passed over", file=sys.stderr)
        else:
            yield path, result
    if passed_over:
        note = f"{passed_over} of {len(paths)} files were passed over"
        print(f"warning: {note}", file=sys.stderr)


def write_embeddings(
    path: StrPath,
    model: HyperbolicSpeakerRecognition,
    found: dict[str, Embedding],
    scores: bool = False,
) -> None:
    """Writes an .npz file: files [N], embeddings [N, D], seconds [N] and, if
    asked for, scores [N, N]."""
    vectors = np.stack([embedding.vector for embedding in found.values()])
    arrays: dict[str, Any] = {
        "files": np.array(list(found)),
        "embeddings": vectors,
        "seconds": np.array([e.seconds for e in found.values()]),
    }
    if scores:
        arrays["scores"] = model.score_matrix(vectors, vectors)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def strangers(
    model: HyperbolicSpeakerRecognition,
    vectors: Sequence[np.ndarray],
    how: str = "mean",
) -> dict[int, float]:
    """Which embeddings of one speaker do not agree with the others: the scores,
    by their index, of those that would be refused."""
    if model.config.thresholds is None or len(vectors) < 2:
        return {}
    found = {}
    for i, vector in enumerate(vectors):
        others = [other for j, other in enumerate(vectors) if j != i]
        score = model.score(model.voiceprint(others, how), vector)
        if score <= model.threshold_at():
            found[i] = score
    return found
