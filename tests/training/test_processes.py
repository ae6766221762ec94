"""Processes train as one run, and end as one."""

import contextlib
import functools
import os
import platform
import re
import resource
import shutil
import signal

import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training.processes import (
    keep_freed_memory,
    start_processes,
)
from tests.processes import start
from tests.training.runs import Run


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
    assert "the training has stopped" in line and "to resume" in line
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


def test_an_error_of_one_process_is_told_once(corpus, tmp_path):
    """Whichever first misses an utterance."""
    own = tmp_path / "corpus"
    shutil.copytree(corpus / "corpus", own)
    options = f"--data_folder={own}", "--number_of_epochs=1000"
    with two_runs(corpus, tmp_path / "out", *options) as runs:
        runs[0].wait_for(lambda: list(runs[0].output.glob("save/CKPT*")))
        (own / "s0" / "0.wav").unlink()
        codes, lines = errors(runs)
    assert codes == [2, 2]
    (line,) = lines
    assert re.match(f"error: rank [01]: {own}/s0/0.wav is missing", line), line


def test_an_error_of_the_first_process_ends_all(corpus, tmp_path):
    """Though the second waits for what it prepares."""
    with two_runs(corpus, tmp_path / "out", "--verification_file=/no") as runs:
        codes, lines = errors(runs)
    assert codes == [2, 2]
    (line,) = lines
    assert "/no" in line


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


def compare_page_faults():
    by_default = page_faults()
    assert keep_freed_memory()
    page_faults()
    assert page_faults() < 0.1 * by_default


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is for glibc's malloc"
)
def test_freed_memory_is_not_asked_for_again():
    process = start(compare_page_faults)
    process.join()
    assert process.exitcode == 0
