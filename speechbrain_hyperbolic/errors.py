"""Errors for people: one line that names the value and says what to do."""

import contextlib
import errno
import math
import numbers
import os
import re
import sys
from collections.abc import Iterator
from typing import Any


class InputError(ValueError):
    """A user's mistake, told in one line: what is wrong and how to fix it."""


_RESUME = "then run the same command again to resume"
_ADVICE = {
    errno.ENOSPC: f"free some space, {_RESUME}",
    errno.EDQUOT: f"free some space, {_RESUME}",
    errno.EFBIG: f"raise the file size limit (ulimit -f), {_RESUME}",
    errno.EIO: f"check the disk, {_RESUME}",
    errno.EROFS: "choose an --output_folder that can be written",
    errno.EACCES: "change its permissions or choose another folder",
    errno.EEXIST: "choose another path",
    errno.EISDIR: "choose another path",
    errno.ENOTDIR: "choose another path",
}
# What PyTorch and SpeechBrain raise as a RuntimeError
_ADVICE_BY_MESSAGE = {
    r"DataLoader worker \(.*?\) .*?(?=[.\n]|$)": (
        "run the same command again to resume, with a smaller --num_workers "
        "if memory ran out"
    ),
    r"Failed to load audio from .*?(?=\.?$)": f"restore the file, {_RESUME}",
    # gloo and NCCL
    r"(?i).*?(connection (closed|reset)|broken pipe|remote process exit)": (
        "another process of the training ended, for example for lack of "
        "memory: run the same command again to resume"
    ),
}


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Turns errors that a user can fix into one line and exit code 2."""
    try:
        yield
    except (InputError, OSError, RuntimeError) as error:
        line = one_line(error)
        if line is None:
            raise
        start = "error: "
        if "LOCAL_RANK" in os.environ:
            # On a line of its own, below the main process's progress bar
            start = f"\nerror: rank {os.environ['RANK']}: "
        print(f"{start}{line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command to resume", file=sys.stderr)
        sys.exit(130)


def one_line(error: BaseException) -> str | None:
    """The line for a user, or None for a bug, which needs its traceback."""
    if isinstance(error, InputError):
        # From a data loader's worker it arrives with the worker's traceback.
        line = str(error).strip().splitlines()[-1]
        return line.removeprefix(f"{InputError.__module__}.InputError: ")
    if isinstance(error, OSError):
        if error.filename is None or error.errno not in _ADVICE:
            return None
        return f"{error.filename}: {error.strerror}: {_ADVICE[error.errno]}"
    for pattern, advice in _ADVICE_BY_MESSAGE.items():
        if found := re.match(pattern, str(error)):
            return f"{found.group()}: {advice}"
    return None


@contextlib.contextmanager
def requires(extra: str, use: str) -> Iterator[None]:
    """Says how to install what an import in it lacks."""
    try:
        yield
    except ImportError as error:
        # In a clone: there is no release to install from.
        raise InputError(
            f"{use} needs the package {error.name or extra}: in the "
            f"repository's folder, pip install -e '.[{extra}]'"
        ) from error


def shown(text: str, most: int = 80) -> str:
    """Text from outside, cut and escaped so that a terminal only shows it."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= most else f"{text[:most]}..."


def message_of(error: BaseException) -> str:
    """What a library says, on one line."""
    return shown(" ".join(str(error).split()), most=200)


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number (a string or NaN is not)."""
    return isinstance(value, numbers.Real) and math.isfinite(value)


def check_positive(name: str, value: float) -> float:
    """Returns a finite number > 0 as a float, or raises InputError."""
    if not (is_finite(value) and value > 0):
        raise InputError(f"{name} is {value}, expected a finite number > 0")
    return float(value)
