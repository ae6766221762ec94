"""Lists in place of a folder: a table, a Kaldi folder, a NeMo manifest.

A table is CSV or TSV with ``path`` and ``speaker``, and any of session, sex,
language, split, offset and duration (seconds), also under the names that Common
Voice and others give them. Paths are below the list's folder, or below its
clips, wav or audio. Commands in a wav.scp are never run.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain_hyperbolic.dataio.names import (
    clean_path,
    normalized,
    without_extension,
)
from speechbrain_hyperbolic.dataio.tables import (
    PATH_COLUMNS,
    encoding_of,
    read_table,
)
from speechbrain_hyperbolic.errors import InputError, shown

_FOLDERS = ("", "clips", "wav", "audio", "data")
_COMMON_VOICE = ("validated.tsv", "train.tsv")


class Entry(NamedTuple):
    """What a line of a list says."""

    name: str  # the utterance's, or its path without extension
    path: str
    speaker: str
    session: str = ""
    start: float = 0.0  # seconds
    stop: float | None = None  # None: the end of the file
    labels: Mapping[str, str] = {}  # the speaker's: sex, lang, split


def list_in(source: Path) -> Path | None:
    """The list that a data folder is or has, or None."""
    if source.is_file():
        return source
    if (source / "wav.scp").is_file() and any(
        (source / name).is_file() for name in ("utt2spk", "spk2utt")
    ):
        return source / "wav.scp"
    if (source / "clips").is_dir():  # Common Voice
        for name in _COMMON_VOICE:
            if (source / name).is_file():
                return source / name
    return None


def read_list(path: Path) -> tuple[str, list[Entry]]:
    """What kind of list it is, and its entries."""
    if path.name == "wav.scp":
        return "Kaldi folder", list(_read_kaldi(path.parent))
    with open(path, encoding=encoding_of(path), errors="replace") as file:
        start = file.read(1000).lstrip()
    if start.startswith(("{", "[")):
        return "manifest", list(_read_manifest(path))
    entries = list(_read_csv(path))
    common = path.name in _COMMON_VOICE or (path.parent / "clips").is_dir()
    return f"{'Common Voice' if common else 'table'} {path.name}", entries


def _read_csv(path: Path) -> Iterator[Entry]:
    locate = _Locator(path.parent)
    for line, row in read_table(path, ["path", "spk_id"], PATH_COLUMNS):
        where = f"{path}, line {line}"
        if "stop" in row and "start" in row:  # a train.csv, in samples
            start, stop, seconds = (
                _number(where, key, row[key]) or 0
                for key in ("start", "stop", "duration")
            )
            rate = (stop - start) / seconds if seconds else 1
            start, length = start / rate, seconds
        else:
            start = _number(where, "offset", row.get("offset", "")) or 0.0
            length = _number(where, "duration", row.get("duration", "")) or 0.0
            if "offset" not in row:
                length = 0.0  # of a whole file
        yield _entry(
            locate, where, row["path"], row["spk_id"], start, length, row
        )


def _read_manifest(path: Path) -> Iterator[Entry]:
    locate = _Locator(path.parent)
    names = {
        other: name
        for name, others in PATH_COLUMNS.items()
        for other in (name, *others.split())
    }
    for line, item in _objects(path):
        where = f"{path}, line {line}"
        if not isinstance(item, dict):
            raise InputError(f"{where}: expected an object in braces")
        row: dict[str, Any] = {}
        for key, value in item.items():
            plain = str(key).replace("_", "").lower()
            row.setdefault(names.get(plain, str(key)), value)
        if not row.get("path") or row.get("spk_id") in (None, ""):
            raise InputError(
                f"{where}: expected the keys audio_filepath and speaker"
            )
        start = _number(where, "offset", row.get("offset") or 0) or 0.0
        length = _number(where, "duration", row.get("duration") or 0) or 0.0
        if row.get("offset") is None:
            length = 0.0
        texts = {k: str(v) for k, v in row.items() if v is not None}
        yield _entry(
            locate, where, texts["path"], texts["spk_id"], start, length, texts
        )


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    """JSON objects, one a line, or all of them as a list."""
    text = path.read_text(encoding_of(path))
    number = 1
    try:
        if text.lstrip().startswith("["):
            yield from enumerate(json.loads(text), 1)
            return
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield number, json.loads(line)
    except ValueError as error:
        raise InputError(
            f"{path}, line {number} is no JSON ({error}): expected one object "
            "a line"
        ) from error


def _entry(
    locate: "_Locator",
    where: str,
    name: str,
    speaker: str,
    start: float,
    length: float,
    row: Mapping[str, str],
) -> Entry:
    name, speaker = name.strip(), normalized(speaker)
    if not name or not speaker or not (name + speaker).isprintable():
        raise InputError(
            f"{where}: expected a path and a speaker, not {shown(name)!r} and "
            f"{shown(speaker)!r}"
        )
    labels = {k: row[k].strip() for k in ("sex", "lang", "split") if row.get(k)}
    path = locate(name)
    own = without_extension(clean_path(locate.below(name)))
    stop = start + length if length else None
    if start or stop:
        own += f"_{start:g}" + (f"-{stop:g}" if stop else "")
    session = normalized(row.get("session") or "")
    return Entry(own, path, speaker, session, start, stop, labels)


class _Locator:
    """Finds a list's paths, which are relative to one of several folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last = ""

    def __call__(self, name: str) -> str:
        name = name.replace("\\", os.sep) if "\\" in name else name
        for below in (self._last, *_FOLDERS):
            path = os.path.join(self.folder, below, name)
            if os.path.isfile(path):
                self._last = below
                return path
        return os.path.join(self.folder, self._last, name)  # told as missing

    def below(self, name: str) -> str:
        """A name that does not depend on where the list lies."""
        name = clean_path(name)
        folder = clean_path(os.path.abspath(self.folder))
        if name.startswith(folder + "/"):
            return name[len(folder) + 1 :]
        while name.startswith(("../", "/")):
            name = name.removeprefix("../").lstrip("/")
        return name


