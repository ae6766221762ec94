"""The Poincare disk of speakers as a web page: one file that needs no network.

Its parts are ``page.html``, ``page.css`` and ``page.js`` beside this file.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from speechbrain_hyperbolic.analysis.disk import (
    caption,
    distance_matrix,
    place_by_tree,
    visible_cap,
)
from speechbrain_hyperbolic.analysis.groups import Column
from speechbrain_hyperbolic.dataio.files import write_text
from speechbrain_hyperbolic.geometry import Points

NEAREST = 5


def write_page(
    path: pathlib.Path,
    points: Points,
    names: Sequence[str],
    title: str,
    columns: Sequence[Column] = (),
    cap: float | None = None,
) -> None:
    """Writes a page for looking up speakers and moving the disk."""
    disk, parent = place_by_tree(points)
    distances = distance_matrix(points)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argsort(1)[:, : min(NEAREST, len(names) - 1)]
    apart = np.take_along_axis(distances, nearest, 1)
    data = {
        "title": title,
        "caption": caption(points),
        "cap": visible_cap(points, cap),
        "names": list(names),
        "radius": [f"{radius:.3f}" for radius in points.radius],
        "x": disk.real.round(6).tolist(),
        "y": disk.imag.round(6).tolist(),
        "parent": parent.tolist(),
        "nearest": nearest.tolist(),
        "apart": [[f"{d:.3f}" for d in row] for row in apart],
        "columns": [
            {**column._asdict(), "groups": column.groups.tolist()}
            for column in columns
        ],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":  # JSON must not end the element that holds it
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    page, style, script = (
        pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page.js")
    )
    page = page.replace("/* STYLE */", style).replace("/* SCRIPT */", script)
    page = page.replace('"DATA"', text)
    write_text(path, page)
