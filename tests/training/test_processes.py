"""Processes train as one run, and end as one."""

import contextlib
import functools
import os
import platform
import re
import resource
import shutil
import signal
import sys
import tempfile

import pytest
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training.processes import (
    end_together,
    start_processes,
)
from tests.scripts import run_script
from tests.training.runs import Run

ROOM = 2**16  # bytes, for what is printed


@contextlib.contextmanager
def two_runs(corpus, output, *options, second=None):
    """What torchrun starts, which keeps the store; second: called in the
    second process.
    """
    store = torch.distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                Run(
                    corpus,
                    output,
                    "--distributed_backend=gloo",
                    "--device=cpu",
                    "--num_workers=0",
                    *options,
                    log=output.with_name(f"{output.name}.{rank}.log"),
                    first=functools.partial(join, rank, store.port, second),
                )
            )
            for rank in range(2)
        ]


def join(rank, port, second):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    if rank and second:
        second()


def write_nothing(folder):
    """Ends the process when it changes a file of a folder, or writes a long
    one anywhere, in C++ too.
    """
    tempfile.gettempdir()  # it tries to write there, once
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))

    def watch(event, arguments):
        writes = event in ("os.rename", "os.remove", "os.truncate", "os.link")
        if event == "open" and isinstance(arguments[0], str | bytes):
            flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            writes = bool(arguments[2] & flags)
        if writes and str(folder) in os.fsdecode(arguments[0]):
            os.write(2, f"it writes: {event} {arguments}\n".encode())
            os._exit(3)

    sys.addaudithook(watch)


def errors(runs):
    """The exit codes, and the error lines of both."""
    codes, lines = [], []
    for run in runs:
        code, printed = run.finish()
        codes.append(code)
        assert "Traceback" not in printed, printed
        lines += [x for x in printed.splitlines() if x.startswith("error: ")]
    return codes, lines


def test_two_processes_write_once_and_end_together(corpus, tmp_path):
    """SIGKILL to the second; then the same command, where it may not write."""
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
    forbid = functools.partial(write_nothing, output)
    with two_runs(
        corpus, output, f"--number_of_epochs={last}", second=forbid
    ) as runs:
        printed, other = (run.succeed() for run in runs)
    assert f"Resuming from {output}/save/CKPT" in printed
    assert "Resuming" not in other
    log = (output / "train_log.txt").read_text().splitlines()
    epochs = [line.split(",")[0] for line in log]
    assert epochs == [f"epoch: {n}" for n in range(1, last + 1)]
    model = SpeakerRecognition.from_hparams(
        str(output / "model"), savedir=str(tmp_path / "stock")
    )
    clips = (str(corpus / "corpus" / "s6" / f"{n}.wav") for n in range(2))
    assert model.verify_files(*clips)[0].isfinite()


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
    with two_runs(corpus, tmp_path / "out", "--split_ratio=[99, 0]") as runs:
        codes, lines = errors(runs)
    assert codes == [2, 2]
    (line,) = lines
    assert "split_ratio" in line


@pytest.fixture
def alone(monkeypatch):
    """As a process of torchrun whose store has gone."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "error, end",
    [
        (InputError("a mistake"), InputError),
        (KeyError("a bug"), KeyError),
        (RuntimeError("Connection closed by peer"), SystemExit),
    ],
)
def test_without_a_store_each_tells(alone, error, end):
    with pytest.raises(end), end_together():
        raise error


def test_torchrun_ends_the_others(alone, capsys):
    """By SIGTERM."""
    with pytest.raises(SystemExit, match="2"), end_together():
        os.kill(os.getpid(), signal.SIGTERM)
    assert "the training has stopped" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_gpus(monkeypatch):
    """SpeechBrain's default backend is that of GPUs."""
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="--distributed_backend=gloo"):
        start_processes({"distributed_backend": "nccl"})


# Page faults of rounds that allocate, fill and free 16 blocks of 8 MiB, by
# default and then with the memory kept
ROUNDS = """
import resource
import torch
from speechbrain_hyperbolic.training.processes import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [torch.zeros(2**21).add_(1) for _ in range(16)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
assert keep_freed_memory()
faults()
print(by_default, faults())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is for glibc's malloc"
)
def test_freed_memory_is_not_asked_for_again(tmp_path):
    """A page has 4 KiB at least: 32768 faults a round, or next to none."""
    (tmp_path / "rounds.py").write_text(ROUNDS)
    code, printed = run_script(tmp_path / "rounds.py")
    assert code == 0, printed
    by_default, kept = map(int, printed.split()[-2:])
    assert kept < 0.1 * by_default
