"""What a table says of speakers: columns to colour by."""

import math
from typing import NamedTuple

import numpy as np

SPEAKER = "spk_id"
UNKNOWN, OTHER = "unknown", "other"
# As many as the palette has colours that are told apart.
MOST_CATEGORIES = 6


class Column(NamedTuple):
    """A column of a table of speakers, with a value for each of some.

    Arguments
    ---------
    name : str
    values : list of str
        Shape [N]; "" where the table says nothing.
    numbers : np.ndarray
        Shape [N], NaN where it says nothing; None: it's a category.
    categories : list of str
        Of a category: at most six, the last of which may be ``OTHER``.
    """

    name: str
    values: list[str]
    numbers: np.ndarray | None
    categories: list[str]

    def groups(self) -> dict:
        """Splits the speakers: by category, or a number at its median.

        Returns
        -------
        groups : dict
            Name -> which, bool, shape [N]. No group is empty.
        """
        if self.numbers is None:
            values = np.array([self.category(v) for v in self.values])
            groups = {name: values == name for name in self.categories}
            groups[UNKNOWN] = values == UNKNOWN
        else:
            median = np.nanmedian(self.numbers)
            groups = {
                f"{self.name} up to {median:g}": self.numbers <= median,
                f"{self.name} above {median:g}": self.numbers > median,
                UNKNOWN: np.isnan(self.numbers),
            }
        return {name: which for name, which in groups.items() if which.any()}

    def category(self, value: str) -> str:
        """The category that a value is in.

        Arguments
        ---------
        value : str

        Returns
        -------
        category : str
        """
        if not value:
            return UNKNOWN
        return value if value in self.categories else OTHER


def columns_of(table: dict, speakers: list[str]) -> dict:
    """What a table says of some speakers, by column.

    A column of numbers with more than six different ones is a number, any
    other a category. One that says nothing of them is left out.

    Arguments
    ---------
    table : dict
        Speaker -> its row, as ``corpus.read_speaker_table`` gives it.
    speakers : list of str
        Shape [N].

    Returns
    -------
    columns : dict
        Name -> ``Column``.

    Example
    -------
    >>> columns_of({"ann": {"sex": "f"}}, ["bob", "ann"])["sex"].values
    ['', 'f']
    """
    names = dict.fromkeys(name for row in table.values() for name in row)
    columns = {}
    for name in filter(None, names):  # a comma at the header's end names ""
        if name == SPEAKER:
            continue
        values = [table.get(s, {}).get(name, "").strip() for s in speakers]
        if any(values):
            columns[name] = _column(name, values)
    return columns


def _column(name: str, values: list[str]) -> Column:
    known = [value for value in values if value]
    counts = {value: known.count(value) for value in sorted(set(known))}
    if len(counts) > MOST_CATEGORIES:
        numbers = [_number(value) for value in values]
        if all(
            math.isfinite(n)
            for n, value in zip(numbers, values, strict=True)
            if value
        ):
            return Column(name, values, np.array(numbers), [])
        most = sorted(counts, key=counts.__getitem__, reverse=True)
        most = most[: MOST_CATEGORIES - 1]
        return Column(name, values, None, [*sorted(most), OTHER])
    return Column(name, values, None, list(counts))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
