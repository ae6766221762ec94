"""Errors for people: one line that says what to mend."""

import contextlib
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
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
