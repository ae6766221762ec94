"""A run that is killed ends as one that is not, bit for bit."""

import random
import shutil
import time
import types

import numpy as np
import pytest
import torch
from speechbrain.augment.augmenter import Augmenter

from speechbrain_hyperbolic.dataio.crops import SharedEpochCounter
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus
from speechbrain_hyperbolic.dataio.shards import pack
from speechbrain_hyperbolic.nnet.schedulers import MarginSchedule
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.checkpoints import (
    RecentCheckpointer,
)
from speechbrain_hyperbolic.training.datasets import make_datasets
from speechbrain_hyperbolic.training.monitor import EpochStatistics
from speechbrain_hyperbolic.training.resume import (
    RunState,
    random_state,
)
from tests.processes import run_as_two
from tests.training.brains import DIM, SPEAKERS, Doubles, ham, make_brain
from tests.training.runs import Run, assert_identical

# The warm-up and the margin are on their way; there are sounds of every kind,
# and the masks of SpecAugment.
OPTIONS = [
    "--warmup_steps=13",
    "--margin=!new:speechbrain_hyperbolic.MarginSchedule {last_step: 25}",
    "--ckpt_interval_minutes=0",
    "--ckpt_interval_steps=2",
]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run of three epochs, not to be written to."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with Run(corpus, output, *OPTIONS) as run:
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


def test_killed_at_random_moments(corpus, whole, tmp_path):
    """In training and while a checkpoint is written, three times."""
    expected = result(whole)
    assert expected["log"].count("\n") == 3
    assert {"margin_schedule0", "run_state"} <= expected.keys()
    for _ in range(3):
        with Run(corpus, tmp_path / "out", *OPTIONS) as run:
            run.wait_for(run.trains)
            time.sleep(random.Random(time.time_ns()).uniform(0, 1))
            run.kill()
    with Run(corpus, tmp_path / "out", *OPTIONS) as run:
        run.succeed()
    assert_identical(expected, result(tmp_path / "out"))


def test_other_settings_are_told_or_refused(corpus, whole, tmp_path):
    output = shutil.copytree(whole, tmp_path / "out")
    before = (output / "hyperparams.yaml").read_text()
    with Run(corpus, output, *OPTIONS, "--channels=32") as run:
        error = run.error()
    assert f"the weights in {output}/save do not fit (" in error
    assert "size mismatch" in error
    assert (output / "hyperparams.yaml").read_text() == before
    with Run(corpus, output, *OPTIONS, "--scale=20", "--lr=0.1") as run:
        printed = run.succeed()
    told = "is resumed with other settings: lr 0.001 -> 0.1, scale 30 -> 20"
    assert told in printed and "after epoch 3 of 3" in printed


class Stop(Exception):
    """Raised within an epoch, after a checkpoint."""


class Stopping(SpeakerBrain):
    stop_at = None

    def _save_intra_epoch_ckpt(self):
        super()._save_intra_epoch_ckpt()
        if self.step == self.stop_at:
            raise Stop


class Noisy(Doubles):
    """Two views, of which the second is noisy."""

    def __call__(self, waveforms, lengths):
        both, lengths = super().__call__(waveforms, lengths)
        both[len(waveforms) :] += 0.1 * torch.randn_like(waveforms)
        return both, lengths


def train(folder, values, workers, accumulation, stop_at=None):
    """Two epochs on crops of DIM samples, from where the folder has got to."""
    values |= {
        "dataloader_options": {"batch_size": 4, "num_workers": workers},
        "epoch_counter": SharedEpochCounter(2),
    }
    folder.mkdir(exist_ok=True)
    train_data, valid_data, _ = make_datasets(values)
    brain = make_brain(
        folder,
        *ham(MarginSchedule(last_step=6)),
        brain_class=Stopping,
        run_opts={
            "ckpt_interval_steps": 1,
            "grad_accumulation_factor": accumulation,
        },
        wav_augment=Noisy(),
        seed=3,
        epoch_counter=values["epoch_counter"],
    )
    brain.stop_at = stop_at
    brain.fit(
        values["epoch_counter"],
        train_data,
        valid_data,
        train_loader_kwargs=dict(values["dataloader_options"]),
        valid_loader_kwargs={"batch_size": 4},
    )
    newest = brain.checkpointer.find_checkpoint()
    states = {
        name: torch.load(newest.paramfiles[name], weights_only=True)
        for name in ("encoder", "classifier", "optimizer", "margin_schedule0")
    }
    return states | {"log": (folder / "train_log.txt").read_text()}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_resumed_with_other_workers(corpus, tmp_path, packed, accumulation):
    """From files and from shards. A checkpoint waits for the step."""
    save = tmp_path / "save"
    prepare_corpus(corpus / "corpus", save, ["s5", "s6", "s7"], [80, 20])
    values = {
        "data_folder": "",
        "train_annotation": save / "train.csv",
        "valid_annotation": save / "dev.csv",
        "sample_rate": 16000,
        "sentence_len": DIM / 16000,
        "random_chunk": True,
        "seed": 3,
        "out_n_neurons": SPEAKERS,
    }
    if packed:
        pytest.importorskip("webdataset")
        pack(save, tmp_path / "shards", shard_size=7)
        values |= {"shards_folder": tmp_path / "shards", "shuffle_buffer": 12}
    expected = train(tmp_path / "whole", values, 0, accumulation)
    for workers, stop_at in ((1, 3), (0, 6)):
        with pytest.raises(Stop):
            train(tmp_path / "killed", values, workers, accumulation, stop_at)
    found = train(tmp_path / "killed", values, 0, accumulation)
    assert expected["log"].count("\n") == 2
    assert_identical(expected, found)


def test_the_stock_augmenter_is_warned_of(tmp_path, caplog):
    state = RunState(make_brain(tmp_path, *ham(), wav_augment=Augmenter()))
    state.restore()
    assert "exactly" not in caplog.text
    state.states = [{"log_bytes": 0, "random": random_state()}]
    state.states[0] |= {"statistics": EpochStatistics().state_dict(), "loss": 0}
    state.restore()
    assert caplog.text.count("does not end exactly as one that was not") == 1


def resume_as(rank, folder):
    """One of two processes, that saves its state and resumes from it."""

    def make(statistics):
        brain = types.SimpleNamespace(statistics=statistics, device="cpu")
        brain.hparams, brain.avg_train_loss = types.SimpleNamespace(), 0.0
        state = RunState(brain)
        return state, RecentCheckpointer(folder, recoverables={"state": state})

    torch.manual_seed(rank)
    statistics = EpochStatistics()
    statistics.add_gradient_norm(float(rank))
    make(statistics)[1].save_checkpoint()
    expected = [torch.rand(1), random.gauss(0, 1), np.random.rand()]
    state, checkpointer = make(EpochStatistics())
    checkpointer.recover_if_possible()
    state.restore()
    assert [torch.rand(1), random.gauss(0, 1), np.random.rand()] == expected
    assert state.brain.statistics.gradient_norms == [rank]


def test_each_process_resumes_its_own_state(tmp_path):
    run_as_two(resume_as, tmp_path)
