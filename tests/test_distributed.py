"""Several processes train as one, and end as one."""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.speaker import SpeakerRecognition
from torch.utils.data import DistributedSampler

from speechbrain_hyperbolic.dataio.corpus import prepare_corpus
from speechbrain_hyperbolic.dataio.shards import pack
from speechbrain_hyperbolic.distributed import (
    GivenUp,
    end_together,
    start_processes,
)
from speechbrain_hyperbolic.errors import InputError
from tests import distributed_jobs as jobs
from tests.corpora import make_corpus
from tests.scripts import TRAIN, VOXCELEB

pytest.importorskip("resource")  # limits of a process: not on Windows

ROOT = pathlib.Path(__file__).parents[1]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node=2",
]
# Python runs this first. The second process says which one it is, and where
# FORBIDDEN is a folder, it cannot write a byte anywhere (the system sees to
# that, in C++ too), nor make, rename or remove a file in there.
SITECUSTOMIZE = """
import os, pathlib, resource, sys, tempfile

def watch(event, arguments):
    writes = event in ("os.rename", "os.remove", "os.truncate", "os.link")
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        writes = bool(arguments[2] & flags)
    if writes and os.environ["FORBIDDEN"] in os.fsdecode(arguments[0]):
        os.write(2, f"rank 1 writes: {event} {arguments}\\n".encode())
        os._exit(3)

if os.environ.get("RANK") == "1":
    pathlib.Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
    if "FORBIDDEN" in os.environ:
        tempfile.gettempdir()  # it tries to write there once
        probe = os.open(os.environ["PID_FILE"], os.O_WRONLY)
        # Room for the count of epochs, which is in shared memory
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            os.pwrite(probe, b"0", 4096)
        except OSError:
            os.write(2, b"rank 1 cannot write\\n")
        os.close(probe)
        sys.addaudithook(watch)
"""


def environment(**changes):
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | changes


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """What each of two processes has seen of each job."""
    folder = tmp_path_factory.mktemp("jobs")
    make_corpus(folder)
    prepare_corpus(
        folder / "corpus", folder / "prepared", ["s6", "s7"], [80, 20]
    )
    pack(folder / "prepared", folder / "shards", shard_size=7)
    # Two would be through with the epoch by then.
    jobs.train_from_shards(folder, "of one", {"device": "cpu"}, stop_at=8)
    done = subprocess.run(
        [*TORCHRUN, jobs.__file__, folder],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,  # a hang is longer
    )
    assert done.returncode == 0, done.stdout
    return {
        name: [
            torch.load(folder / f"{name}.{rank}.pt", weights_only=True)
            for rank in range(2)
        ]
        for name in [*jobs.JOBS, "batch_norm", "shards"]
    }


@pytest.mark.parametrize("job", jobs.JOBS)
def test_two_processes_train_as_one(records, job, tmp_path):
    """Loss of each of twelve batches, weights and statistics at the end."""
    alone = jobs.train(job, tmp_path, {"device": "cpu"}, processes=1)
    first, second = records[job]
    losses = (first["losses"] + second["losses"]) / 2
    assert len(losses) == len(alone["losses"]) == 12
    torch.testing.assert_close(losses, alone["losses"], rtol=0, atol=1e-10)
    # Each has rows of its own.
    assert (first["losses"] - second["losses"]).abs().min() > 1e-3
    for name, state in alone["weights"].items():
        for key, value in state.items():
            weight = first["weights"][name][key]
            assert torch.equal(weight, second["weights"][name][key]), key
            # Where no gradient is due, Adam's steps are of rounding alone.
            torch.testing.assert_close(weight, value, rtol=1e-8, atol=1e-8)
    for record in records[job]:
        assert record["statistics"] == pytest.approx(
            alone["statistics"], rel=1e-8
        )


@pytest.mark.parametrize("number", range(len(jobs.MOMENTA)))
def test_batch_norm_of_unequal_parts(records, number):
    """As torch's over the whole batch: output, gradients and buffers."""
    whole = jobs.normalise(*jobs.batch_norm(jobs.MOMENTA[number]))
    parts = [record[number] for record in records["batch_norm"]]
    for key in ("output", "gradient", "evaluated"):
        joined = torch.cat([part[key] for part in parts])
        torch.testing.assert_close(joined, whole[key], rtol=1e-4, atol=1e-4)
    for name, gradient in whole["parameters"].items():
        total = sum(part["parameters"][name] for part in parts)
        torch.testing.assert_close(total, gradient, rtol=1e-4, atol=1e-4)
    for part in parts:
        torch.testing.assert_close(part["buffers"], whole["buffers"])


def test_an_epoch_of_shards(records):
    """Each utterance is read by one process, but for one more to be even; what
    was stopped within the first epoch goes on with just the rest.
    """
    whole, stopped, rest, _ = zip(*records["shards"], strict=True)
    for epoch in (1, 2):
        first, second = (record["read"][epoch] for record in whole)
        assert len(first) == len(second) == 20
        assert len({*first, *second}) == 39
    assert whole[0]["read"][1] != whole[0]["read"][2]
    for expected, begun, gone_on in zip(whole, stopped, rest, strict=True):
        read = begun["read"][1] + gone_on["read"][1]
        assert read == expected["read"][1] and len(begun["read"][1]) == 8
        assert gone_on["read"][2] == expected["read"][2]
        losses = torch.cat([begun["losses"], gone_on["losses"]])
        assert torch.equal(losses, expected["losses"])
        for key, value in expected["weights"].items():
            assert torch.equal(gone_on["weights"][key], value), key
        assert gone_on["means"] == expected["means"]
        assert gone_on["log"] == expected["log"] != ""


