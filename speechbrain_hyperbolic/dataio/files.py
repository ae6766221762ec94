"""Files that are either whole or absent, and one run at a time on a folder."""

import contextlib
import errno
import json
import os
import pathlib
import socket
import tempfile
import uuid
from collections.abc import Iterator

import filelock
from speechbrain.utils.distributed import ddp_broadcast, if_main_process

from speechbrain_hyperbolic.errors import InputError

StrPath = str | pathlib.Path
_SPACE = 2**16  # bytes that a run needs at least, for logs and settings


@contextlib.contextmanager
def atomic_path(path: StrPath) -> Iterator[pathlib.Path]:
    """A temporary path that takes the place of ``path``'s target on success."""
    path = pathlib.Path(path).resolve()
    if path.exists() and not path.is_file():  # a device would be replaced
        raise InputError(f"{path} is not a file: choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.name}.{uuid.uuid4().hex[:8]}{path.suffix}"
    temporary = path.with_name(name)
    try:
        with naming_the_file(temporary):
            yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming_the_file(path: StrPath) -> Iterator[None]:
    """Adds the file's name to the error of a failed write."""
    try:
        yield
    except RuntimeError as error:
        if "inline_container" not in str(error):
            raise
        # PyTorch's writer doesn't tell why; as a rule the disk is full.
        why = os.strerror(errno.ENOSPC)
        raise OSError(errno.ENOSPC, why, str(path)) from error
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: StrPath, text: str) -> None:
    """Writes a text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8", "replace", newline="\n")


def write_json(path: StrPath, content: object) -> None:
    """Writes JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def existing(path: StrPath, what: str) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.is_file():
        state = "a folder" if path.is_dir() else "missing"
        raise InputError(f"{path} is {state}: no such {what}")
    return path


@contextlib.contextmanager
def lock_run(output_folder: StrPath) -> Iterator[None]:
    """Refuses a second run in an output folder until this process ends."""
    path = pathlib.Path(output_folder) / "run.lock"
    lock = filelock.FileLock(path)
    failure: Exception | None = None
    if if_main_process():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            owner = f"process {os.getpid()} on {socket.gethostname()}"
            with naming_the_file(path):
                path.write_text(f"{owner}\n")
                # Fails now rather than after files of an earlier run are
                # emptied.
                with tempfile.TemporaryFile(dir=path.parent) as probe:
                    probe.write(bytes(_SPACE))
        except filelock.Timeout:
            holder = path.read_text().strip() or "another process"
            failure = InputError(
                f"{path.parent} is in use by {holder}: wait for that run, end "
                "it, or pass another --output_folder"
            )
        except OSError as error:
            failure = error
    # Without this the other processes would wait for the main one forever.
    failure = ddp_broadcast(failure)
    if failure is not None:
        raise failure if if_main_process() else SystemExit(2)
    try:
        yield
    finally:
        lock.release()
