"""Mistakes are told in one line; bugs keep their traceback."""

import errno

import pytest
import torch

from speechbrain_hyperbolic.errors import (
    InputError,
    check_positive,
    exit_on_error,
    is_finite,
    shown,
)


class Bad(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise InputError("a.flac is truncated: replace it")


@pytest.mark.parametrize("workers", [0, 1])
def test_one_line_and_code_2(capsys, workers):
    """Also from a data loader's worker, whose traceback comes with it."""
    with pytest.raises(SystemExit) as stopped, exit_on_error():
        next(iter(torch.utils.data.DataLoader(Bad(), num_workers=workers)))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error == "error: a.flac is truncated: replace it\n"


@pytest.mark.parametrize(
    "error, line",
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "out/a.csv"),
            "out/a.csv: No space left on device: free some space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "out"),
            "out: Permission denied: change its permissions",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: 9"),
            "DataLoader worker (pid 7) is killed by signal: 9: run the same",
        ),
        (
            RuntimeError("Failed to load audio from a.wav."),
            "Failed to load audio from a.wav: restore the file",
        ),
    ],
)
def test_what_a_user_can_mend(capsys, error, line):
    with pytest.raises(SystemExit) as stopped, exit_on_error():
        raise error
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {line}") and message.count("\n") == 1


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


def test_one_of_several_processes_says_which(capsys, monkeypatch):
    """On a line of its own, below the main process's progress bar."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit), exit_on_error():
        raise InputError("a.flac is truncated: replace it")
    error = capsys.readouterr().err
    assert error == "\nerror: rank 3: a.flac is truncated: replace it\n"


def test_values():
    assert is_finite(3) and not is_finite("3") and not is_finite(float("nan"))
    assert check_positive("lr", 1) == 1.0
    with pytest.raises(InputError, match="lr is 0, expected"):
        check_positive("lr", 0)
    assert shown("\x1b[31m") == r"'\x1b[31m'"
    assert shown("a" * 100) == "a" * 80 + "..."