def test_an_epoch_that_another_number_of_processes_began(records):
    """The next one is whole."""
    *_, first, second = (record[-1]["read"] for record in records["shards"])
    assert first.keys() == second.keys() == {2}
    assert len({*first[2], *second[2]}) == 39


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_gpus(monkeypatch):
    """SpeechBrain's default backend is that of GPUs."""
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="--distributed_backend=gloo"):
        start_processes({"distributed_backend": "nccl"})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Noise of 4 speakers to train on, and of 2 in the trial list."""
    folder = tmp_path_factory.mktemp("processes")
    draw = np.random.default_rng(0)
    for speaker in range(6):
        (folder / "corpus" / f"s{speaker}").mkdir(parents=True)
        for take in range(4):
            path = folder / "corpus" / f"s{speaker}" / f"{take}.wav"
            soundfile.write(path, 0.1 * draw.standard_normal(8000), 16000)
    (folder / "trials.txt").write_text("1 s4/0 s4/1\n0 s4/0 s5/1\n")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return folder


def start(corpus, output, *options, launcher=TORCHRUN, **variables):
    """The recipe, with what its second process is to obey."""
    paths = os.pathsep.join([str(corpus / "site"), str(ROOT)])
    arguments = [
        *launcher,
        TRAIN,
        VOXCELEB / "hparams" / "ham_ecapa.yaml",
        f"--data_folder={corpus / 'corpus'}",
        f"--verification_file={corpus / 'trials.txt'}",
        f"--output_folder={output}",
        "--distributed_backend=gloo",
        "--device=cpu",
        "--channels=8",
        "--batch_size=5",
        "--num_workers=0",
        "--sentence_len=0.3",
        "--noise_source=generate",
        "--rir_source=generate",
        "--out_n_neurons=4",
        *options,
    ]
    return subprocess.Popen(
        arguments,
        env=environment(
            PYTHONPATH=paths, PID_FILE=str(corpus / "pid"), **variables
        ),
        cwd=corpus,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def errors(printed):
    lines = printed.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith("error: ")]


def epochs(output):
    log = (output / "train_log.txt").read_text()
    return [line.split(",")[0] for line in log.splitlines()]


def finished(output):
    """Epochs that are in a checkpoint."""
    counts = output.glob("save/CKPT*/counter.ckpt")
    return max(int(path.read_text()) for path in counts)


def first_of_second(output):
    """What the second of two processes reads first in the next epoch."""
    with open(output / "save" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    sampler = DistributedSampler(rows, num_replicas=2, rank=1)
    sampler.set_epoch(finished(output) + 1)
    return pathlib.Path(rows[next(iter(sampler))]["wav"])


def test_a_dead_process_ends_the_job_which_resumes(corpus):
    """SIGKILL to one; then the same command, where the second one cannot read
    its first utterance; then where only the first may write; then on one.
    """
    output = corpus / "output"
    process = start(corpus, output, "--number_of_epochs=1000")
    deadline = time.monotonic() + 300
    while not list(output.glob("save/CKPT*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int((corpus / "pid").read_text()), signal.SIGKILL)
    # Not within the two hours that SpeechBrain's collectives would wait.
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    (message,) = errors(printed)
    assert "the training has stopped" in message
    assert "the same command goes on from the last checkpoint" in message
    assert not (output / "model").exists()

    last = finished(output) + 2
    wav = first_of_second(output)
    wav.rename(wav.with_suffix(".away"))  # as if after the preparation
    process = start(
        corpus, output, f"--number_of_epochs={last}", "--skip_prep=True"
    )
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    (message,) = errors(printed)
    assert message.startswith(f"error: rank 1: {wav}")
    wav.with_suffix(".away").rename(wav)

    process = start(
        corpus, output, f"--number_of_epochs={last}", FORBIDDEN=str(output)
    )
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert "rank 1 cannot write" in printed
    assert f"Resuming from {output}/save/CKPT" in printed
    assert epochs(output) == [f"epoch: {n}" for n in range(1, last + 1)]
    model = SpeakerRecognition.from_hparams(
        str(output / "model"), savedir=str(corpus / "stock")
    )
    score, _ = model.verify_files(
        *(str(corpus / "corpus" / f"s4/{take}.wav") for take in range(2))
    )
    assert score.isfinite()

    process = start(
        corpus,
        output,
        f"--number_of_epochs={last + 1}",
        launcher=[sys.executable],
    )
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert epochs(output)[-1] == f"epoch: {last + 1}"


def test_what_another_has_given_up(monkeypatch, capfd):
    """It is told by that one."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="2"), end_together():
        raise GivenUp
    signal.signal(signal.SIGTERM, before)
    assert not any(capfd.readouterr())


def test_an_error_of_the_first_process_ends_all(corpus):
    """One line, though the other one waits for what it prepares."""
    process = start(
        corpus,
        corpus / "none",
        "--number_of_epochs=1",
        "--split_ratio=[99, 0]",
    )
    printed, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    (message,) = errors(printed)
    assert "split_ratio" in message
    assert 'train_speaker_embeddings.py", line' not in printed  # a traceback
