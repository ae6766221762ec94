"""Lists in place of a folder: a table, a Kaldi folder, a NeMo manifest.

A table is CSV or TSV with ``path`` and ``speaker``, and any of session, sex,
language, split, offset and duration (seconds), also under the names that Common
Voice and others give them. Paths are below the list's folder, or below its
clips, wav or audio. Commands in a wav.scp are never run.
"""

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from speechbrain_hyperbolic.dataio.audio import segment_path
from speechbrain_hyperbolic.dataio.names import (
    clean_path,
    normalized,
    without_extension,
)
from speechbrain_hyperbolic.dataio.tables import (
    PATH_COLUMNS,
    read_lines,
    read_table,
    renamed,
)
from speechbrain_hyperbolic.errors import InputError, shown

_FOLDERS = ("", "clips", "wav", "audio", "data")
_NOBODY = ("", "nan", "NaN", "None", "null", "<NA>")  # empty, as pandas writes
_COMMON_VOICE = ("validated.tsv", "train.tsv")


class Recording(NamedTuple):
    """An utterance, as a corpus has it."""

    id: str  # speaker/[session/]utterance
    path: str  # of the file, or of a segment of it
    speaker: str
    session: str
    name: str  # its path below the data folder, or its name in a list
    real: str  # the path without links and dots
    for_trials: bool = False  # which alone name it
    labels: Mapping[str, str] = {}  # of the speaker, as in speakers.csv


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


def read_list(path: Path) -> tuple[str, list[Recording]]:
    """What kind of list it is, and its recordings."""
    folder = path.parent
    _, start = next(read_lines(path), (1, ""))
    if path.name == "wav.scp":
        kind, rows = "Kaldi folder", _read_kaldi(folder)
    elif start.startswith(("{", "[")):
        kind, rows = "manifest", _read_manifest(path)
    else:
        common = path.name in _COMMON_VOICE or (folder / "clips").is_dir()
        kind = f"{'Common Voice' if common else 'table'} {path.name}"
        rows = read_table(path, ["path", "spk_id"], PATH_COLUMNS)
    return kind, [
        _recording(folder, f"{path}, line {line}", row) for line, row in rows
    ]


def _read_manifest(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """JSON objects, one a line, as rows of a table."""
    for number, line in read_lines(path):
        try:
            item = json.loads(line)
        except ValueError as error:
            item = error
        if not isinstance(item, dict):
            raise InputError(
                f"{path}, line {number} is no JSON object "
                f"({shown(str(item))}): expected one a line, in braces"
            )
        row = dict(zip(renamed(item, PATH_COLUMNS), item.values(), strict=True))
        yield number, {k: str(v) for k, v in row.items() if v is not None}


def _recording(folder: Path, where: str, row: Mapping[str, str]) -> Recording:
    path = row.get("path", "").strip()
    speaker = normalized(row.get("spk_id", "")).replace("/", "-")
    if not path or speaker in _NOBODY or not (path + speaker).isprintable():
        raise InputError(
            f"{where}: expected a path and a speaker, not {shown(path)!r} and "
            f"{shown(speaker)!r}"
        )
    if "start" in row:  # in samples or in seconds
        raise InputError(
            f"{where}: give offset and duration, in seconds, in place of start"
        )
    start, length = 0.0, 0.0  # the whole file
    if "offset" in row:
        start = _number(where, "offset", row["offset"])
        length = _number(where, "duration", row.get("duration", ""))
    stop = start + length if length else None
    name = without_extension(_below(folder, path))
    if start or stop:
        name += f"_{start:g}" + (f"-{stop:g}" if stop else "")
    name = normalized(row.get("kaldi_utterance", name))
    own = name.removeprefix(f"{speaker}/")
    session = normalized(row.get("session", "")) or own.rpartition("/")[0]
    path = segment_path(_locate(folder, path), start, stop)
    return Recording(
        f"{speaker}/{own}",
        path,
        speaker,
        session,
        name,
        os.path.abspath(path),
        labels={
            k: row[k].strip() for k in ("sex", "lang", "split") if row.get(k)
        },
    )


def _locate(folder: Path, path: str) -> str:
    """A list's path: in one of several folders or the working folder."""
    path = path.replace("\\", os.sep)
    paths = [os.path.join(folder, below, path) for below in _FOLDERS]
    paths.append(os.path.abspath(path))  # as in Kaldi
    # On a Mac's disk é is two characters, and in a list one.
    paths += [
        unicodedata.normalize(f, p) for p in paths for f in ("NFD", "NFC")
    ]
    return next(filter(os.path.isfile, paths), paths[0])  # told as missing


def _below(folder: Path, name: str) -> str:
    """A name that does not depend on where the list lies."""
    name = clean_path(name).removeprefix(
        clean_path(os.path.abspath(folder)) + "/"
    )
    while name.startswith(("../", "/")):
        name = name.removeprefix("../").lstrip("/")
    return name


def _read_kaldi(folder: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The utterances of a Kaldi folder as rows of a table."""
    paths, speakers, segments = (
        _pairs(folder / name) for name in ("wav.scp", "utt2spk", "segments")
    )
    for speaker, utterances in _pairs(folder / "spk2utt").items():
        for utterance in utterances.split():
            if speakers.setdefault(utterance, speaker) != speaker:
                raise InputError(
                    f"{folder}: utt2spk and spk2utt name two speakers of "
                    f"{shown(utterance)}: correct one"
                )
    for key, path in paths.items():
        if path.endswith("|") or path.startswith("|") or path == "-":
            raise InputError(
                f"{folder / 'wav.scp'}: {shown(key)} is a command, which is "
                f"never run ({shown(path, 40)}): write its output to a file "
                "and name that"
            )
    parts = segments or {key: f"{key} 0 -1" for key in paths}
    for line, (key, text) in enumerate(parts.items(), 1):
        where = f"{folder / 'segments'}: {shown(key)}"
        try:
            recording, start, end = text.split()
            whole = float(end) == -1
            length = 0.0 if whole else float(end) - float(start)
            if not (whole or length > 0) or float(start) < 0:
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
        row = {
            "kaldi_utterance": key,
            "path": paths[recording],
            "spk_id": speakers[key],
            "offset": start,
            "duration": str(length),
        }
        yield line, row


def _pairs(path: Path) -> dict[str, str]:
    """The first word of each line -> the rest; empty without a file."""
    pairs: dict[str, str] = {}
    for number, line in read_lines(path) if path.is_file() else ():
        key, *rest = line.split(maxsplit=1)
        if not rest or pairs.setdefault(key, rest[0]) != rest[0]:
            raise InputError(
                f"{path}, line {number}: expected two fields, and each name "
                f"once, not {shown(line)!r}"
            )
    return pairs


def _number(where: str, key: str, text: str) -> float:
    """A number of seconds; 0 for an empty field."""
    try:
        value = float(text or 0)
        if not 0 <= value < 10**9:
            raise ValueError
        return value
    except ValueError:
        raise InputError(
            f"{where}: {key} is {shown(text)!r}, expected seconds"
        ) from None
