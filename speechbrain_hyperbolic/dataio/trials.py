"""Trial lists, as arrays.

A line is ``label enrol test`` (VoxCeleb: label 1 for the same speaker, 0 for
others) or ``enrol test label`` (CN-Celeb; Kaldi's target and nontarget). What
is tested is an utterance, named by its path below the corpus:
``speaker/[session/]utterance.wav``; the extension may be left out. What is
enrolled is an utterance too, or a model of several, which an enrolment map
lists: ``model utterance utterance ...`` a line.
"""

import dataclasses
import pathlib
import urllib.request
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.audio import EXTENSIONS
from speechbrain_hyperbolic.dataio.corpus import speaker_of
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

LABELS = {"1": 1, "0": 0, "target": 1, "nontarget": 0}
# In CN-Celeb's lists the model of speaker id00800 is id00800-enroll.
MODEL_SUFFIX = "-enroll"


class Trial(NamedTuple):
    """One comparison of a model and an utterance.

    Arguments
    ---------
    label : int
        1: the same speaker, 0: different speakers.
    enrol : str
        Model: an utterance id, or a name of the enrolment map.
    test : str
        Utterance id: path below the corpus, without extension.
    """

    label: int
    enrol: str
    test: str


@dataclasses.dataclass(frozen=True, eq=False)
class TrialList:
    """Trials as arrays of rows. Iterating gives ``Trial`` after ``Trial``.

    Arguments
    ---------
    labels : np.ndarray
        int8, shape [N]: 1 for target trials, 0 for nontarget ones.
    enrol : np.ndarray
        int32, shape [N]: rows of models.
    test : np.ndarray
        int32, shape [N]: rows of utterances.
    models : list of str
        Of whom utterances are enrolled.
    members : list of np.ndarray
        For each model the rows of its utterances.
    utterances : list of str
        Ids of all that is enrolled or tested, each once.

    Example
    -------
    >>> trials = TrialList.of([(1, "a/1", "a/2"), (0, "a/1", "b/1")])
    >>> trials.models, sorted(trials.utterances)
    (['a/1'], ['a/1', 'a/2', 'b/1'])
    >>> [trials.utterances[row] for row in trials.test]
    ['a/2', 'b/1']
    """

    labels: np.ndarray
    enrol: np.ndarray
    test: np.ndarray
    models: list[str]
    members: list[np.ndarray]
    utterances: list[str]

    @classmethod
    def of(
        cls,
        trials: Iterable[Trial | tuple[int, str, str]],
        enrolment: dict[str, list[str]] | None = None,
    ) -> "TrialList":
        """From single trials.

        Arguments
        ---------
        trials : iterable of Trial
        enrolment : dict
            Model -> ids of its utterances. None: each model is one utterance.

        Returns
        -------
        trials : TrialList
        """
        models: dict[str, int] = {}
        utterances: dict[str, int] = {}
        labels, enrol, test = [], [], []
        for label, model, utterance in trials:
            labels.append(label)
            enrol.append(models.setdefault(model, len(models)))
            test.append(utterances.setdefault(utterance, len(utterances)))
        members = [
            np.array(
                [
                    utterances.setdefault(utterance, len(utterances))
                    for utterance in (
                        enrolment[model] if enrolment else [model]
                    )
                ]
            )
            for model in models
        ]
        return cls(
            np.array(labels, np.int8),
            np.array(enrol, np.int32),
            np.array(test, np.int32),
            list(models),
            members,
            list(utterances),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Trial]:
        for label, enrol, test in zip(
            self.labels.tolist(), self.enrol, self.test, strict=True
        ):
            yield Trial(label, self.models[enrol], self.utterances[test])

    def speakers(self) -> tuple[np.ndarray, np.ndarray]:
        """The speakers of both sides of each trial.

        Returns
        -------
        enrol, test : np.ndarray
            Of str, shape [N].
        """
        by_utterance = np.array([speaker_of(u) for u in self.utterances])
        by_model = by_utterance[[rows[0] for rows in self.members]]
        return by_model[self.enrol], by_utterance[self.test]


