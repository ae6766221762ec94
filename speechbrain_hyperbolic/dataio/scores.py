"""Score files: ``enrol test label score`` a line, as the stock script writes.

A score file holds the trial list that it is of, so nothing else is needed to
compute error rates, or to compare two systems.
"""

import math
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError

_LABELS = {"0": 0, "1": 1}


class ScoreTable(NamedTuple):
    """The columns of a score file of N trials.

    Arguments
    ---------
    enrol : list of str
        Utterance ids of the enrolment side.
    test : list of str
        Those of the test side.
    labels : np.ndarray
        Integers, shape [N]. 1: the same speaker, 0: different speakers.
    scores : np.ndarray
        float64, shape [N], finite.
    """

    enrol: list[str]
    test: list[str]
    labels: np.ndarray
    scores: np.ndarray


def read_score_table(path: str | pathlib.Path) -> ScoreTable:
    """Reads a score file.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    table : ScoreTable

    Raises
    ------
    InputError
        For a missing or empty file, a malformed line, or a score that is NaN
        or infinite (with the line's number).

    Example
    -------
    >>> path = pathlib.Path(getfixture("tmpdir")) / "scores.txt"
    >>> _ = path.write_text("id1/1 id1/2 1 0.75")
    >>> read_score_table(path)  # doctest: +NORMALIZE_WHITESPACE
    ScoreTable(enrol=['id1/1'], test=['id1/2'],
               labels=array([1]), scores=array([0.75]))
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no such score file")
    # -sig: spreadsheets write a byte order mark. Of splitlines a form feed ends
    # a line, of no editor.
    lines = path.read_text("utf-8-sig", errors="replace").split("\n")
    # Lists of what the garbage collector need not look at: half the time.
    enrol, test, labels, scores = [], [], [], []
    for number, line in enumerate(lines, start=1):
        try:
            one, other, kind, score = line.split()
            label, value = _LABELS[kind], float(score)
        except (ValueError, KeyError):
            if not line.strip():
                continue
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is no score, expected "
                "'enrol test label score' with label 0 or 1"
            ) from None
        if not math.isfinite(value):
            raise InputError(
                f"{path}, line {number}: the score is {value}, expected a "
                "finite number: check the embeddings of that trial"
            )
        enrol.append(one)
        test.append(other)
        labels.append(label)
        scores.append(value)
    if not scores:
        raise InputError(
            f"{path} has no scores: expected 'enrol test label score'"
        )
    return ScoreTable(enrol, test, np.array(labels), np.array(scores))


def write_scores(
    path: str | pathlib.Path,
    enrol: Iterable[str],
    test: Iterable[str],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
) -> None:
    """Writes a score file, whole or not at all.

    Scores are written with all their digits: what is read is what was
    written, without new ties.

    Arguments
    ---------
    path : str or pathlib.Path
    enrol : iterable of str
        N utterance ids without spaces.
    test : iterable of str
        Likewise.
    labels : array_like
        Shape [N], 0 or 1.
    scores : array_like
        Shape [N].

    Example
    -------
    >>> path = pathlib.Path(getfixture("tmpdir")) / "scores.txt"
    >>> write_scores(path, ["id1/1"], ["id1/2"], [1], [0.1])
    >>> path.read_text()
    'id1/1 id1/2 1 0.1\\n'
    """
    rows = zip(
        enrol,
        test,
        np.asarray(labels, int).tolist(),
        np.asarray(scores, float).tolist(),
        strict=True,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(
            "".join(
                f"{e} {t} {label} {score!r}\n" for e, t, label, score in rows
            ),
            encoding="utf-8",
        )
