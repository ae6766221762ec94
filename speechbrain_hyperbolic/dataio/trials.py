"""Trial lists, as arrays.

A line is ``label enroll test`` (VoxCeleb: label 1 for the same speaker, 0 for
different ones) or ``enroll test label``, or any other form that ``columns``
knows; without labels it is only scored. The test side is an utterance, named by
its path below the corpus: ``speaker/[session/]utterance.wav``; the extension
may be left out. The enrollment side is an utterance too, or a model of several,
which an enrollment file lists: ``model utterance utterance ...`` a line.
"""

import dataclasses
import functools
import pathlib
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import NamedTuple

import numpy as np
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.columns import (
    LABELS,
    UNLABELED,
    is_number,
    read_columns,
)
from speechbrain_hyperbolic.dataio.corpus import Corpus, speaker_of
from speechbrain_hyperbolic.dataio.files import (
    StrPath,
    atomic_path,
    existing,
    write_text,
)
from speechbrain_hyperbolic.dataio.names import (
    clean_path,
    nearest,
    without_extension,
)
from speechbrain_hyperbolic.dataio.tables import read_lines
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

# In CN-Celeb's lists the model of speaker id00800 is id00800-enroll.
MODEL_SUFFIX = "-enroll"
_PATIENCE = 30  # seconds that a server may be silent


class Trial(NamedTuple):
    """One comparison of a model and an utterance."""

    label: int  # 1: same speaker, 0: different speakers, -1: not known
    enroll: str  # an utterance id, or a model of the enrollment file
    test: str  # an utterance id: path below the corpus, without extension


@dataclasses.dataclass(frozen=True, eq=False)
class TrialList:
    """N trials as arrays of rows; iterating yields each as a ``Trial``."""

    labels: np.ndarray  # int8 [N]; 1: target, 0: nontarget, -1: not known
    enroll: np.ndarray  # int32 [N]: rows of models
    test: np.ndarray  # int32 [N]: rows of utterances
    models: list[str]
    members: list[np.ndarray]  # for each model the rows of its utterances
    utterances: list[str]  # ids of all that is enrolled or tested, each once
    columns: tuple[str, ...] = ()  # of the file that it was read from
    missing: tuple[str, ...] = ()  # utterances that the corpus lacks

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

    @property
    def labeled(self) -> bool:
        """Whether the list tells which trials are of the same speaker."""
        return not (self.labels == UNLABELED).any()

    def speakers(self) -> tuple[np.ndarray, np.ndarray]:
        """Speakers of the enrollment and of the test sides, each [N]."""
        by_utterance = np.array([speaker_of(u) for u in self.utterances])
        by_model = by_utterance[[rows[0] for rows in self.members]]
        return by_model[self.enroll], by_utterance[self.test]


def read_trials(
    path: StrPath,
    enrollment_file: StrPath | None = None,
    corpus: Corpus | None = None,
) -> TrialList:
    """Reads a trial list; names become the ids of the ``corpus``."""
    id_of = _ids(corpus)
    path = existing(path, "trial list")
    enrollment: dict[str, list[str]] | None = None
    if enrollment_file:
        enrollment = read_enrollment(enrollment_file, corpus)
    columns, rows = read_columns(path, enrollment or ())
    lines: list[int] = []

    def read() -> Iterator[tuple[int, str, str]]:
        for number, label, model, test in rows:
            lines.append(number)
            try:
                if enrollment is None:
                    model = id_of(model)
                elif model not in enrollment:
                    model = _model(model, enrollment)
                yield label, model, id_of(test)
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error

    trials = TrialList.of(read(), enrollment)
    if not lines:
        raise InputError(f"{path} has no trials: expected 'label enroll test'")
    words = " ".join(role or "..." for role in columns)
    logger.info(f"{path}: {len(lines)} trials, read as {words!r}")
    missing = [u for u in trials.utterances if corpus and not corpus.find(u)]
    if missing:
        logger.warning(
            f"{path}: {len(missing)} of {len(trials.utterances)} utterances "
            f"are not in the corpus, such as {shown(missing[0])}"
        )
    _check_labels(trials, path, lines, bool(corpus) and not missing)
    return dataclasses.replace(trials, columns=columns, missing=tuple(missing))


def check_names(trials: TrialList, corpus: Corpus, path: StrPath) -> None:
    """Refuses a list of this corpus that names all speakers otherwise."""
    missing, names = trials.missing, trials.utterances
    # A list of another corpus is fine: VoxCeleb1's, to train on VoxCeleb2.
    if len(missing) == len(names) and corpus.may_have(missing):
        raise InputError(
            f"{path}: 0 of {len(names)} utterances are in {corpus}, such as "
            f"{shown(missing[0])}, where the corpus has "
            f"{shown(next(iter(corpus.recordings)))}: name them by their path "
            "below the data folder"
        )


