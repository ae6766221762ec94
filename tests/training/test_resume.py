"""A run that is killed ends as one that is not, bit for bit."""

import random
import re
import shutil
import time

import pytest
import torch

from speechbrain_hyperbolic.dataio.preparation import prepare_corpus
from speechbrain_hyperbolic.dataio.shards import pack
from speechbrain_hyperbolic.training.checkpoints import RecentCheckpointer
from tests.training.runs import Run, assert_identical

# The warm-up and the margin are on their way; there are sounds of every kind,
# and the masks of SpecAugment.
OPTIONS = [
    "--margin=!new:speechbrain_hyperbolic.MarginSchedule {last_step: 25}",
    "--ckpt_interval_minutes=0",
    "--ckpt_interval_steps=2",
]


@pytest.fixture(scope="module", params=["files", "shards"])
def options(corpus, tmp_path_factory, request):
    """From shards, gradients are accumulated: a checkpoint waits for a step."""
    if request.param == "files":
        return OPTIONS
    folder = tmp_path_factory.mktemp("packed")
    speakers = ["s6", "s7"]
    prepare_corpus(corpus / "corpus", folder / "save", speakers, [80, 20])
    pack(folder / "save", folder / "shards", shard_size=7)
    return [
        *OPTIONS,
        f"--shards_folder={folder / 'shards'}",
        "--shuffle_buffer=12",
        "--grad_accumulation_factor=3",
    ]


@pytest.fixture(scope="module")
def whole(corpus, options, tmp_path_factory):
    """A run of three epochs, not to be written to."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with Run(corpus, output, *options) as run:
        run.succeed()
    return output


def result(output):
    """All of the last checkpoint, the train log, and the model."""
    last = RecentCheckpointer(output / "save").find_checkpoint()
    files = {**last.paramfiles, "model": output / "model/embedding_model.ckpt"}
    found = {"log": (output / "train_log.txt").read_text()}
    for name, path in files.items():
        try:
            found[name] = torch.load(path, weights_only=True)
        except Exception:  # numbers, as text
            found[name] = path.read_text()
    return found


def test_killed_at_random_moments(corpus, options, whole, tmp_path):
    """In training and while a checkpoint is written; then with more workers."""
    expected = result(whole)
    # The three kills come within less than two of the three epochs.
    printed = whole.with_name("out.log").read_text()
    epochs = re.findall(r"epoch \d/3: .*, ([\d.]+) s\b", printed)
    longest = min(map(float, epochs)) / 2
    assert expected["log"].count("\n") == 3
    assert "margin_schedule0" in expected
    for workers in (1, 0, 2):
        more = f"--num_workers={workers}"
        with Run(corpus, tmp_path / "out", *options, more) as run:
            run.wait_for(run.trains)
            time.sleep(random.Random(time.time_ns()).uniform(0, longest))
            run.kill()
    with Run(corpus, tmp_path / "out", *options) as run:
        run.succeed()
    assert_identical(expected, result(tmp_path / "out"))


def test_other_settings_are_told_or_refused(corpus, options, whole, tmp_path):
    output = shutil.copytree(whole, tmp_path / "out")
    before = (output / "hyperparams.yaml").read_text()
    with Run(corpus, output, *options, "--channels=32") as run:
        error = run.error()
    assert f"the weights in {output}/save do not fit (" in error
    assert "size mismatch" in error
    assert (output / "hyperparams.yaml").read_text() == before
    other = [*options, "--scale=20", "--lr=0.1"]
    with Run(corpus, output, *other) as run:
        error = run.error()
    told = "is resumed with other settings: lr 0.001 -> 0.1, scale 30 -> 20"
    assert f"{told}. Nothing is left to train: pass another" in error
    assert (output / "hyperparams.yaml").read_text() == before
    with Run(corpus, output, *other, "--number_of_epochs=4") as run:
        printed = run.succeed()
    assert told in printed and "after epoch 3 of 4" in printed
