"""Data, and the processes that load it, that go away under a running epoch."""

import contextlib
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from tests.faults.runs import Run

FOREVER = ["--number_of_epochs=1000", "--num_workers=1"]


def children_of(pid):
    children = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            # After the name, which is in brackets: the state and the parent.
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                children.append(int(stat.parent.name))
    return children


def has_trained(run):
    return lambda: list(run.output.glob("save/CKPT*"))


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/stat").exists(), reason="needs /proc"
)
def test_a_killed_worker(corpus, resumable):
    with Run(corpus, resumable, *FOREVER) as run:
        run.wait_for(lambda: "Going into epoch" in run.printed())

        def dies_of_it():
            # A worker that has given its last batch is not missed.
            for child in children_of(run.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            return "error: " in run.printed()

        run.wait_for(dies_of_it)
        error = run.error()
    assert "DataLoader worker (pid" in error
    assert ": the same command goes on" in error
    with Run(corpus, resumable, "--number_of_epochs=3") as run:
        code, printed = run.finish()
    assert code == 0, printed


def truncate(path):
    os.truncate(path, 6000)


@pytest.mark.parametrize(
    "harm, what",
    [(pathlib.Path.unlink, "is missing"), (truncate, "replace or")],
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


def test_noise_that_goes_away(corpus, tmp_path):
    """The stock augmentation reads it, in the main process."""
    noise = shutil.copytree(corpus / "noise", tmp_path / "noise")
    options = [f"--{kind}_source={noise}" for kind in ("noise", "rir")]
    with Run(
        corpus, tmp_path / "out", *options, "--number_of_epochs=1000"
    ) as run:
        run.wait_for(has_trained(run))
        shutil.rmtree(noise)
        error = run.error()
    assert f"{noise}/" in error and "put the file back" in error


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_no_crop_of_a_truncated_file_is_shorter(tmp_path, suffix):
    """It is what it was in the whole file, or an error that names it."""
    path = tmp_path / f"a{suffix}"
    samples = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(path, samples, 16000)
    starts = range(0, 12000, 500)
    whole = [audio.load(path, 16000, s, s + 4000) for s in starts]
    os.truncate(path, path.stat().st_size // 2)
    refused = 0
    for start, crop in zip(starts, whole, strict=True):
        try:
            found = audio.load(path, 16000, start, start + 4000)
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            torch.testing.assert_close(found, crop)
    assert refused > 8
