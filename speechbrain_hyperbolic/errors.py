"""Errors for people: one line that says what to mend."""

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
    """Something that a user gave is wrong.

    The message is one line: it names the file, key or value, says what was
    expected, and what to do.
    """


# What to do about what the operating system refuses
WHAT_TO_DO = {
    errno.ENOSPC: "make space, and the same command goes on",
    errno.EDQUOT: "make space, and the same command goes on",
    errno.EFBIG: "raise the limit (ulimit -f), and the same command goes on",
    errno.EROFS: "choose an --output_folder that can be written",
    errno.EACCES: "change its permissions, or choose another folder",
    errno.EIO: "check the disk, and the same command goes on",
}
# What to do about what PyTorch and SpeechBrain raise as a RuntimeError
_WHAT_TO_DO_BY_MESSAGE = {
    r"DataLoader worker \(.*?\) .*?(?=[.\n]|$)": (
        "the same command goes on; if it was for want of memory, with a "
        "smaller --num_workers"
    ),
    # Of noise, which the stock augmentation reads.
    r"Failed to load audio from .*?(?=\.?$)": (
        "put the file back, and the same command goes on"
    ),
}


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Ends a script with the message alone and exit code 2, not a traceback.

    So it does where the machine fails the script, and not the other way
    round: a full disk, a folder that can't be written, a killed worker. Of
    the processes of torchrun it names the one that tells.

    Example
    -------
    >>> with exit_on_input_error():
    ...     raise InputError("c is 0, expected a number >= 1")
    Traceback (most recent call last):
    SystemExit: 2
    """
    try:
        yield
    except (InputError, OSError, RuntimeError) as error:
        line = one_line(error)
        if line is None:
            raise
        start = "error: "
        if "LOCAL_RANK" in os.environ:
            # On a line of its own: the progress bar is of the first process.
            start = f"\nerror: rank {os.environ['RANK']}: "
        print(f"{start}{line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        sys.exit(130)


def one_line(error: BaseException) -> str | None:
    """What to tell of an error, instead of its traceback.

    Arguments
    ---------
    error : BaseException

    Returns
    -------
    line : str
        None: it's a bug, and needs its traceback.

    Example
    -------
    >>> one_line(InputError("c is 0, expected a number >= 1"))
    'c is 0, expected a number >= 1'
    >>> one_line(KeyError("c"))
    """
    if isinstance(error, InputError):
        # From a worker of a data loader it comes with the worker's traceback.
        line = str(error).strip().splitlines()[-1]
        return line.removeprefix(f"{InputError.__module__}.InputError: ")
    if isinstance(error, OSError):
        if error.filename is None or error.errno not in WHAT_TO_DO:
            return None
        advice = WHAT_TO_DO[error.errno]
        return f"{error.filename}: {error.strerror}: {advice}"
    for message, advice in _WHAT_TO_DO_BY_MESSAGE.items():
        if found := re.match(message, str(error)):
            return f"{found.group()}: {advice}"
    return None


def shown(text: str, most: int = 80) -> str:
    """What a stranger wrote, as a message may hold it.

    Arguments
    ---------
    text : str
    most : int
        Characters.

    Returns
    -------
    text : str
        Cut where it's longer; in ASCII with escapes where a terminal would
        obey it, not show it.

    Example
    -------
    >>> shown("id1/Zoë"), shown("id1\\x1b[2J")
    ('id1/Zoë', "'id1\\\\x1b[2J'")
    """
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= most else f"{text[:most]}..."


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number.

    Arguments
    ---------
    value : Any

    Returns
    -------
    finite : bool

    Example
    -------
    >>> is_finite(0.2), is_finite("0.2"), is_finite(float("nan"))
    (True, False, False)
    """
    return isinstance(value, numbers.Real) and math.isfinite(value)
