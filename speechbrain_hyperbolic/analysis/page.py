"""The Poincare disk of speakers as a web page: one file that needs no network.

Its parts are ``page.html``, ``page.css`` and ``page.js`` beside this file.
"""

import base64
import hashlib
import importlib.resources
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from speechbrain_hyperbolic.analysis.columns import Column, make_column
from speechbrain_hyperbolic.analysis.disk import explain, lay_out, shown_cap
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import Points


def write_page(
    path: pathlib.Path,
    points: Points,
    names: Sequence[str],
    title: str,
    columns: Sequence[Column] = (),
    cap: float | None = None,
    has_radius: bool = True,
) -> pathlib.Path:
    """Writes a page on which speakers are looked up, and the disk is moved.

    It has each speaker's radius and nearest speakers with their true
    distances (angles for a head without radius), colors by any column, a
    search, and hyperbolic motions by pointer or keyboard. Names, title and
    columns are shown as text, whatever they hold.

    >>> import torch
    >>> from speechbrain_hyperbolic.geometry import clip_to_ball
    >>> points, path = clip_to_ball(torch.eye(3), c=3.0), getfixture("tmp_path")
    >>> write_page(path / "disk.html", points, ["a", "b", "c"], "Title").name
    'disk.html'
    """
    data = _data(points, names, title, columns, cap, has_radius)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":  # JSON must not end the element that holds it
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    page, script, style = map(_part, ("page.html", "page.js", "page.css"))
    # By the hashes, the browser runs this script alone, not one in a name.
    for mark, content in (
        ("SCRIPT_HASH", _hash(script)),
        ("STYLE_HASH", _hash(style)),
        ("/* STYLE */", style),
        ("/* SCRIPT */", script),
        ('"DATA"', text),
    ):
        page = page.replace(mark, content, 1)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _part(name: str) -> str:
    folder = importlib.resources.files(__package__)
    return (folder / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def _data(
    points: Points,
    names: Sequence[str],
    title: str,
    columns: Sequence[Column],
    cap: float | None,
    has_radius: bool,
) -> dict[str, Any]:
    if len(names) < 2:
        raise InputError("there is one speaker, expected two or more")
    radius = points.radius.cpu().numpy()
    layout = lay_out(points)
    apart, form = layout.apart, "{:.3f}"
    if has_radius:
        radii = make_column("radius", [f"{r:.3f}" for r in radius])
        columns = [*columns, radii]
    else:  # all at one radius R: sinh(d / 2) = sinh(R) sin(angle / 2)
        sine = np.sinh(apart / 2) / np.sinh(radius[0])
        apart, form = np.degrees(2 * np.arcsin(sine.clip(max=1))), "{:.1f}°"
    return {
        "title": title,
        "explanation": explain(points, layout, has_radius),
        "cap": shown_cap(points, cap) if has_radius else None,
        "names": list(names),
        "x": layout.disk.real.round(6).tolist(),
        "y": layout.disk.imag.round(6).tolist(),
        "parent": layout.parent.tolist(),
        "near": layout.near.tolist(),
        "apart": [[form.format(d) for d in row] for row in apart],
        "columns": [
            {**column._asdict(), "groups": column.groups.tolist()}
            for column in columns
        ],
    }
