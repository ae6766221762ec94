"""What ends a run of the training script: one line that names the cause.

Several processes train as one run, and end as one.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess

import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training.processes import (
    keep_freed_memory,
    start_processes,
)
from tests.processes import start
from tests.training.runs import Run

FOREVER = ["--number_of_epochs=1000", "--num_workers=1"]


def drop_capabilities():
    """Root's, to which the bits of a mode mean nothing."""
    libc = ctypes.CDLL(None)
    version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.capset(version_3, (ctypes.c_uint32 * 6)()) == 0


def test_a_folder_that_cannot_be_written(corpus, tmp_path):
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


def test_a_killed_worker(corpus, tmp_path):
    with Run(corpus, tmp_path / "out", *FOREVER) as run:
        run.wait_for(run.trains)
        pid = run.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")

        def dies_of_it():
            # A worker that has given its last batch is not missed.
            for child in children.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            return "error: " in run.printed()

        run.wait_for(dies_of_it)
        error = run.error()
    assert "DataLoader worker (pid" in error and "to resume" in error


@pytest.mark.parametrize("harm", ["removed", "broken"])
def test_audio_that_goes_away(corpus, tmp_path, harm):
    """The message comes from a worker."""
    own = tmp_path / "corpus"
    shutil.copytree(corpus / "corpus", own)
    with Run(corpus, tmp_path / "out", f"--data_folder={own}", *FOREVER) as run:
        run.wait_for(lambda: list(run.output.glob("save/CKPT*")))
        path = own / "s3" / "3.wav"
        path.unlink()
        if harm == "broken":
            path.write_bytes(b"no audio")
        expected = {"removed": "is missing", "broken": "can't be read"}[harm]
        assert f"{path} {expected}" in run.error()


def test_modules_that_cannot_be_exported(corpus, tmp_path):
    """A warning says so before the training."""
    option = "--input_norm={norm_type: global}"
    with Run(corpus, tmp_path / "out", option, *FOREVER) as run:
        run.wait_for(run.trains)
        printed = run.printed()
    assert "mean_var_norm has norm_type global, expected sentence" in printed


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.glob("save/CKPT*/*")
    }


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", folder])


def test_a_full_disk(corpus, small_disk, tmp_path):
    """Full from the start, then for a checkpoint; then there is space."""
    output = small_disk / "out"
    log = {"log": tmp_path / "log"}
    with Run(corpus, output, "--number_of_epochs=2", **log) as run:
        run.succeed()
    before = digests(output)
    settings = (output / "hyperparams.yaml").read_text()
    filler = output.with_name("filler")
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


@contextlib.contextmanager
def two_runs(corpus, output, *options):
    """What torchrun starts, which keeps the store."""
    store = torch.distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                Run(
                    corpus,
                    output,
                    *("--distributed_backend=gloo", "--device=cpu"),
                    *options,
                    log=output.with_name(f"{output.name}.{rank}.log"),
                    first=functools.partial(join, rank, store.port),
                )
            )
            for rank in range(2)
        ]


def join(rank, port):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def errors(runs):
    """The exit codes, and the error lines of both."""
    codes, lines = [], []
    for run in runs:
        code, printed = run.finish()
        codes.append(code)
        assert "Traceback" not in printed, printed
        lines += [x for x in printed.splitlines() if x.startswith("error: ")]
    return codes, lines


def test_two_processes_end_together_and_resume(corpus, tmp_path):
    """After a SIGKILL to the second."""
    output = tmp_path / "out"
    with two_runs(corpus, output, "--number_of_epochs=1000") as runs:
        runs[0].wait_for(lambda: list(output.glob("save/CKPT*")))
        runs[1].kill()
        codes, lines = errors(runs)
    assert codes == [2, -signal.SIGKILL]
    (line,) = lines
    assert "another process of the training ended" in line
    assert not (output / "model").exists()

    counters = output.glob("save/CKPT*/counter.ckpt")
    last = max(int(path.read_text()) for path in counters) + 1
    with two_runs(corpus, output, f"--number_of_epochs={last}") as runs:
        printed, other = (run.succeed() for run in runs)
    assert f"Resuming from {output}/save/CKPT" in printed
    assert "Resuming" not in other
    log = (output / "train_log.txt").read_text().splitlines()
    epochs = [line.split(",")[0] for line in log]
    assert epochs == [f"epoch: {n}" for n in range(1, last + 1)]


def test_an_error_of_the_first_process_ends_all(corpus, tmp_path):
    """Though the second waits for what it prepares."""
    with two_runs(corpus, tmp_path / "out", "--verification_file=/no") as runs:
        codes, lines = errors(runs)
    assert codes == [2, 2]
    assert lines[0].startswith("error: rank 0: /no is missing")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_gpus(monkeypatch):
    """SpeechBrain's default backend is that of GPUs."""
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="--distributed_backend=gloo"):
        start_processes({"distributed_backend": "nccl"})


def page_faults():
    """Of rounds that allocate, fill and free 16 blocks of 8 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [b"x" * 2**23 for _ in range(16)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def train_and_count():
    assert keep_freed_memory()
    page_faults()
    assert page_faults() < 1000  # of 160,000 by default


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is for glibc's malloc"
)
def test_freed_memory_is_not_asked_for_again():
    process = start(train_and_count)
    process.join()
    assert process.exitcode == 0
