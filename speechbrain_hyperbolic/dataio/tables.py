"""CSV files, of which each row is whole."""

import csv
import pathlib
from collections.abc import Collection, Iterator, Sequence

from speechbrain_hyperbolic.errors import InputError, shown


def read_table(
    path: str | pathlib.Path, columns: Collection[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Reads a CSV file with a header, a row at a time.

    Arguments
    ---------
    path : str or pathlib.Path
    columns : collection of str
        What the header must have; it may have more.

    Yields
    ------
    line : int
        Where the row ends, counted from 1.
    row : dict
        Column -> text. Rows without any text are passed over.

    Raises
    ------
    InputError
        If it is missing or not UTF-8, a column is missing or there twice, or
        a row has not as many fields as the header.

    Example
    -------
    >>> path = pathlib.Path(getfixture("tmpdir")) / "speakers.csv"
    >>> _ = path.write_text("spk_id,sex\\nid1,f\\n")
    >>> list(read_table(path, ["spk_id"]))
    [(2, {'spk_id': 'id1', 'sex': 'f'})]
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no such CSV file")
    # -sig: spreadsheets write a byte order mark
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        try:
            names = reader.fieldnames or []
            _check_header(path, names, columns)
            for row in reader:
                # DictReader's: key of what is too much, value of what isn't.
                if None in row or None in row.values():
                    raise InputError(
                        f"{path}, line {reader.line_num}: the row has not the "
                        f"{len(names)} fields of the header: mend "
                        "it, or remove it"
                    )
                if any(row.values()):
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is not UTF-8 ({error.reason} after line "
                f"{reader.line_num}): save it as UTF-8"
            ) from error
        except csv.Error as error:
            raise InputError(
                f"{path}: {error}, after line {reader.line_num}: mend the line"
            ) from error


def _check_header(
    path: pathlib.Path, names: Sequence[str], columns: Collection[str]
) -> None:
    for name in columns:
        if name not in names:
            raise InputError(f"{path} has no column {name} in its header")
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{path} has the column {shown(name)!r} twice: rename one"
            )
