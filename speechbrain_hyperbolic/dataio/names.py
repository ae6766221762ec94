"""Names that mean the same thing, however a system or a spreadsheet wrote them.

Paths are compared in one form: Unicode NFC, forward slashes, no ``./``.
"""

import difflib
import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterable

from speechbrain_hyperbolic.dataio.audio import EXTENSIONS
from speechbrain_hyperbolic.errors import shown


def normalized(name: str) -> str:
    """A name in composed Unicode and without blanks around it."""
    name = name.strip()
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def clean_path(name: str) -> str:
    """A path as ids have it: slashes, no ``./``, ``C:`` or ``file://``."""
    name = normalized(name).replace("\\", "/")
    name = re.sub("^(file:(//[^/]*)?(?=/))?(/?[A-Za-z]:(?=/))?", "", name)
    name = posixpath.normpath(name)
    return "/" + name.lstrip("/") if name.startswith("/") else name


def without_extension(name: str) -> str:
    """A file's name without the extension of an audio format."""
    stem, _, extension = name.rpartition(".")
    # Nothing would be left of "a/.wav".
    known = stem and stem[-1] != "/" and "." + extension.lower() in EXTENSIONS
    return stem if known else name


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message: what may have been meant."""
    close = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f"; the nearest name is {shown(close[0])}" if close else ""


class Matcher:
    """Finds names in another case, or whose leading zeros were taken."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = set(names)
        self._keys: dict[str, str | None] = {}
        for name in self.names:
            key = _key(name)
            # 1 and 001 beside each other: neither is a guess
            self._keys[key] = None if key in self._keys else name

    def __call__(self, name: str) -> str | None:
        """The name that is meant, or None."""
        name = normalized(name)
        return name if name in self.names else self._keys.get(_key(name))


def _key(name: str) -> str:
    """A whole number without leading zeros, another name in lower case."""
    found = re.fullmatch(r"0*(\d+?)(?:\.0+)?", name, re.ASCII)
    return found[1] if found else name.casefold()
