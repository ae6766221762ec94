"""A whole training with a sharded head: two processes do what one does."""

import csv
import math
import os
import subprocess
import sys

import pytest
import soundfile
import torch

from speechbrain_hyperbolic.analysis.trained import read_log, read_trained
from speechbrain_hyperbolic.checkpoints import average_epochs, find_epochs
from speechbrain_hyperbolic.dataio.corpus import COLUMNS
from tests.sharded_run import SPEAKERS, train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Synthetic: a speaker is a pitch, in noise."""
    folder = tmp_path_factory.mktemp("corpus")
    torch.manual_seed(0)
    time = torch.arange(8000) / 16000
    for name, count in (("train", 24), ("dev", 7)):
        rows = []
        for number in range(count):
            speaker = number % SPEAKERS
            wav = 0.3 * (2 * math.pi * 100 * (2 + speaker) * time).sin()
            wav += 0.05 * torch.randn(8000)
            path = folder / f"{name}{number:02d}.wav"
            soundfile.write(path, wav.numpy(), 16000)
            rows.append([path.stem, 0.5, path, 0, 8000, f"spk{speaker}"])
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    return folder


def test_two_processes_train_as_one(corpus, tmp_path):
    """And one goes on where two stopped."""
    one, two = tmp_path / "one", tmp_path / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", "-m", "tests.sharded_run"]
    done = subprocess.run(
        [sys.executable, *command, corpus, two, "2"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    newest, _ = find_epochs(two / "save", 5)
    shards = {file.name for file in newest.glob("*-of-2")}
    assert shards == {
        f"{name}.ckpt.{part}-of-2"
        for name in ("classifier", "optimizer")
        for part in (1, 2)
    }
    assert read_log(two / "train_log.txt")["epoch"].tolist() == [1, 2]
    train(corpus, two, 3)
    train(corpus, one, 3)

    logs = [read_log(folder / "train_log.txt") for folder in (one, two)]
    assert "train radius_centres_50" in logs[0]
    for key, values in logs[0].items():
        if "embeddings" not in key:  # those of the first process alone
            assert logs[1][key] == pytest.approx(values, rel=0.02), key
    assert logs[0]["train loss"][-1] < logs[0]["train loss"][0]
    for name in ("classifier", "embedding_model"):
        states = [average_epochs(f / "save", 5, name) for f in (one, two)]
        for key, value in states[0].items():
            torch.testing.assert_close(
                states[1][key], value, rtol=1e-3, atol=1e-4
            )
    centres = average_epochs(two / "save", 5, "classifier")["weight"]
    assert torch.equal(read_trained(two).centres, centres.double())
    assert (two / "model" / "embedding_model.ckpt").is_file()
