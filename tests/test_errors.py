"""One line for people."""

import pytest
import torch

from speechbrain_hyperbolic.errors import InputError, exit_on_input_error


class Bad(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise InputError("a.flac is truncated: replace it")


@pytest.mark.parametrize("workers", [0, 1])
def test_one_line_and_code_2(capsys, workers):
    """Also from a worker, whose traceback comes with it."""
    with pytest.raises(SystemExit) as stopped, exit_on_input_error():
        next(iter(torch.utils.data.DataLoader(Bad(), num_workers=workers)))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error == "error: a.flac is truncated: replace it\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError), exit_on_input_error():
        raise KeyError("a bug")


def test_ctrl_c_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_input_error():
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on\n"


def test_of_several_processes_it_says_which(capsys, monkeypatch):
    """Below the progress bar, which another one may have begun."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit), exit_on_input_error():
        raise InputError("a.flac is truncated: replace it")
    error = capsys.readouterr().err
    assert error == "\nerror: rank 3: a.flac is truncated: replace it\n"
