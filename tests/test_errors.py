"""Mistakes are told in one line; bugs keep their traceback."""

import errno

import pytest

from speechbrain_hyperbolic.errors import exit_on_error


@pytest.mark.parametrize(
    "error, line",
    [
        (OSError(errno.ENOSPC, "Full", "a.csv"), "a.csv: Full: free some"),
        (RuntimeError("Failed to load audio from a."), "a: restore the file, "),
    ],
)
def test_what_a_user_can_mend(capsys, error, line):
    with pytest.raises(SystemExit) as stopped, exit_on_error():
        raise error
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert line in message


@pytest.mark.parametrize(
    "bug",
    [KeyError("a"), RuntimeError("shapes differ"), OSError("without a file")],
)
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises(type(bug)), exit_on_error():
        raise bug


def test_ctrl_c_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_error():
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    error = capsys.readouterr().err
    assert error == "interrupted: run the same command to resume\n"
