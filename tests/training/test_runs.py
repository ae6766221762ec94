"""The training script: where it finds things, and what ends it."""

import contextlib
import csv
import ctypes
import functools
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket

import pytest

from speechbrain_hyperbolic.dataio.files import lock_run
from speechbrain_hyperbolic.errors import InputError
from tests.scripts import VOXCELEB
from tests.training.runs import Run


def test_hparams_from_the_recipes_folder(corpus, tmp_path):
    """Where the recipe has no hparams folder of its own."""
    go = functools.partial(os.chdir, VOXCELEB)
    hparams = pathlib.Path("hparams", "h_ecapa.yaml")
    options = ["--number_of_epochs=1", "--num_workers=0"]
    with Run(
        corpus, tmp_path / "out", *options, hparams=hparams, first=go
    ) as run:
        printed = run.succeed()
    assert f"The trained model is in {tmp_path}/out/model" in printed
    text = (tmp_path / "out" / "hyperparams.yaml").read_text()
    assert "results/h_ecapa" in text or "margin: 0" in text


# A loss that is not finite

DIVERGES = [
    "--number_of_epochs=2",
    "--lr_decay=1.0e30",  # the second epoch trains at 1e27
    "--dataloader_options={shuffle: False}",
]


def test_divergence_names_the_batch(corpus, tmp_path):
    output = tmp_path / "out"
    with Run(corpus, output, *DIVERGES) as run:
        error = run.error()
    report = json.loads((output / "diverged.json").read_text())
    assert str(output / "diverged.json") in error
    assert f"of epoch 2, batch {report['step']} is" in error
    assert report["epoch"] == 2 and report["lr"] == pytest.approx(1e27)
    with open(output / "save" / "train.csv", newline="") as file:
        rows = [row["ID"] for row in csv.DictReader(file)]
    first = 4 * (report["step"] - 1)
    assert report["ids"] == rows[first : first + 4]
    assert len(list(output.glob("save/CKPT*"))) == 1
    assert not (output / "model").exists()


# Damage, disks and locks


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_run_resumes_from_the_checkpoint_before(corpus, resumable):
    before, newest = sorted((resumable / "save").glob("CKPT*"))
    flip_a_bit(newest / "optimizer.ckpt")
    with Run(corpus, resumable, "--number_of_epochs=2") as run:
        printed = run.succeed()
    assert f"{newest} is left out, since it is damaged: optimizer.ckpt" in (
        printed
    )
    assert f"Resuming from {before}, after epoch 1 of 2" in printed

    for path in (resumable / "save").glob("CKPT*/embedding_model.ckpt"):
        flip_a_bit(path)
    with Run(corpus, resumable) as run:
        assert "has no checkpoint that is whole" in run.error()


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.glob("save/CKPT*/*")
    }


def test_a_full_disk(corpus, finished, mount):
    """Full from the start, then for a checkpoint; then there is space."""
    output = mount("-t", "tmpfs", "-o", "size=8m", "none") / "out"
    shutil.copytree(finished, output)
    before = digests(output)
    settings = (output / "hyperparams.yaml").read_text()
    filler = output.with_name("filler")
    log = {"log": finished.with_name("disk_full.log")}
    for free in (0, 2**18):
        space = shutil.disk_usage(output).free
        filler.write_bytes(bytes(space - free))
        with Run(corpus, output, **log) as run:
            error = run.error()
        assert "No space left on device: free some space, then run" in error
        assert digests(output) == before
        if not free:
            assert (output / "hyperparams.yaml").read_text() == settings
        filler.unlink()
    assert f"{output}/save/partial/CKPT" in error
    with Run(corpus, output, **log) as run:
        assert f"Resuming from {output}/save/CKPT" in run.succeed()
    assert len(digests(output)) > len(before)


def drop_capabilities():
    """Root's, to which the bits of a mode mean nothing."""
    libc = ctypes.CDLL(None)
    version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.capset(version_3, (ctypes.c_uint32 * 6)()) == 0


def test_a_folder_that_cannot_be_written(corpus, tmp_path, mount):
    """Refused before the data are looked at."""
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
    assert str(folder) in error and "Permission denied: change its" in error
    folder = mount("-t", "tmpfs", "none")
    os.system(f"mount -o remount,bind,ro {folder}")
    with Run(corpus, folder, "--data_folder=/missing") as run:
        error = run.error()
    assert "Read-only file system: choose an --output_folder that" in error


# Data, and processes that load them, that go away

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


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/stat").exists(), reason="needs /proc"
)
def test_a_second_run_and_a_killed_worker(corpus, resumable):
    """The folder's second run is refused; the first ends with its worker."""
    with Run(corpus, resumable, *FOREVER) as run:
        run.wait_for(run.trains)
        log = resumable.with_name("second.log")
        with Run(corpus, resumable, log=log) as second:
            error = second.error()
        holder = f"process {run.process.pid} on {socket.gethostname()}"
        assert f"{resumable} is in use by {holder}: wait for that" in error
        with pytest.raises(InputError, match="in use"), lock_run(resumable):
            pass

        def dies_of_it():
            # A worker that has given its last batch is not missed.
            for child in children_of(run.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            return "error: " in run.printed()

        run.wait_for(dies_of_it)
        error = run.error()
    assert "DataLoader worker (pid" in error and "to resume" in error
    with lock_run(resumable):
        pass


def test_audio_that_goes_away(corpus, tmp_path):
    """The message comes from a worker."""
    own = tmp_path / "corpus"
    shutil.copytree(corpus / "corpus", own)
    with Run(corpus, tmp_path / "out", f"--data_folder={own}", *FOREVER) as run:
        run.wait_for(lambda: list(run.output.glob("save/CKPT*")))
        (own / "s3" / "3.wav").unlink()
        assert f"{own}/s3/3.wav is missing" in run.error()