def read_trials(
    path: str | pathlib.Path, enrolment_file: str | pathlib.Path | None = None
) -> TrialList:
    """Reads a trial list.

    Arguments
    ---------
    path : str or pathlib.Path
    enrolment_file : str or pathlib.Path
        The enrolment map of its models; None: each is one utterance.

    Returns
    -------
    trials : TrialList

    Raises
    ------
    InputError
        For a missing or empty file, a malformed line, a path that leaves the
        corpus, a trial with both labels, or a model that is not in the
        enrolment map (with the line's number).

    Example
    -------
    >>> path = pathlib.Path(getfixture("tmpdir")) / "trials.txt"
    >>> _ = path.write_text("1 id1/a/1.wav id1/b/2.wav")
    >>> list(read_trials(path))
    [Trial(label=1, enrol='id1/a/1', test='id1/b/2')]
    """
    enrolment = read_enrolment(enrolment_file) if enrolment_file else None
    path = pathlib.Path(path)
    lines: list[int] = []
    trials = TrialList.of(_read(path, enrolment, lines), enrolment)
    if not lines:
        raise InputError(f"{path} has no trials: expected {_FORMS[0]!r}")
    _check_repeats(trials, path, lines)
    return trials


def _read(
    path: pathlib.Path, enrolment: dict[str, list[str]] | None, lines: list[int]
) -> Iterator[tuple[int, str, str]]:
    """Gives trials, and notes their line numbers."""
    models, tests = {}, {}  # as written -> id: each is checked once
    form = None
    for number, fields in _lines(path, "trial list"):
        form = form or _form(fields)
        trial = form and _trial(fields, form)
        if not trial:
            raise InputError(
                f"{path}, line {number}: {' '.join(fields)[:80]!r} is not a "
                f"trial, expected {form or _FORMS[0]!r} with label 0 or 1"
            )
        label, model, test = trial
        if model not in models:
            models[model] = _model(model, enrolment, path, number)
        if test not in tests:
            tests[test] = _utterance_id(test, path, number)
        lines.append(number)
        yield label, models[model], tests[test]


def _check_repeats(
    trials: TrialList, path: pathlib.Path, lines: list[int]
) -> None:
    pairs = trials.enrol.astype(np.int64) * len(trials.utterances) + trials.test
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    first = first[inverse]
    wrong = np.flatnonzero(trials.labels != trials.labels[first])
    if wrong.size:
        raise InputError(
            f"{path}, line {lines[wrong[0]]}: the label is not the one of "
            f"line {lines[first[wrong[0]]]}, which is of the same two: remove "
            "one of the lines"
        )
    repeats = np.count_nonzero(first != np.arange(len(first)))
    if repeats:
        # As the stock scripts, and the published figures, do.
        logger.warning(
            f"{path}: {repeats} of {len(trials)} trials repeat another one; "
            "each line counts"
        )


_FORMS = ("label enrol test", "enrol test label")


def _form(fields: list[str]) -> str | None:
    """Where a list has its labels, as its first line has."""
    if fields[0] in LABELS:
        return _FORMS[0]
    return _FORMS[1] if fields[-1] in LABELS else None


def _trial(fields: list[str], form: str) -> tuple[int, str, str] | None:
    if len(fields) != 3:
        return None
    if form == _FORMS[1]:
        fields = [fields[2], fields[0], fields[1]]
    label, model, test = fields
    return (LABELS[label], model, test) if label in LABELS else None


def _model(
    name: str,
    enrolment: dict[str, list[str]] | None,
    path: pathlib.Path,
    number: int,
) -> str:
    if enrolment is None:
        return _utterance_id(name, path, number)
    for model in (name, name.removesuffix(MODEL_SUFFIX)):
        if model in enrolment:
            return model
    raise InputError(
        f"{path}, line {number}: {shown(name)} is not in the enrolment map "
        f"(enrolment_file) of {len(enrolment)} models"
    )


