"""Trial lists, as arrays.

A line is ``label enroll test`` (VoxCeleb: label 1 for the same speaker, 0 for
different ones) or ``enroll test label``, or any other form that ``columns``
knows; without labels it is only scored. The test side is an utterance, named by
its path below the corpus: ``speaker/[session/]utterance.wav``; the extension
may be left out. The enrollment side is an utterance too, or a model of several,
which an enrollment file lists: ``model utterance utterance ...`` a line.
"""

import dataclasses
import pathlib
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.columns import (
    LABELS,
    UNLABELED,
    read_columns,
)
from speechbrain_hyperbolic.dataio.corpus import Corpus, speaker_of
from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.dataio.names import (
    clean_path,
    has_audio_extension,
    nearest,
    without_extension,
)
from speechbrain_hyperbolic.dataio.tables import encoding_of
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

# In CN-Celeb's lists the model of speaker id00800 is id00800-enroll.
MODEL_SUFFIX = "-enroll"


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
    """Reads a trial list; an InputError names the line that is wrong.

    Without an ``enrollment_file`` each model is one utterance. With a
    ``corpus``, names become its ids, however the list writes them.
    """
    ids = _Ids(corpus)
    enrollment = None
    if enrollment_file:
        enrollment = read_enrollment(enrollment_file, corpus)
    path = _existing(path, "trial list")
    lines: list[int] = []
    columns, rows = read_columns(path, enrollment)
    trials = TrialList.of(_read(path, enrollment, rows, lines, ids), enrollment)
    if not lines:
        raise InputError(f"{path} has no trials: expected 'label enroll test'")
    words = " ".join(role or "..." for role in columns)
    logger.info(f"{path}: {len(lines)} trials, read as {words!r}")
    missing = [u for u in trials.utterances if not ids.has(u)]
    if missing:
        logger.warning(
            f"{path}: {len(missing)} of {len(trials.utterances)} utterances "
            f"are not in the corpus, such as {shown(missing[0])}"
        )
    trials = dataclasses.replace(
        trials, columns=columns, missing=tuple(missing)
    )
    _check_repeats(trials, path, lines)
    return trials


def _read(
    path: pathlib.Path,
    enrollment: dict[str, list[str]] | None,
    rows: Iterable[tuple[int, int, str, str]],
    lines: list[int],
    ids: "_Ids",
) -> Iterator[tuple[int, str, str]]:
    """Yields trials, and appends their line numbers to ``lines``."""
    models: dict[str, str] = {}  # as written -> id, to check each once
    for number, label, model, test in rows:
        where = f"{path}, line {number}"
        if enrollment is None:
            model = ids(model, where)
        else:
            if model not in models:
                models[model] = _model(model, enrollment, where)
            model = models[model]
        lines.append(number)
        yield label, model, ids(test, where)


class _Ids:
    """From names as lists write them to the ids of a corpus."""

    def __init__(self, corpus: Corpus | None) -> None:
        self.corpus = corpus
        self._known: dict[str, str] = {}

    def __call__(self, name: str, where: str) -> str:
        if name not in self._known:
            self._known[name] = self._find(name, where)
        return self._known[name]

    def has(self, id: str) -> bool:
        corpus = self.corpus
        return corpus is None or (
            id in corpus.recordings or id in corpus.for_trials
        )

    def _find(self, name: str, where: str) -> str:
        found = self.corpus and self.corpus.resolve([name])[name]
        if found:
            return found
        path = clean_path(name)
        if path.startswith("/") or ".." in path.split("/"):
            raise InputError(
                f"{where}: {shown(name)} leaves the corpus, expected a path "
                "below it: speaker/[session/]utterance"
            )
        id = without_extension(path)
        if self.corpus is not None:
            speaker, slash, rest = id.partition("/")
            matched = self.corpus.match_speaker(speaker)
            return f"{matched or speaker}{slash}{rest}"
        return id


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


def _model(name: str, enrollment: dict[str, list[str]], where: str) -> str:
    for model in (name, name.removesuffix(MODEL_SUFFIX)):
        if model in enrollment:
            return model
    raise InputError(
        f"{where}: {shown(name)} is not among the {len(enrollment)} models of "
        f"the enrollment file{nearest(name, enrollment)}"
    )


def _existing(path: StrPath, what: str) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no such {what}")
    return path


def read_enrollment(
    path: StrPath, corpus: Corpus | None = None
) -> dict[str, list[str]]:
    """Model -> ids of its utterances, as in CN-Celeb's enroll.map."""
    path, ids = _existing(path, "enrollment file"), _Ids(corpus)
    enrollment: dict[str, list[str]] = {}
    with open(path, encoding=encoding_of(path), errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not (fields := line.split()):
                continue
            (model, *names), where = fields, f"{path}, line {number}"
            utterances = [ids(name, where) for name in names]
            repeats = len(set(utterances)) < len(utterances)
            if not utterances or repeats or model in enrollment:
                raise InputError(
                    f"{where}: expected 'model utterance ...', one line for "
                    "each model and no utterance twice, for "
                    f"{shown(model)}"
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
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        for label, *names in trials:
            fields = list(map(_written, names))
            if label != UNLABELED:
                fields.insert(0, str(label))
            file.write(" ".join(fields) + "\n")


def _written(name: str) -> str:
    """A name that is read as itself: a.m4a would lose its end, 1 be a label."""
    unclear = has_audio_extension(name) or name.lower() in LABELS
    return f"{name}.wav" if unclear else name


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
                _refuse_page(temporary)
        except (OSError, InputError) as error:
            raise InputError(
                f"can't download verification_file {source} ({error}): pass "
                "--verification_file=/path/to/trials.txt; 'python -m "
                "speechbrain_hyperbolic.dataio.make_trials DATA_FOLDER "
                "trials.txt' makes one for your own corpus"
            ) from error
    return path


def _refuse_page(path: pathlib.Path) -> None:
    """Finds a server's error page in place of a list."""
    for row in read_columns(path)[1]:
        if row.enroll.startswith("<"):
            raise InputError("it is a web page and no trial list")
        return
