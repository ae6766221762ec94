"""What a table says about speakers, as groups with colors and markers."""

import itertools
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from speechbrain_hyperbolic.evaluation.plots import COLORS

OTHER, UNKNOWN = "other", "unknown"
MARKERS = ("o", "s", "^", "D", "v", "P")  # told apart without colors too
_GRAYS = {OTHER: ("#595959", "P"), UNKNOWN: ("#8c8c8c", "X")}
_RANGES = 5


class Column(NamedTuple):
    """What is known about N speakers, in texts that are "" where nothing is.

    ``groups`` [N] are the names of categories, or of ranges of numbers;
    ``styles`` has their (color, marker), in the order of the legend.
    """

    name: str
    values: list[str]
    groups: np.ndarray
    styles: dict[str, tuple[str, str]]


def columns_of(table: dict, speakers: list[str]) -> dict[str, Column]:
    """The columns of a table that say something about the speakers, by name.

    >>> columns_of({"ann": {"sex": "f"}}, ["bob", "ann"])["sex"].groups
    array(['unknown', 'f'], dtype=object)
    """
    columns = {}
    for name in dict.fromkeys(name for row in table.values() for name in row):
        values = [table.get(s, {}).get(name, "").strip() for s in speakers]
        if any(values) and name not in ("", "spk_id"):
            columns[name] = make_column(name, values)
    return columns


def make_column(name: str, values: list[str]) -> Column:
    """Groups many different numbers by range, and other texts by category.

    Of more than six categories, the five most frequent keep their names.
    """
    texts = np.array(values)
    known = texts != ""
    kinds, counts = np.unique(texts[known], return_counts=True)
    groups = np.where(known, texts, UNKNOWN).astype(object)
    many = len(kinds) > len(MARKERS)
    numbers = _numbers(texts[known])
    if many and numbers is not None:
        edges = np.quantile(numbers, np.linspace(0, 1, _RANGES + 1))
        edges = np.unique(edges)
        ranges = [f"{a:.4g} to {b:.4g}" for a, b in itertools.pairwise(edges)]
        groups[known] = np.array(ranges)[np.digitize(numbers, edges[1:-1])]
        shades = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(ranges)))
        looks = [(to_hex(shade), "o") for shade in shades]
        styles = dict(zip(ranges, looks, strict=True))
    else:
        if many:
            kinds = np.sort(kinds[np.argsort(-counts, kind="stable")[:5]])
            groups[known & ~np.isin(texts, kinds)] = OTHER
        looks = list(zip(COLORS, MARKERS, strict=True))
        styles = dict(zip(kinds.tolist(), looks, strict=False))
    used = set(groups)
    styles = {n: s for n, s in {**styles, **_GRAYS}.items() if n in used}
    return Column(name, values, groups, styles)


def _numbers(texts: np.ndarray) -> np.ndarray | None:
    try:
        numbers = texts.astype(float)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None
