"""Files that are either whole or not there."""

import contextlib
import os
import pathlib
import tempfile


@contextlib.contextmanager
def atomic_path(path):
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