def _read_kaldi(folder: Path) -> Iterator[Entry]:
    paths = dict(_pairs(folder / "wav.scp"))
    for key, path in paths.items():
        if path.endswith("|") or path.startswith("|") or path == "-":
            raise InputError(
                f"{folder / 'wav.scp'}: {shown(key)} is a command, which is "
                f"never run ({shown(path, 40)}): write its output to a file "
                "and name that"
            )
    if (folder / "utt2spk").is_file():
        speakers = dict(_pairs(folder / "utt2spk"))
    else:
        speakers = {
            utterance: speaker
            for speaker, all_of_them in _pairs(folder / "spk2utt")
            for utterance in all_of_them.split()
        }
    genders = _optional(folder / "spk2gender")
    segments = {key: f"{key} 0 -1" for key in paths}
    if (folder / "segments").is_file():
        segments = dict(_pairs(folder / "segments"))
    for key, text in segments.items():
        where = f"{folder / 'segments'}: {shown(key)}"
        try:
            recording, first, last = text.split()
            start, stop = float(first), float(last)
            if not (start < stop or stop == -1) or start < 0:
                raise ValueError
        except ValueError:
            raise InputError(
                f"{where}: expected 'utterance recording start end' in seconds"
            ) from None
        if recording not in paths:
            raise InputError(f"{where}: wav.scp has no {shown(recording)}")
        if key not in speakers:
            raise InputError(
                f"{folder}: {shown(key)} has no speaker in utt2spk or spk2utt: "
                "add it or remove the utterance"
            )
        speaker = normalized(speakers[key])
        end = None if stop == -1 else stop
        yield Entry(
            normalized(key),
            _of_kaldi(folder, paths[recording]),
            speaker,
            start=start,
            stop=end,
            labels={"sex": genders[speaker]} if speaker in genders else {},
        )


def _of_kaldi(folder: Path, path: str) -> str:
    """A path of wav.scp, below the working folder as in Kaldi, or beside it."""
    beside = os.path.join(folder, path)
    return beside if os.path.isfile(beside) else os.path.abspath(path)


def _optional(path: Path) -> dict[str, str]:
    return dict(_pairs(path)) if path.is_file() else {}


def _pairs(path: Path) -> Iterable[tuple[str, str]]:
    """The first word of each line and the rest."""
    with open(path, encoding=encoding_of(path)) as file:
        for number, line in enumerate(file, 1):
            if fields := line.split(maxsplit=1):
                if len(fields) < 2:
                    raise InputError(
                        f"{path}, line {number}: expected two fields, not "
                        f"{shown(line.strip())!r}"
                    )
                yield fields[0], fields[1].strip()


def _number(where: str, key: str, text: object) -> float | None:
    """A number of seconds; None for an empty field."""
    if text in ("", None):
        return None
    try:
        value = float(str(text))
        if not 0 <= value < 10**9:
            raise ValueError
        return value
    except ValueError:
        raise InputError(
            f"{where}: {key} is {shown(str(text))!r}, expected seconds"
        ) from None
