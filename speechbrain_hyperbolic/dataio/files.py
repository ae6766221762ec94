"""Files that are either whole or not there."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from speechbrain_hyperbolic.errors import WHAT_TO_DO


@contextlib.contextmanager
def naming_the_file(
    path: str | pathlib.Path | Callable[[], pathlib.Path],
) -> Iterator[None]:
    """Names the file in the error of a write, which the system does not.

    Arguments
    ---------
    path : str or pathlib.Path or callable
        The file that is written in the block, or what says which it is.

    Raises
    ------
    OSError
        With the reason, such as a full disk, and the file's name.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        name = path() if callable(path) else path
        reason: OSError | None
        if isinstance(error, RuntimeError):
            reason = _why_it_grows_no_more(name)  # torch does not say why
        else:
            reason = error
        errno = getattr(reason, "errno", None)
        if (
            errno not in WHAT_TO_DO
            or reason is None
            or reason.filename is not None
        ):
            raise
        raise OSError(errno, os.strerror(errno), str(name)) from error


def _why_it_grows_no_more(path: str | pathlib.Path) -> OSError | None:
    try:
        # Not made anew, where another process has removed it.
        with open(path, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            rest = memoryview(bytes(2**20))
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            finally:
                with contextlib.suppress(OSError):  # of a device
                    file.truncate(size)
    except OSError as error:
        return OSError(error.errno, error.strerror)
    return None


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
        with naming_the_file(temporary):
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
