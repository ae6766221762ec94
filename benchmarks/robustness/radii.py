"""What the length of an embedding tells of its recording."""

import csv
import pathlib

import numpy as np

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hierarchy.correlation import rank_correlation

# dB that clean recordings count as, for ranks: above all that are asked for
_CLEAN = 100.0
_HEADER = (
    *("loss", "of", "with seconds (clean)", "with SNR (noise and clean)"),
    *("with likeness (clean)", "with likeness (all)"),
    "shorter than when clean: 5 dB; 1 s",
)


def format_radii(path):
    """Tables for people: rank correlations of norm and radius.

    Arguments
    ---------
    path : str or pathlib.Path
        Of ``write_radii``.

    Returns
    -------
    table : str
        Markdown: Spearman's rho, the mean over seeds, and the least and the
        largest end of the seeds' 95 % intervals by a bootstrap over speakers.

    Raises
    ------
    InputError
        If it is missing or has no rows.
    """
    if not pathlib.Path(path).is_file():
        raise InputError(f"{path} is missing: write it with --radius")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise InputError(f"{path} has no rows: write it again")
    losses = {}
    for row in rows:
        losses.setdefault(row["loss"], {}).setdefault(row["model"], []).append(
            row
        )
    lines = [_HEADER, ["---"] * len(_HEADER)]
    for loss, models in losses.items():
        for name in ("norm", "radius"):
            if all(row[name] for rows in models.values() for row in rows):
                found = [_cells(rows, name) for rows in models.values()]
                lines.append(
                    [loss, name, *map(_mean, zip(*found, strict=True))]
                )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(rows, name):
    """Of one model: correlations as (rho, low, high), and shares."""
    condition = np.array([row["condition"] for row in rows])
    speaker = np.array([row["speaker"] for row in rows])

    def column(key):
        return np.array([float(row[key] or _CLEAN) for row in rows])

    length, seconds = column(name), column("seconds")
    snr, likeness = column("snr"), column("likeness")
    clean = condition == "clean"
    noisy = clean | np.char.startswith(condition, "noise")

    def correlation(other, rows):
        if len(np.unique(length[rows])) < 2 or len(np.unique(other[rows])) < 2:
            return None
        found = rank_correlation(
            length[rows], other[rows], groups=speaker[rows]
        )
        return (found.rho, *found.interval)

    def share(name):
        worse = condition == name
        if worse.sum() != clean.sum():
            return None
        return (np.mean(length[worse] < length[clean]),)

    every = np.ones_like(clean)
    return (
        correlation(seconds, clean),
        correlation(snr, noisy),
        correlation(likeness, clean),
        correlation(likeness, every),
        (share("noise5"), share("first1s")),
    )


def _mean(cells):
    """One cell of the table, from those of the seeds."""
    if cells[0] is None or None in cells[0]:
        return "all alike" if cells[0] is None else ""
    if isinstance(cells[0][0], tuple):
        return "; ".join(
            f"{np.mean([cell[which] for cell in cells]):.0%}"
            for which in range(2)
        )
    rho, low, high = zip(*cells, strict=True)
    return f"{np.mean(rho):+.2f} ({min(low):+.2f} to {max(high):+.2f})"
