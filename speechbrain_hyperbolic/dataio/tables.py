"""The one reader of CSV files with a header."""

import csv
import pathlib
from collections.abc import Collection, Iterator

from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.errors import InputError, shown


def read_table(
    path: StrPath, columns: Collection[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line number and row; rows without any text are skipped."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no such CSV file")
    # -sig: spreadsheets write a byte order mark
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        try:
            names = reader.fieldnames or []
            for name in columns:
                if name not in names:
                    raise InputError(f"{path} has no column {name}")
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
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                f"{path} can't be read as CSV ({error}, after line "
                f"{reader.line_num}): correct it, or save it as UTF-8"
            ) from error


def check_name(path: StrPath, line: int, column: str, text: str) -> None:
    """Refuses an empty name, and one with control characters."""
    if not text or not text.isprintable():
        raise InputError(
            f"{path}, line {line}: {column} is {shown(text)!r}, expected "
            "printable text"
        )
