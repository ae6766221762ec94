"""Data, and the processes that load it, that go away under a running epoch."""

import os
import pathlib
import shutil
import signal

import pytest

from tests.faults.runs import Run

FOREVER = ["--number_of_epochs=1000", "--num_workers=1"]


def children_of(pid):
    listed = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip(f"{listed} is absent: the kernel does not list children")
    return [int(child) for child in listed.read_text().split()]


def has_trained(run):
    return lambda: list(run.output.glob("save/CKPT*"))


def test_a_killed_worker(corpus, resumable):
    with Run(corpus, resumable, *FOREVER) as run:
        run.wait_for(lambda: "Going into epoch" in run.printed())

        def dies_of_it():
            # A worker that has given its last batch is not missed.
            for child in children_of(run.process.pid):
                os.kill(child, signal.SIGKILL)
            return "error: " in run.printed()

        run.wait_for(dies_of_it)
        error = run.error()
    assert "DataLoader worker (pid" in error
    assert "Killed: the same command goes on" in error
    with Run(corpus, resumable, "--number_of_epochs=3") as run:
        code, lines = run.finish()
    assert code == 0, "\n".join(lines)


def truncate(path):
    os.truncate(path, 6000)


@pytest.mark.parametrize(
    "harm, what", [(pathlib.Path.unlink, "is missing"), (truncate, "truncated")]
)
def test_audio_that_goes_away(corpus, tmp_path, harm, what):
    """The message comes from a worker; with the file back, the run goes on."""
    own = tmp_path / "corpus"
    shutil.copytree(corpus / "corpus", own)
    options = [f"--data_folder={own}", "--num_workers=1"]
    with Run(
        corpus, tmp_path / "out", *options, "--number_of_epochs=1000"
    ) as run:
        run.wait_for(has_trained(run))
        harm(own / "Jürgen" / "3.wav")
        error = run.error()
    assert f"{own}/Jürgen/3.wav" in error and what in error

    shutil.copy(corpus / "corpus" / "Jürgen" / "3.wav", own / "Jürgen")
    (last,) = sorted((tmp_path / "out" / "save").glob("CKPT*"))[-1:]
    with Run(
        corpus, tmp_path / "out", *options, "--number_of_epochs=1000"
    ) as run:
        run.wait_for(lambda: f"Resuming from {last}" in run.printed())
