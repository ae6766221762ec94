"""What the columns of a trial list are: one reader for all forms of list."""

import math
import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from speechbrain_hyperbolic.dataio.tables import read_lines, renamed
from speechbrain_hyperbolic.errors import InputError

_TARGET = "1 1.0 +1 target tgt tar trg true t yes y genuine same match matched"
_NONTARGET = (
    "0 0.0 -1 -1.0 nontarget non-target non_target nontgt non imp imposter "
    "impostor false f no n different diff nonmatch mismatch"
)
LABELS = {
    **dict.fromkeys(_TARGET.split(), 1),
    **dict.fromkeys(_NONTARGET.split(), 0),
}
UNLABELED = -1
_SIDES = {"a", "b", "x", "left", "right"}
# A column's role -> its names in headers
_HEADER = {
    "enroll": "enrol enrollment enrolment enrollid enrolid modelid model "
    "enrollutt enrolutt enrollwav enrolwav id1 utt1 utterance1 wav1 file1 "
    "path1 audio1 reference ref",
    "test": "testid testutt testwav segmentid segment id2 utt2 utterance2 wav2 "
    "file2 path2 audio2 probe verify",
    "label": "labels target targettype istarget key same issame "
    "samespeaker class truth groundtruth trialtype",
    "side": "channel",
    "score": "scores llr",
}
# Columns of lists without a header, the usual ones first
_FORMS = [
    ("label", "enroll", "test"),
    ("enroll", "test", "label"),
    ("enroll", "test", "side"),
    ("enroll", "test", "score"),
    ("enroll", "label", "test"),
    ("enroll", "test", "label", "score"),
    ("enroll", "test", "side", "label"),
    ("label", "enroll", "test", "score"),
    ("enroll", "test", "score", "label"),
    ("enroll", "test"),
]
_LOOKED_AT = 5000  # lines that decide
_NAME = re.compile(r"[^\W\d]|/")  # and no number


# The number of a line, its label (1, 0 or UNLABELED), enroll and test
Row = tuple[int, int, str, str]


def read_columns(
    path: Path, models: Collection[str] = ()
) -> tuple[tuple[str, ...], Iterator[Row]]:
    """The columns' roles, and the rows; ``models`` are those enrolled."""
    lines = read_lines(path)
    first = list(islice(lines, _LOOKED_AT))
    if not first:
        return (), iter(())
    separator = _separator(first[0][1])
    rows = [_split(text, separator) for _, text in first]
    names = renamed(rows[0], _HEADER)
    form = tuple(name if name in _HEADER else "" for name in names)
    if "enroll" in form and "test" in form:
        del first[0]
    else:
        form = _form(rows, models)
    return form, _rows(path, form, separator, chain(first, lines))


def _rows(
    path: Path,
    form: tuple[str, ...],
    separator: str | None,
    lines: Iterable[tuple[int, str]],
) -> Iterator[Row]:
    enroll, test = form.index("enroll"), form.index("test")
    label = form.index("label") if "label" in form else None
    nontarget = ""
    for number, text in lines:
        fields = _split(text, separator)
        value: int | None = UNLABELED
        if label is not None and len(fields) == len(form):
            value = LABELS.get(fields[label].lower())
        if len(fields) != len(form) or value is None:
            expected = " ".join(role or "..." for role in form)
            hint = " with label 0 or 1" if label is not None else ""
            raise InputError(
                f"{path}, line {number}: {text[:80]!r} is no trial, "
                f"expected {expected!r}{hint}"
            )
        if value == 0 and label is not None:
            kind = fields[label].removesuffix(".0")
            # Of 0 and -1, one may mean that nobody knows.
            if {kind, nontarget} == {"0", "-1"}:
                raise InputError(
                    f"{path}, line {number}: label {kind} after {nontarget}: "
                    "give all nontarget trials one label"
                )
            nontarget = kind if kind in ("0", "-1") else nontarget
        yield number, value, fields[enroll], fields[test]


def _separator(line: str) -> str | None:
    """A comma or semicolon, or None for blanks; names have no blanks."""
    words = line.split()
    for separator in ",;":
        between = all(word.endswith(separator) for word in words[:-1])
        if between and line.count(separator) >= max(1, len(words) - 1):
            return separator
    return None


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    return [f.strip().strip("\"'").strip() for f in line.split(separator)]


def _form(rows: list[list[str]], models: Collection[str]) -> tuple[str, ...]:
    """The form that fits most rows; the first of those that fit as many."""

    def quality(form: tuple[str, ...]) -> tuple[int, int]:
        fitting = [row for row in rows if _fits(form, row)]
        enroll, test = form.index("enroll"), form.index("test")
        # "1 a/1.wav 0": which 0 or 1 is a model's name?
        marks = sum(
            2 * (row[enroll] in models) + bool(_NAME.search(row[test]))
            for row in fitting[:200]
        )
        return len(fitting), marks

    return max(_FORMS, key=quality)


def _fits(form: tuple[str, ...], row: list[str]) -> bool:
    if len(form) != len(row):
        return False
    for role, field in zip(form, row, strict=True):
        if role == "label" and field.lower() not in LABELS:
            return False
        if role == "side" and field.lower() not in _SIDES:
            return False
        if role == "score" and not is_number(field):
            return False
    # A label and one name are half a trial.
    return len(form) > 2 or row[0].lower() not in LABELS


def is_number(field: str) -> bool:
    try:
        return math.isfinite(float(field))
    except ValueError:
        return False
