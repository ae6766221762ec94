"""What the figures share."""

import pathlib
from collections.abc import Iterable

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from speechbrain_hyperbolic.analysis.columns import OTHER, UNKNOWN
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.plots import COLOURS

# Told apart without colours too.
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#8c8c8c"
COLOUR_MAP = "viridis"


def new_figure(width: float, height: float) -> Figure:
    """A figure that needs no display.

    Arguments
    ---------
    width, height : float
        In inches of 150 pixels.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | pathlib.Path) -> str | pathlib.Path:
    """Writes a PNG file, which appears once it's complete.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
    path : str or pathlib.Path

    Returns
    -------
    path : str or pathlib.Path
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def looks(groups: Iterable[str]) -> dict:
    """Colour and marker of each group.

    Arguments
    ---------
    groups : iterable of str

    Returns
    -------
    looks : dict
        Group -> (colour, marker); grey where nothing is known.

    Example
    -------
    >>> looks(["f", "m", "unknown"])["m"]
    ('#D55E00', 's')
    """
    known = [name for name in groups if name not in (OTHER, UNKNOWN)]
    chosen = dict(zip(known, zip(COLOURS, MARKERS, strict=True), strict=False))
    greys = {OTHER: ("0.35", "P"), UNKNOWN: (GREY, "X")}
    return {name: chosen.get(name) or greys[name] for name in groups}


def shorten(name: str, longest: int = 16) -> str:
    """A name that fits.

    Arguments
    ---------
    name : str
    longest : int
        In characters.

    Returns
    -------
    name : str

    Example
    -------
    >>> shorten("a long name", 6)
    'a lon…'
    """
    return name if len(name) <= longest else name[: longest - 1] + "…"


def plain_text(legend: Legend) -> None:
    """A dollar in a name is no formula.

    Arguments
    ---------
    legend : matplotlib.legend.Legend
    """
    for text in legend.get_texts():
        text.set_parse_math(False)
