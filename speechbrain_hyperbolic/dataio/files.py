"""Files that are either whole or not there."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path beside ``path`` that takes its name on success.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to write; its folder is made where it is missing.

    Yields
    ------
    temporary : pathlib.Path
        To be written by the caller; it's removed when the caller raises.

    Example
    -------
    >>> path = getfixture("tmpdir") / "a.txt"
    >>> with atomic_path(path) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> pathlib.Path(path).read_text()
    'whole'
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
    )
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        # mkstemp makes it private; a result is for whoever the umask admits.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Stamp:
    """A file that says with which arguments something was made.

    Arguments
    ---------
    path : str or pathlib.Path
    arguments : dict or list
        Of what JSON can hold.

    Example
    -------
    >>> stamp = Stamp(getfixture("tmpdir") / "stamp.json", {"seed": 1})
    >>> stamp.is_there()
    False
    >>> stamp.write()
    >>> stamp.is_there()
    True
    """

    def __init__(
        self, path: str | pathlib.Path, arguments: dict | list
    ) -> None:
        self.path = pathlib.Path(path)
        self.text = json.dumps(arguments)

    def is_there(self) -> bool:
        """Whether it was made with just these arguments."""
        return self.path.is_file() and self.path.read_text() == self.text

    def remove(self) -> None:
        """To be called before the making starts."""
        self.path.unlink(missing_ok=True)

    def write(self) -> None:
        """To be called when all is made."""
        with atomic_path(self.path) as temporary:
            temporary.write_text(self.text)
