"""A tiny corpus, and small disks."""

import contextlib
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from tests.faults.runs import SPEAKERS, Run

RATE = 16000


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Noise as speech, of speakers whose names are not ASCII; a trial list."""
    folder = tmp_path_factory.mktemp("faults")
    generator = np.random.default_rng(0)
    for speaker in [*SPEAKERS, "a", "b"]:
        (folder / "corpus" / speaker).mkdir(parents=True)
        for number in range(8):
            path = folder / "corpus" / speaker / f"{number}.wav"
            soundfile.write(path, generator.normal(0, 0.1, RATE), RATE)
    (folder / "noise").mkdir()
    for number in range(2):
        path = folder / "noise" / f"{number}.wav"
        soundfile.write(path, generator.normal(0, 0.1, 10 * RATE), RATE)
    (folder / "trials.txt").write_text("1 a/0 a/1\n0 a/0 b/1\n")
    return folder


@pytest.fixture(scope="session")
def finished(corpus, tmp_path_factory):
    """The output of a run of two epochs, not to be written to."""
    with Run(corpus, tmp_path_factory.mktemp("finished") / "out") as run:
        code, printed = run.finish()
    assert code == 0, printed
    return run.output


@pytest.fixture
def resumable(finished, tmp_path):
    """A copy of it, to go on with."""
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def mount(tmp_path):
    """Mounts something on a new folder, for the time of the test."""
    with contextlib.ExitStack() as mounted:

        def mount_it(*options) -> pathlib.Path:
            folder = tmp_path / "mounted"
            folder.mkdir()
            done = subprocess.run(
                ["mount", *options, folder], capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"no file system can be mounted: {done.stderr}")
            mounted.callback(subprocess.run, ["umount", "--lazy", folder])
            return folder

        yield mount_it