def _ids(corpus: Corpus | None) -> Callable[[str], str]:
    """From names as lists write them to the ids of a corpus."""

    @functools.cache  # lists repeat their names
    def id_of(name: str) -> str:
        if corpus and (found := corpus.find(name)):
            return found.id
        path = clean_path(name)
        if path.startswith("/") or ".." in path.split("/"):
            raise InputError(
                f"{shown(name)} leaves the corpus, expected a path below it: "
                "speaker/[session/]utterance"
            )
        speaker, slash, rest = without_extension(path).partition("/")
        if corpus:
            speaker = corpus.match_speaker(speaker) or speaker
        return f"{speaker}{slash}{rest}"

    return id_of


def _check_labels(
    trials: TrialList, path: pathlib.Path, lines: list[int], known: bool
) -> None:
    """Refuses a trial with both labels, in any order; warns of odd ones."""
    members = enumerate(trials.members)
    rows = [m[0] if len(m) == 1 else -1 - i for i, m in members]
    sides = np.array(rows)[trials.enroll], trials.test
    doubtful = sides[0] == sides[1]
    if known:  # a target trial of two speakers, or a nontarget one of one
        enroll, test = trials.speakers()
        doubtful |= trials.labels == (enroll != test)
    if doubtful.any():
        logger.warning(
            f"{path}: {doubtful.sum()} of {len(lines)} trials compare an "
            "utterance with itself, or have a label that the speakers' names "
            f"contradict: the first is in line {lines[doubtful.argmax()]}"
        )
    pairs = np.minimum(*sides) * len(trials.utterances) + np.maximum(*sides)
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    first = first[inverse]
    wrong = np.flatnonzero(trials.labels != trials.labels[first])
    if wrong.size:
        raise InputError(
            f"{path}, line {lines[wrong[0]]}: line {lines[first[wrong[0]]]} "
            "has the same trial with the other label: remove one of them"
        )


def _model(name: str, enrollment: dict[str, list[str]]) -> str:
    model = name.removesuffix(MODEL_SUFFIX)
    if model not in enrollment:
        raise InputError(
            f"{shown(name)} is not among the {len(enrollment)} models of the "
            f"enrollment file{nearest(name, enrollment)}"
        )
    return model


def read_enrollment(
    path: StrPath, corpus: Corpus | None = None
) -> dict[str, list[str]]:
    """Model -> ids of its utterances, as in CN-Celeb's enroll.map."""
    path, id_of = existing(path, "enrollment file"), _ids(corpus)
    enrollment: dict[str, list[str]] = {}
    for number, line in read_lines(path):
        model, *names = line.split()
        try:
            utterances = [id_of(name) for name in names]
            repeats = len(set(utterances)) < len(utterances)
            if not utterances or repeats or model in enrollment:
                raise InputError(
                    "expected 'model utterance ...', one line for each model "
                    f"and no utterance twice, for {shown(model)}"
                )
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        enrollment[model] = utterances
    if not enrollment:
        raise InputError(f"{path} is empty: expected 'model utterance ...'")
    return enrollment


def trial_speakers(trials: TrialList) -> set[str]:
    """All speakers of a trial list."""
    return {speaker_of(utterance) for utterance in trials.utterances}


def write_trials(trials: Iterable[Trial], path: StrPath) -> None:
    """Writes a trial list, whole or not at all."""
    lines = []
    for label, *names in trials:
        fields = list(map(_written, names))
        if label != UNLABELED:
            fields.insert(0, str(label))
        lines.append(" ".join(fields) + "\n")
    write_text(path, "".join(lines))


def _written(name: str) -> str:
    """As it is read: a.m4a would lose its end, 1 be a label, 2 a score."""
    clear = without_extension(name) == name and name.lower() not in LABELS
    return name if clear and not is_number(name) else f"{name}.wav"


def fetch_trials(source: str, folder: StrPath) -> pathlib.Path:
    """The path of a trial list; a URL's is downloaded into ``folder`` once."""
    if not str(source).startswith(("http://", "https://")):
        return pathlib.Path(source)
    path = pathlib.Path(folder) / pathlib.PurePosixPath(source).name
    if not path.is_file():
        try:
            with urllib.request.urlopen(source, timeout=_PATIENCE) as answer:
                content = answer.read()
            if content.lstrip().startswith(b"<"):
                raise InputError("it is a web page and no trial list")
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        except (OSError, HTTPException, InputError) as error:
            raise InputError(
                f"can't download verification_file {source} ({error}): pass "
                "--verification_file=/path/to/trials.txt; 'python -m "
                "speechbrain_hyperbolic.dataio.make_trials DATA_FOLDER "
                "trials.txt' makes one for your own corpus"
            ) from error
    return path
