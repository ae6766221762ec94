"""One run at a time on an output folder."""

import contextlib
import errno
import os
import pathlib
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO

from speechbrain.utils.distributed import ddp_broadcast, if_main_process
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import naming_the_file
from speechbrain_hyperbolic.errors import InputError

if sys.platform != "win32":
    import fcntl

logger = get_logger(__name__)

NAME = "run.lock"
_ROOM = 2**16  # bytes, for logs and settings


@contextlib.contextmanager
def lock_run(output_folder: str | pathlib.Path) -> Iterator[None]:
    """Holds an output folder for this run, which no other run then enters.

    The lock is the operating system's and ends with the process, however it
    ends: the file that stays behind locks nothing. In distributed training
    the main process holds it, and all processes refuse together.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        It's made where it is missing.

    Raises
    ------
    InputError
        If another run holds it.
    OSError
        If the folder can't be written: names it.

    Example
    -------
    >>> with lock_run(getfixture("tmpdir")):
    ...     pass
    """
    path = pathlib.Path(output_folder) / NAME
    file, failure = None, None
    if if_main_process():
        try:
            file = _lock(path)
        except (InputError, OSError) as error:
            failure = error
    # The other processes would wait for a main one that has gone.
    failure = ddp_broadcast(failure)
    if failure is not None:
        raise failure if if_main_process() else SystemExit(2)
    with file or contextlib.nullcontext():
        yield


def _lock(path: pathlib.Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")
    if not _take(file):
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise InputError(
            f"{path.parent} is in use by {holder}: wait for that run, end it, "
            "or pass another --output_folder"
        )
    with naming_the_file(path):
        file.truncate(0)
        print(f"process {os.getpid()} on {socket.gethostname()}", file=file)
        file.flush()
        # Before files of an earlier run are opened, and so emptied.
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.write(bytes(_ROOM))
    return file


@contextlib.contextmanager
def wait_for_lock(path: str | pathlib.Path) -> Iterator[None]:
    """Waits for the process that holds a file, and then holds it.

    Arguments
    ---------
    path : str or pathlib.Path
        The file, of which nothing is read; it's made where it is missing.

    Example
    -------
    >>> with wait_for_lock(getfixture("tmpdir") / "lock"):
    ...     pass
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        if not _take(file):
            logger.info(f"Waiting for another run, which holds {path}.")
            _take(file, waits=True)
        yield


def _take(file: TextIO, waits: bool = False) -> bool:
    """Whether a file is locked now, or can't be by anyone."""
    if sys.platform == "win32":
        return True
    try:
        # Not flock, which the workers of a data loader would inherit, and
        # hold for as long as they outlive a killed run.
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        # E.g. NFS without its lock service, Lustre mounted without flock.
        logger.warning(
            f"{file.name} can't be locked ({error.strerror}): take care that "
            "no other run writes there"
        )
    return True
