"""Columns of a table of speakers, as groups with colors and markers."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from speechbrain_hyperbolic.evaluation.plots import COLORS

MARKERS = ("o", "s", "^", "D", "v", "P")  # told apart without colors too
OTHER, UNKNOWN = "other", "unknown"
_GRAYS = {OTHER: ("#595959", "P"), UNKNOWN: ("#8c8c8c", "X")}


class Column(NamedTuple):
    """A column of a table, for N speakers."""

    name: str
    values: list[str]  # "" where the table has none
    groups: np.ndarray  # [N], the categories to draw
    styles: dict[str, tuple[str, str]]  # category -> color, marker


def columns_of(table: dict, speakers: list[str]) -> list[Column]:
    """The columns that are not empty for all the speakers."""
    columns = []
    for name in dict.fromkeys(name for row in table.values() for name in row):
        values = [table.get(s, {}).get(name, "").strip() for s in speakers]
        if any(values) and name not in ("", "spk_id"):
            columns.append(_column(name, values))
    return columns


def _column(name: str, values: list[str]) -> Column:
    """Of more than six categories, the five most frequent keep their names."""
    counts = Counter(filter(None, values))
    if len(counts) > len(MARKERS):
        counts = Counter(dict(counts.most_common(len(MARKERS) - 1)))
    groups = [v if v in counts else OTHER if v else UNKNOWN for v in values]
    looks = zip(COLORS, MARKERS, strict=True)
    styles = dict(zip(sorted(counts), looks, strict=False))
    styles |= {group: _GRAYS[group] for group in _GRAYS if group in groups}
    return Column(name, values, np.array(groups), styles)