def _utterance_id(name: str, path: pathlib.Path, number: int) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise InputError(
            f"{path}, line {number}: {shown(name)} leaves the corpus, expected "
            "a path below it: speaker/[session/]utterance"
        )
    stem, dot, extension = name.rpartition(".")
    # Of "a/.wav" nothing would be left.
    known = stem[-1:] not in ("", "/") and dot + extension.lower() in EXTENSIONS
    return stem if known else name


def _lines(path: pathlib.Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """(number, fields) of the lines that are not empty."""
    if not path.is_file():
        raise InputError(f"{path} is missing: no such {what}")
    # -sig: spreadsheets write a byte order mark
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            fields = line.split()
            if fields:
                yield number, fields


def read_enrolment(path: str | pathlib.Path) -> dict[str, list[str]]:
    """Reads an enrolment map, such as CN-Celeb's ``enroll.map``.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    enrolment : dict
        Model -> ids of its utterances, in their order.

    Raises
    ------
    InputError
        For a missing or empty file, a model without utterances or with one
        of them twice, a second line of a model, or a path that leaves the
        corpus (with the line's number).

    Example
    -------
    >>> path = pathlib.Path(getfixture("tmpdir")) / "enroll.map"
    >>> _ = path.write_text("id1 id1/a-1.wav id1/a-2.wav")
    >>> read_enrolment(path)
    {'id1': ['id1/a-1', 'id1/a-2']}
    """
    path = pathlib.Path(path)
    enrolment = {}
    for number, (model, *names) in _lines(path, "enrolment map"):
        where = f"{path}, line {number}: model {shown(model)}"
        utterances = [_utterance_id(name, path, number) for name in names]
        if not utterances:
            raise InputError(
                f"{where} has no utterances, expected 'model utterance ...'"
            )
        if len(set(utterances)) < len(utterances):
            raise InputError(f"{where} has one utterance twice: remove it")
        if model in enrolment:
            raise InputError(f"{where} is there before: give it one line")
        enrolment[model] = utterances
    if not enrolment:
        raise InputError(f"{path} is empty: expected 'model utterance ...'")
    return enrolment


def trial_speakers(trials: TrialList) -> set[str]:
    """The speakers of a trial list.

    Arguments
    ---------
    trials : TrialList

    Returns
    -------
    speakers : set of str
    """
    return {speaker_of(utterance) for utterance in trials.utterances}


def write_trials(trials: Iterable[Trial], path: str | pathlib.Path) -> None:
    """Writes a trial list, whole or not at all.

    Arguments
    ---------
    trials : iterable of Trial
    path : str or pathlib.Path
    """
    with atomic_path(path) as temporary:
        temporary.write_text(
            "".join(f"{t.label} {t.enrol} {t.test}\n" for t in trials),
            encoding="utf-8",
        )


def fetch_trials(source: str, folder: str | pathlib.Path) -> pathlib.Path:
    """The path of a trial list that is given as a path or a URL.

    Arguments
    ---------
    source : str
        ``verification_file`` of an hparams file.
    folder : str or pathlib.Path
        Where a download goes; one that is there is used.

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    InputError
        If it can't be downloaded.
    """
    if not str(source).startswith(("http://", "https://")):
        return pathlib.Path(source)
    path = pathlib.Path(folder) / pathlib.PurePosixPath(source).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_path(path) as temporary:
                urllib.request.urlretrieve(source, temporary)
                next(_read(temporary, None, []), None)  # no page of an error
        except (OSError, InputError) as error:
            raise InputError(
                f"verification_file {source} can't be downloaded ({error}): "
                "pass --verification_file=/path/to/trials.txt; 'python -m "
                "speechbrain_hyperbolic.dataio.make_trials DATA_FOLDER "
                "trials.txt' makes one for your own corpus"
            ) from error
    return path
