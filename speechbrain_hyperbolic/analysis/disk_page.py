"""The Poincare disk of speakers as a web page: one file that asks no network.

Its parts are ``page.html``, ``page.css`` and ``page.js`` beside this file.
"""

import base64
import hashlib
import importlib.resources
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from speechbrain_hyperbolic.analysis.columns import Column
from speechbrain_hyperbolic.analysis.disk_figure import shown_cap
from speechbrain_hyperbolic.analysis.figures import COLOUR_MAP, GREY
from speechbrain_hyperbolic.analysis.layout import (
    distances,
    geodesics,
    kept_neighbours,
    lay_out_tree,
)
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.geometry import Points
from speechbrain_hyperbolic.plots import COLOURS

_NEAREST = 5
# Of an edge; fewer where there are many edges to draw for each frame.
_STEPS, _FEW_STEPS, _MANY = 9, 4, 1000
_DIGITS = 6


def write_page(
    path: str | pathlib.Path,
    points: Points,
    names: Sequence[str],
    title: str = "Speakers on the Poincare disk",
    columns: dict | None = None,
    cap: float | None = None,
    has_radius: bool = True,
) -> None:
    """Writes a page on which speakers can be looked at, one by one.

    It shows a speaker's radius and its five nearest with their true
    distances, colours by any column, finds names, and moves the disk by
    hyperbolic translations: by pointer, or by the keyboard alone. The place of
    a point is that of ``lay_out_tree``.

    Arguments
    ---------
    path : str or pathlib.Path
        The HTML file; it appears, or is replaced, once it's complete.
    points : Points
        float64, vectors [N, D].
    names : sequence of str
        N names. They and the columns are shown as text, whatever they hold.
    title : str
    columns : dict
        Name -> ``Column``; None: none.
    cap : float
        Radius of a circle to draw; None: none. One of more than twice the
        largest radius isn't drawn.
    has_radius : bool
        False: all are at one radius, which says nothing.

    Raises
    ------
    InputError
        If there are fewer than two points.

    Example
    -------
    >>> import torch
    >>> from speechbrain_hyperbolic.geometry import clip_to_ball
    >>> points = clip_to_ball(torch.eye(3).double(), c=3.0)
    >>> write_page(getfixture("tmpdir") / "disk.html", points, ["a", "b", "c"])
    """
    data = _data(points, names, title, columns or {}, cap, has_radius)
    text = _part("page.html")
    script, style = _part("page.js"), _part("page.css")
    # By these the browser runs this script alone, not one in a name.
    text = text.replace("SCRIPT_HASH", _hash(script), 1)
    text = text.replace("STYLE_HASH", _hash(style), 1)
    text = text.replace("/* STYLE */", style, 1)
    text = text.replace("/* SCRIPT */", script, 1)
    text = text.replace('"DATA"', _escaped(data), 1)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _part(name: str) -> str:
    folder = importlib.resources.files(__package__)
    return (folder / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def _escaped(data: object) -> str:
    """JSON that can't end the element that it is in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _data(
    points: Points,
    names: Sequence[str],
    title: str,
    columns: dict[str, Column],
    cap: float | None,
    has_radius: bool,
) -> dict[str, Any]:
    square = distances(points)
    layout = lay_out_tree(points, square)
    count, dimensions = points.vectors.shape
    nearest = min(_NEAREST, count - 1)
    kept = kept_neighbours(layout, square, nearest)
    np.fill_diagonal(square, np.inf)
    near = np.argpartition(square, nearest - 1)[:, :nearest]
    order = np.take_along_axis(square, near, 1).argsort(1, kind="stable")
    near = np.take_along_axis(near, order, 1)
    children = np.flatnonzero(layout.parent >= 0)
    steps = _STEPS if count < _MANY else _FEW_STEPS
    edges = geodesics(
        layout.disk[children], layout.disk[layout.parent[children]], steps
    )
    radius = points.radius.cpu().numpy()
    stops = matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, 17))
    disk = layout.disk[:count]
    return {
        "title": title,
        "dimensions": dimensions,
        "kept": round(100 * kept),
        "hasRadius": has_radius,
        "cap": shown_cap(points, cap),
        "names": list(names),
        "radius": _rounded(radius),
        "x": _rounded(disk.real),
        "y": _rounded(disk.imag),
        "order": layout.order.tolist(),
        "near": near.tolist(),
        "distance": [
            _rounded(row) for row in np.take_along_axis(square, near, 1)
        ],
        "edgeSteps": steps,
        "edges": _rounded(np.stack([edges.real, edges.imag], 2).ravel()),
        "columns": [
            {
                "name": column.name,
                "values": column.values,
                "categories": None
                if column.numbers is not None
                else [column.category(value) for value in column.values],
            }
            for column in columns.values()
        ],
        "colours": COLOURS,
        "grey": GREY,
        "stops": [to_hex(stop) for stop in stops],
    }


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]
