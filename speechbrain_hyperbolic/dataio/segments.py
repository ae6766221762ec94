"""A part of an audio file, named as the web does it: ``a.wav#t=1.5,4``."""

import re

_FRAGMENT = re.compile(r"(.+)#t=([\d.e+-]+)(?:,([\d.e+-]+))?", re.DOTALL)


def segment_path(path: str, start: float, stop: float | None) -> str:
    """The name of seconds ``start`` to ``stop`` of a file; None: its end."""
    if not start and stop is None:
        return path
    return f"{path}#t={start!r}" + ("" if stop is None else f",{stop!r}")


def split_segment(path: object) -> tuple[str, float, float | None]:
    """The file, start and stop of what ``segment_path`` returned."""
    found = _FRAGMENT.fullmatch(str(path)) if "#t=" in str(path) else None
    if not found:
        return str(path), 0.0, None
    return found[1], float(found[2]), float(found[3]) if found[3] else None


def frames_within(
    frames: int, rate: int, start: float, stop: float | None
) -> int:
    """How many of a file's frames are in a segment of it."""
    if stop is not None:
        frames = min(frames, round(stop * rate))
    return frames - round(start * rate)
