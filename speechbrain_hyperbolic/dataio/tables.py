"""Reads text files, and CSV files with a header, as any program writes them."""

import codecs
import csv
import re
from collections.abc import (
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path, existing
from speechbrain_hyperbolic.errors import InputError, shown

# A column's name -> names that it has elsewhere: Common Voice, VoxCeleb, ...
SPEAKER_COLUMNS = {
    "spk_id": "speaker speakerid spk spkid client clientid subject subjectid "
    "voxceleb1id voxceleb2id cnceleb1id cnceleb2id cncelebid uttspk spkname "
    "speakername",
    "sex": "gender",
    "lang": "language locale",
    "split": "set subset partition",
}
PATH_COLUMNS = {
    **SPEAKER_COLUMNS,
    "path": "wav file filename filepath audio audiopath audiofilepath "
    "audiofile wavpath wavfile relativepath uttpath",
    "session": "sessionid sess video videoid chapter recording youtubeid",
    "offset": "offsetseconds starttime",
    "duration": "dur seconds",
}


def read_table(
    path: StrPath,
    columns: Collection[str],
    synonyms: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line number and row; rows without any text are skipped."""
    path = existing(path, "CSV file")
    with open(path, newline="", encoding=_encoding_of(path)) as file:
        try:
            start = file.readline()
            file.seek(0)
            separator = max(",\t;", key=start.count)
            # Only CSV has quotes: in a TSV file they belong to the text.
            is_csv = separator != "\t"
            reader = csv.DictReader(
                file,
                delimiter=separator,
                skipinitialspace=is_csv,
                quoting=csv.QUOTE_MINIMAL if is_csv else csv.QUOTE_NONE,
            )
            found = reader.fieldnames or []
            names = reader.fieldnames = renamed(found, synonyms or {})
            for name in filter(None, names):
                if names.count(name) > 1:
                    raise InputError(
                        f"{path} has the column {shown(name)} twice: rename one"
                    )
            for name in columns:
                if name not in names:
                    raise InputError(
                        f"{path} has no column {name}: it has "
                        f"{shown(', '.join(names)) or 'no header'}"
                    )
            for row in reader:
                # How DictReader marks a row that is too long or too short
                if None in row or None in row.values():
                    raise InputError(
                        f"{path}, line {reader.line_num}: expected "
                        f"{len(names)} fields, as in the header: correct the "
                        "row or remove it"
                    )
                if any(row.values()):
                    yield reader.line_num, row
        except (UnicodeError, csv.Error) as error:
            raise InputError(
                f"{path} can't be read as CSV ({error}): correct it, or save "
                "it as UTF-8"
            ) from error


def read_lines(path: StrPath) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are neither empty nor comments."""
    with open(path, encoding=_encoding_of(path), errors="replace") as file:
        for number, line in enumerate(file, 1):
            text = line.strip("\ufeff\u200b\x1a").strip()
            if text and not text.startswith(("#", "// ")):
                yield number, text


def _encoding_of(path: StrPath) -> str:
    """The encoding of a text: UTF-8 or 16, else what Windows writes."""
    text = Path(path).read_bytes()
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(text) >= 4 and 0 in text[:2]:  # without a byte order mark
        return "utf-16-le" if text[1] == 0 else "utf-16-be"
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"  # spreadsheets write a byte order mark


def renamed(found: Iterable[str], synonyms: Mapping[str, str]) -> list[str]:
    """The names of columns, each by our name for it where we have one.

    ``synonyms`` has the others of each, without blanks and underscores.
    """
    known = {
        other: name
        for name, others in synonyms.items()
        for other in (name.replace("_", ""), *others.split())
    }
    names: list[str] = []
    for text in found:
        name = text.strip()
        ours = known.get(re.sub(r"[\W_]", "", name.lower()), name)
        # The first one counts: VoxCeleb's tables also have VGGFace's names.
        names.append(name if ours in names else ours)
    return names


def check_name(path: StrPath, line: int, column: str, text: str) -> None:
    """Refuses an empty name, and one with control characters."""
    if not text or not text.isprintable():
        raise InputError(
            f"{path}, line {line}: {column} is {shown(text)!r}, expected "
            "printable text"
        )


def write_table(
    rows: Iterable[Sequence], path: StrPath, columns: Sequence[str]
) -> None:
    """Writes a CSV file with a header, which appears once it is complete."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
