"""Errors for people: one line that says what to mend."""

import contextlib
import math
import numbers
import sys


class InputError(ValueError):
    """Something that a user gave is wrong.

    The message is one line: it names the file, key or value, says what was
    expected, and what to do.
    """


@contextlib.contextmanager
def exit_on_input_error():
    """Ends a script with the message alone and exit code 2, not a traceback.

    Example
    -------
    >>> with exit_on_input_error():
    ...     raise InputError("c is 0, expected a number >= 1")
    Traceback (most recent call last):
    SystemExit: 2
    """
    try:
        yield
    except InputError as error:
        # From a worker of a data loader it comes with the worker's traceback.
        line = str(error).strip().splitlines()[-1]
        line = line.removeprefix(f"{InputError.__module__}.InputError: ")
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        sys.exit(130)


def shown(text, most=80):
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


def is_finite(value):
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
