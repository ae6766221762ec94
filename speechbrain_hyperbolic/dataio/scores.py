"""Score files: ``enroll test label score`` a line, as the stock writes them."""

import math
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speechbrain_hyperbolic.dataio.files import StrPath, existing, write_text
from speechbrain_hyperbolic.dataio.tables import read_lines
from speechbrain_hyperbolic.errors import InputError

_LABELS = {"0": 0, "1": 1}


class ScoreTable(NamedTuple):
    """The columns of a score file of N trials."""

    enroll: list[str]  # utterance ids, or models
    test: list[str]  # utterance ids
    labels: np.ndarray  # integers [N]; 1: same speaker, 0: different speakers
    scores: np.ndarray  # float64 [N], finite


def read_score_table(path: StrPath) -> ScoreTable:
    """Reads a score file, or that of a verification's output folder."""
    path = pathlib.Path(path)
    path = existing(
        path / "scores.txt" if path.is_dir() else path, "score file"
    )
    # Flat lists take half the time of rows, which are garbage-collected.
    enroll, test, labels, scores = [], [], [], []
    for number, line in read_lines(path):
        try:
            one, other, kind, text = line.split()
            label, score = _LABELS[kind], float(text)
            if not math.isfinite(score):
                raise ValueError
        except (ValueError, KeyError):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is not a score line, "
                "expected 'enroll test label score' with label 0 or 1 and a "
                "finite score"
            ) from None
        enroll.append(one)
        test.append(other)
        labels.append(label)
        scores.append(score)
    if not scores:
        raise InputError(
            f"{path} has no scores: expected 'enroll test label score'"
        )
    return ScoreTable(enroll, test, np.array(labels), np.array(scores))


def write_scores(
    path: StrPath,
    enroll: Iterable[str],
    test: Iterable[str],
    labels: npt.ArrayLike | None,
    scores: npt.ArrayLike,
) -> None:
    """Writes a score file with all digits, so that no new ties arise."""
    columns = [enroll, test, np.asarray(scores, float).tolist()]
    if labels is not None:
        columns.insert(2, np.asarray(labels, int).tolist())
    rows = zip(*columns, strict=True)
    write_text(path, "".join(" ".join(map(str, row)) + "\n" for row in rows))
