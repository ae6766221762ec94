"""A run that is killed ends as one that is not, bit for bit."""

import random
import re
import signal
import time
import types

import numpy as np
import pytest
import torch
from speechbrain.augment.time_domain import AddNoise, AddReverb
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_hyperbolic.dataio.crops import SharedEpochCounter
from speechbrain_hyperbolic.dataio.noise import write_noise_csv
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus
from speechbrain_hyperbolic.dataio.shards import pack
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.schedulers import MarginSchedule
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.checkpoints import (
    RecentCheckpointer,
    find_epochs,
)
from speechbrain_hyperbolic.training.datasets import make_datasets
from speechbrain_hyperbolic.training.monitor import EpochStatistics
from speechbrain_hyperbolic.training.resume import (
    RunState,
    check_resumable,
    go_to,
    position,
    random_state,
    set_random_state,
)
from tests.processes import run_as_two
from tests.training.brains import DIM, SPEAKERS, Doubles, ham, make_brain
from tests.training.runs import Run, assert_identical

KILLS = 6
# The warm-up and the margin are on their way; there are sounds of every kind,
# and the masks of SpecAugment.
OPTIONS = [
    "--warmup_steps=13",
    "--margin=!new:speechbrain_hyperbolic.MarginSchedule [0, 0.2, 0, 25]",
    "--ckpt_interval_minutes=0",
    "--ckpt_interval_steps=2",
]


def start(corpus, output, *options):
    return Run(corpus, output, *OPTIONS, *options)


def result(output):
    """All of the last checkpoint, the train log, and the model."""
    (last,) = find_epochs(output / "save", 1)
    files = {path.name: path for path in last.glob("*.ckpt")}
    files["model"] = output / "model" / "embedding_model.ckpt"
    found = {"log": (output / "train_log.txt").read_text()}
    for name, path in files.items():
        try:
            found[name] = torch.load(path, weights_only=True)
        except Exception:  # numbers, as text
            found[name] = path.read_text()
    return found


def test_killed_at_random_moments(corpus, tmp_path):
    """In start-up, in training and while a checkpoint is written."""
    began = time.monotonic()
    with start(corpus, tmp_path / "whole") as run:
        run.wait_for(run.trains)
        start_up = time.monotonic() - began
        run.succeed()
    duration = time.monotonic() - began - start_up
    expected = result(tmp_path / "whole")
    assert expected["log"].count("\n") == 3
    assert {"margin_schedule0.ckpt", "run_state.ckpt"} <= expected.keys()

    uniform = random.Random(time.time_ns()).uniform
    kills = writings = runs = code = 0
    while kills < KILLS or code != 0:
        output = tmp_path / f"killed{runs}"
        writing = output / "save" / "partial"
        with start(corpus, output) as run:
            if kills < KILLS and kills % 3 == 0:
                time.sleep(uniform(0, start_up))
            elif kills < KILLS:
                wait_for(run.trains)
                time.sleep(uniform(0, duration / 4))
                if kills % 3 == 1:
                    wait_for(lambda: any(writing.glob("CKPT*")), 5)  # noqa: B023
            if kills < KILLS:
                run.kill()
            code, printed = run.finish()
        assert code in (0, -signal.SIGKILL), printed
        kills += code != 0
        writings += code != 0 and any(writing.glob("CKPT*"))
        if code == 0:
            assert_identical(expected, result(output))
            runs += 1
    print(f"{kills} kills, {writings} in writing, {runs} runs")
    assert writings > 0


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(1e-3)


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


# Other settings


def test_other_settings_are_told(corpus, resumable):
    with Run(corpus, resumable, "--margin=0.3", "--scale=20") as run:
        printed = run.succeed()
    (line,) = (x for x in printed.splitlines() if "other settings" in x)
    assert line.endswith(
        f"{resumable} is resumed with other settings: "
        "margin 0.2 -> 0.3, scale 30 -> 20"
    )
    assert "after epoch 2 of 3" in printed


REFUSED = [
    ("--channels=32", r"has another embedding_model: its .* is .*32"),
    ("--out_n_neurons=7", r"has another classifier: its weight is .*\(7, 192"),
]


@pytest.mark.parametrize("option, words", REFUSED)
def test_weights_that_do_not_fit_are_refused(corpus, resumable, option, words):
    before = (resumable / "hyperparams.yaml").read_text()
    with Run(corpus, resumable, option) as run:
        run_error = run.error()
    assert re.search(words, run_error), run_error
    assert (resumable / "hyperparams.yaml").read_text() == before


def test_stock_recoverables_fit(tmp_path):
    """InputNormalization, as in the stock hparams, saves in its own way."""
    normalizer = InputNormalization(norm_type="sentence", std_norm=False)
    recoverables = {"normalizer": normalizer, "m": torch.nn.Linear(1, 1)}
    checkpointer = Checkpointer(tmp_path, recoverables)
    checkpointer.save_checkpoint()
    values = {"checkpointer": checkpointer, "output_folder": tmp_path}
    check_resumable("none.yaml", "", values)
    checkpointer.recoverables["m"] = torch.nn.Linear(2, 1)
    with pytest.raises(InputError, match="has another m: its weight is"):
        check_resumable("none.yaml", "", values)


# The parts of the state


def test_random_numbers_continue(tmp_path):
    """From a file without pickled classes; an odd normal number is cached."""
    torch.rand(3), random.gauss(0, 1), torch.randn(1)
    torch.save(random_state(), tmp_path / "state")

    def draws():
        return [
            *torch.rand(3).tolist(),
            *(random.gauss(0, 1) for _ in range(3)),
            *np.random.standard_normal(3),
            random.getrandbits(64),
        ]

    expected = draws()
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert draws() == expected


@pytest.mark.parametrize("drawn", [1, 3, 4, 8])
@pytest.mark.parametrize("make", [AddNoise, AddReverb])
def test_sounds_continue(corpus, tmp_path, make, drawn):
    """Over the ends of passes through the files too, in batches of two."""
    sounds = "rir" if make is AddReverb else "noise"
    write_noise_csv(corpus / "sounds" / sounds, tmp_path / "csv", tmp_path)

    def draws(reader, count):
        waveforms, found = torch.ones(2, 3000), []
        for _ in range(count):
            torch.manual_seed(0)
            lengths = [] if make is AddReverb else [torch.ones(2)]
            found.append(reader(waveforms, *lengths))
        return found

    reader, other = make(tmp_path / "csv"), make(tmp_path / "csv")
    draws(reader, drawn)
    go_to(other, position(reader))
    assert_identical(draws(reader, 5), draws(other, 5))


def resume_as(rank, folder):
    """One of two processes, that saves its state and resumes from it."""

    def checkpointer():
        brain = types.SimpleNamespace(
            statistics=EpochStatistics(),
            avg_train_loss=float(rank),
            device="cpu",
            hparams=types.SimpleNamespace(seed=0),
        )
        brain.statistics.add_gradient_norm(float(rank))
        recoverables = {"run_state": RunState(brain)}
        return RecentCheckpointer(folder, recoverables=recoverables)

    torch.manual_seed(rank)
    checkpointer().save_checkpoint()
    expected = torch.rand(1)
    again = checkpointer()
    again.recover_if_possible()
    state = again.recoverables["run_state"]
    state.brain.avg_train_loss = 0.0  # of the main process
    state.brain.statistics = EpochStatistics()
    state.restore()
    assert torch.rand(1) == expected
    assert state.brain.avg_train_loss == rank
    assert state.brain.statistics.gradient_norms == [rank]


def test_each_process_resumes_its_own_state(tmp_path):
    run_as_two(resume_as, tmp_path)
