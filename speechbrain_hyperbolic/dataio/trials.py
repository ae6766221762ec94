"""Trial lists, as arrays.

A line is ``label enroll test`` (VoxCeleb: label 1 for the same speaker, 0 for
different ones) or ``enroll test label`` (CN-Celeb; Kaldi's target and
nontarget). The test side is an utterance, named by its path below the corpus:
``speaker/[session/]utterance.wav``; the extension may be left out. The
enrollment side is an utterance too, or a model of several, which an enrollment
file lists: ``model utterance utterance ...`` a line.
"""

import dataclasses
import pathlib
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.audio import EXTENSIONS
from speechbrain_hyperbolic.dataio.corpus import speaker_of
from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

LABELS = {"1": 1, "0": 0, "target": 1, "nontarget": 0}
# In CN-Celeb's lists the model of speaker id00800 is id00800-enroll.
MODEL_SUFFIX = "-enroll"
_LABEL_FIRST, _LABEL_LAST = "label enroll test", "enroll test label"


class Trial(NamedTuple):
    """One comparison of a model and an utterance."""

    label: int  # 1: same speaker, 0: different speakers
    enroll: str  # an utterance id, or a model of the enrollment file
    test: str  # an utterance id: path below the corpus, without extension


@dataclasses.dataclass(frozen=True, eq=False)
class TrialList:
    """N trials as arrays of rows; iterating yields each as a ``Trial``."""

    labels: np.ndarray  # int8 [N]; 1: target, 0: nontarget
    enroll: np.ndarray  # int32 [N]: rows of models
    test: np.ndarray  # int32 [N]: rows of utterances
    models: list[str]
    members: list[np.ndarray]  # for each model the rows of its utterances
    utterances: list[str]  # ids of all that is enrolled or tested, each once

    @classmethod
    def of(
        cls,
        trials: Iterable[Trial | tuple[int, str, str]],
        enrollment: Mapping[str, Sequence[str]] | None = None,
    ) -> "TrialList":
        """From single trials; ``enrollment`` has the utterances of a model."""
        models: dict[str, int] = {}
        utterances: dict[str, int] = {}
        labels, enroll, test = [], [], []
        for label, model, utterance in trials:
            labels.append(label)
            enroll.append(models.setdefault(model, len(models)))
            test.append(utterances.setdefault(utterance, len(utterances)))
        members = []
        for model in models:
            names = enrollment[model] if enrollment else [model]
            rows = [utterances.setdefault(n, len(utterances)) for n in names]
            members.append(np.array(rows))
        return cls(
            np.array(labels, np.int8),
            np.array(enroll, np.int32),
            np.array(test, np.int32),
            list(models),
            members,
            list(utterances),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Trial]:
        for label, enroll, test in zip(
            self.labels.tolist(), self.enroll, self.test, strict=True
        ):
            yield Trial(label, self.models[enroll], self.utterances[test])

    def speakers(self) -> tuple[np.ndarray, np.ndarray]:
        """Speakers of the enrollment and of the test sides, each [N]."""
        by_utterance = np.array([speaker_of(u) for u in self.utterances])
        by_model = by_utterance[[rows[0] for rows in self.members]]
        return by_model[self.enroll], by_utterance[self.test]


def read_trials(
    path: StrPath, enrollment_file: StrPath | None = None
) -> TrialList:
    """Reads a trial list; an InputError names the line that is wrong.

    Without an ``enrollment_file`` each model is one utterance.
    """
    enrollment = read_enrollment(enrollment_file) if enrollment_file else None
    path = pathlib.Path(path)
    lines: list[int] = []
    trials = TrialList.of(_read(path, enrollment, lines), enrollment)
    if not lines:
        raise InputError(f"{path} has no trials: expected {_LABEL_FIRST!r}")
    _check_repeats(trials, path, lines)
    return trials


def _read(
    path: pathlib.Path,
    enrollment: dict[str, list[str]] | None,
    lines: list[int],
) -> Iterator[tuple[int, str, str]]:
    """Yields trials, and appends their line numbers to ``lines``."""
    models, tests = {}, {}  # as written -> id, so that each is checked once
    form = None
    for number, fields in _lines(path, "trial list"):
        # The first line tells where the labels are.
        if form is None:
            last = fields[0] not in LABELS and fields[-1] in LABELS
            form = _LABEL_LAST if last else _LABEL_FIRST
        line = " ".join(fields)
        if form == _LABEL_LAST:
            fields = [fields[-1], *fields[:-1]]
        if len(fields) != 3 or fields[0] not in LABELS:
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is no trial, "
                f"expected {form!r} with label 0 or 1"
            )
        label, model, test = fields
        if model not in models:
            models[model] = _model(model, enrollment, f"{path}, line {number}")
        if test not in tests:
            tests[test] = _utterance_id(test, f"{path}, line {number}")
        lines.append(number)
        yield LABELS[label], models[model], tests[test]


