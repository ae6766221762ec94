"""Output folders that can't be written, and two runs on one."""

import ctypes
import functools
import os
import runpy
import signal
import socket
import sys
import time

import pytest

from speechbrain_hyperbolic.dataio import make_trials
from speechbrain_hyperbolic.dataio.run_lock import lock_run
from speechbrain_hyperbolic.errors import InputError
from tests.faults.runs import Run
from tests.scripts import PATIENCE, VOXCELEB, Script, run_script

OWN_CORPUS = VOXCELEB.parent / "OwnCorpus" / "run.py"


@pytest.mark.parametrize("made", [False, True])
def test_a_read_only_file_system(corpus, finished, mount, made):
    """Refused before the data are looked at; also where it holds a run."""
    options = ["--bind", finished] if made else ["-t", "tmpfs", "none"]
    folder = mount(*options)
    os.system(f"mount -o remount,bind,ro {folder}")
    with Run(corpus, folder, "--data_folder=/missing") as run:
        error = run.error()
    assert str(folder) in error
    assert "Read-only file system: choose an --output_folder that" in error


def drop_capabilities():
    """Root's, to which the bits of a mode mean nothing."""
    libc = ctypes.CDLL(None)
    version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.capset(version_3, (ctypes.c_uint32 * 6)()) == 0


def test_a_folder_without_permission(corpus, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    with Run(
        corpus,
        folder / "out",
        "--data_folder=/missing",
        log=tmp_path / "log",
        first=drop_capabilities,
    ) as run:
        error = run.error()
    assert str(folder) in error
    assert "Permission denied: change its permissions, or" in error


def test_two_runs(corpus, resumable, monkeypatch, capsys):
    """The second is refused; when the first is killed, the folder is free."""
    with Run(
        corpus, resumable, "--number_of_epochs=1000", "--num_workers=1"
    ) as run:
        run.wait_for(lambda: "Going into epoch" in run.printed())
        log = resumable.with_name("second.log")
        with Run(corpus, resumable, log=log) as second:
            error = second.error()
        host = socket.gethostname()
        assert (
            f"{resumable} is in use by process {run.process.pid} on {host}: "
            "wait for that run" in error
        )
        with pytest.raises(InputError, match="in use"), lock_run(resumable):
            pass
        arguments = [str(OWN_CORPUS), f"--output_folder={resumable}"]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit):
            runpy.run_path(str(OWN_CORPUS), run_name="__main__")
        assert f"{resumable} is in use by" in capsys.readouterr().err
        assert not (resumable / "synthetic_corpus").exists()
        assert run.process.is_alive()
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.join()
        # Its worker may live on for some seconds.
        with lock_run(resumable):
            pass


def prepares_for_long(began):
    """As of a corpus of many files."""

    def make_trial_list(*_, **__):
        began.touch()
        time.sleep(PATIENCE)

    make_trials.make_trial_list = make_trial_list


def test_two_runs_in_their_preparation(corpus, tmp_path):
    began, output = tmp_path / "began", tmp_path / "out"
    arguments = [
        OWN_CORPUS,
        f"--data_folder={corpus / 'corpus'}",
        f"--output_folder={output}",
    ]
    first = functools.partial(prepares_for_long, began)
    with Script(tmp_path / "log", *arguments, first=first) as run:
        run.wait_for(began.exists)
        code, printed = run_script(*arguments)
        assert code == 2
        assert f"{output} is in use by process {run.process.pid}" in printed


def join(rank, port):
    """What torchrun sets for a process; here nothing ends the others."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def test_all_processes_of_a_distributed_run_refuse(corpus, resumable):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with lock_run(resumable):
        main, other = (
            Run(
                corpus,
                resumable,
                "--distributed_backend=gloo",
                log=resumable.with_name(f"{rank}.log"),
                first=functools.partial(join, rank, port),
            )
            for rank in range(2)
        )
        with main, other:
            assert "is in use by process" in main.error()
            code, printed = other.finish()
    assert code == 2
    assert "error" not in printed
