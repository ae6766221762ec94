"""A corpus of tones, a finished run, and small disks."""

import contextlib
import subprocess

import pytest

from tests.corpora import make_corpus
from tests.training.runs import Run


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Six speakers to train on, two in the trial list, and sounds."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def finished(corpus, tmp_path_factory):
    """The output of a run of two epochs, not to be written to."""
    output = tmp_path_factory.mktemp("finished") / "out"
    with Run(corpus, output, "--number_of_epochs=2") as run:
        run.succeed()
    return output


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system on a new folder for the time of the test."""
    with contextlib.ExitStack() as mounted:

        def mount_it(*options):
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