def _check_repeats(
    trials: TrialList, path: pathlib.Path, lines: list[int]
) -> None:
    """Refuses a trial with both labels; warns of repeated trials."""
    pairs = trials.enroll.astype(np.int64) * len(trials.utterances)
    pairs += trials.test
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    first = first[inverse]
    wrong = np.flatnonzero(trials.labels != trials.labels[first])
    if wrong.size:
        raise InputError(
            f"{path}, line {lines[wrong[0]]}: line {lines[first[wrong[0]]]} "
            "has the same trial with the other label: remove one of them"
        )
    repeats = np.count_nonzero(first != np.arange(len(first)))
    if repeats:
        # Each counts in the stock scripts, and in the published figures.
        logger.warning(
            f"{path}: {repeats} of {len(trials)} trials repeat another one; "
            "each line counts"
        )


def _model(
    name: str, enrollment: dict[str, list[str]] | None, where: str
) -> str:
    if enrollment is None:
        return _utterance_id(name, where)
    for model in (name, name.removesuffix(MODEL_SUFFIX)):
        if model in enrollment:
            return model
    raise InputError(
        f"{where}: {shown(name)} is not among the {len(enrollment)} models of "
        "the enrollment file"
    )


def _utterance_id(name: str, where: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise InputError(
            f"{where}: {shown(name)} leaves the corpus, expected a path below "
            "it: speaker/[session/]utterance"
        )
    stem, dot, extension = name.rpartition(".")
    # Nothing would be left of "a/.wav".
    known = stem[-1:] not in ("", "/") and dot + extension.lower() in EXTENSIONS
    return stem if known else name


def _lines(path: pathlib.Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (number, fields) of the lines that are not empty."""
    if not path.is_file():
        raise InputError(f"{path} is missing: no such {what}")
    # -sig: spreadsheets write a byte order mark
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if fields := line.split():
                yield number, fields


def read_enrollment(path: StrPath) -> dict[str, list[str]]:
    """Model -> ids of its utterances, as in CN-Celeb's enroll.map."""
    path = pathlib.Path(path)
    enrollment = {}
    for number, (model, *names) in _lines(path, "enrollment file"):
        where = f"{path}, line {number}"
        utterances = [_utterance_id(name, where) for name in names]
        repeats = len(set(utterances)) < len(utterances)
        if not utterances or repeats or model in enrollment:
            raise InputError(
                f"{where}: expected 'model utterance ...', one line for each "
                f"model and no utterance twice, for {shown(model)}"
            )
        enrollment[model] = utterances
    if not enrollment:
        raise InputError(f"{path} is empty: expected 'model utterance ...'")
    return enrollment


def trial_speakers(trials: TrialList) -> set[str]:
    """All speakers of a trial list."""
    return {speaker_of(utterance) for utterance in trials.utterances}


def write_trials(trials: Iterable[Trial], path: StrPath) -> None:
    """Writes a trial list, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            "".join(f"{t.label} {t.enroll} {t.test}\n" for t in trials),
            encoding="utf-8",
        )


def fetch_trials(source: str, folder: StrPath) -> pathlib.Path:
    """The path of a trial list given as a path or a URL.

    A list is downloaded into ``folder`` once.
    """
    if not str(source).startswith(("http://", "https://")):
        return pathlib.Path(source)
    path = pathlib.Path(folder) / pathlib.PurePosixPath(source).name
    if not path.is_file():
        try:
            with atomic_path(path) as temporary:
                urllib.request.urlretrieve(source, temporary)
                next(_read(temporary, None, []), None)  # no error page
        except (OSError, InputError) as error:
            raise InputError(
                f"can't download verification_file {source} ({error}): pass "
                "--verification_file=/path/to/trials.txt; 'python -m "
                "speechbrain_hyperbolic.dataio.make_trials DATA_FOLDER "
                "trials.txt' makes one for your own corpus"
            ) from error
    return path
