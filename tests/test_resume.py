"""A run that is killed ends as one that is not, bit by bit."""

import os
import random
import signal
import time
import types

import pytest
import torch
from speechbrain.augment.time_domain import AddNoise, AddReverb
from speechbrain.dataio.dataloader import make_dataloader

from speechbrain_hyperbolic.checkpoints import RecentCheckpointer, find_epochs
from speechbrain_hyperbolic.dataio.corpus import prepare_corpus
from speechbrain_hyperbolic.dataio.crops import SharedEpochCounter
from speechbrain_hyperbolic.dataio.noise import write_noise_csv
from speechbrain_hyperbolic.dataio.shards import pack
from speechbrain_hyperbolic.resume import (
    RunState,
    go_to,
    position,
    random_state,
    set_random_state,
)
from speechbrain_hyperbolic.statistics import EpochStatistics
from speechbrain_hyperbolic.training import make_datasets
from tests.corpora import make_corpus
from tests.processes import run_as_two
from tests.scripts import ROOT, TRAIN, Script
from tests.test_training import CROP, hparams

KILLS = 20
# Warm-up and margin are on their way, there are sounds of every kind, and the
# masks of SpecAugment.
OPTIONS = [
    "--out_n_neurons=6",
    "--channels=16",
    "--batch_size=4",
    "--number_of_epochs=3",
    "--sentence_len=0.6",
    "--split_ratio=[80, 20]",
    "--warmup_steps=13",
    "--last_step=25",
    "--ckpt_interval_minutes=0",
    "--ckpt_interval_steps=2",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("resume"))


def start(folder, output, *options):
    """A training of two seconds an epoch."""
    return Script(
        output.with_name(f"{output.name}.log"),
        TRAIN,
        ROOT / "hparams" / "ham_schedule_ecapa.yaml",
        f"--data_folder={folder / 'corpus'}",
        f"--verification_file={folder / 'trials.txt'}",
        f"--output_folder={output}",
        f"--noise_source={folder / 'sounds'}",
        f"--rir_source={folder / 'sounds' / 'rir'}",
        *OPTIONS,
        *options,
    )


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


def assert_identical(a, b, where=""):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_identical(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for number, pair in enumerate(zip(a, b, strict=True)):
            assert_identical(*pair, f"{where}/{number}")
    else:
        assert a == b, where


def run(*arguments):
    """To its end."""
    with start(*arguments) as training:
        code, printed = training.finish()
    assert code == 0, printed


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(1e-3)


def test_killed_at_random_moments(folder):
    """In start-up, in training and while a checkpoint is written."""

    def trains():
        return "Going into epoch" in training.printed()

    whole = folder / "whole"
    with start(folder, folder / "first") as training:
        training.wait_for(trains)  # from then on, all start as fast
    began = time.monotonic()
    with start(folder, whole) as training:
        training.wait_for(trains)
        start_up = time.monotonic() - began
        code, printed = training.finish()
    assert code == 0, printed
    duration = time.monotonic() - began - start_up
    expected = result(whole)
    assert expected["log"].count("\n") == 3

    uniform = random.Random(time.time_ns()).uniform
    kills = writings = runs = code = 0
    while kills < KILLS or code != 0:
        output = folder / f"killed{runs}"
        writing = output / "save" / "partial"
        with start(folder, output) as training:
            if kills < KILLS and kills % 5 == 0:
                time.sleep(uniform(0, start_up))
            elif kills < KILLS:
                wait_for(trains)
                time.sleep(uniform(0, duration / 4))
                if kills % 5 == 1:
                    wait_for(lambda: any(writing.glob("CKPT*")), 5)  # noqa: B023
            if kills < KILLS:
                training.kill()
            code, printed = training.finish()
        assert code in (0, -signal.SIGKILL), printed
        kills += code != 0
        writings += code != 0 and any(writing.glob("CKPT*"))
        if code == 0:
            assert_identical(expected, result(output))
            runs += 1
    print(f"{kills} kills, {writings} in writing, {runs} runs")
    assert writings > 0


def kill_in_training(folder, output, *options):
    """SIGKILL at the first checkpoint that it makes."""
    before = set(output.glob("save/CKPT*"))
    with start(folder, output, *options) as training:
        training.wait_for(lambda: set(output.glob("save/CKPT*")) - before)
    assert training.process.exitcode == -signal.SIGKILL, training.printed()


def test_accumulated_gradients_and_other_workers(folder):
    """A checkpoint waits for the step; workers may persist or be none."""
    accumulating = "--grad_accumulation_factor=4"
    persistent = "--dataloader_options={persistent_workers: True}"
    whole, output = folder / "accumulated", folder / "accumulated, killed"
    run(folder, whole, accumulating, persistent)
    for workers in ("1", "0"):
        options = [accumulating, f"--num_workers={workers}"]
        kill_in_training(folder, output, *options)
    run(folder, output, accumulating)
    assert_identical(result(whole), result(output))


def test_shards(folder):
    """A run goes on within an epoch of them, with other workers."""
    prepared = folder / "prepared"
    prepare_corpus(folder / "corpus", prepared, ["s6", "s7"], [80, 20])
    pack(prepared, folder / "shards", shard_size=7)
    packed = [f"--shards_folder={folder / 'shards'}", "--shuffle_buffer=20"]
    whole, output = folder / "sharded", folder / "sharded, killed"
    run(folder, whole, *packed)
    for workers in ("2", "0", "3"):
        options = [*packed, f"--num_workers={workers}"]
        kill_in_training(folder, output, *options)
    run(folder, output, *packed)
    assert_identical(result(whole), result(output))


def test_random_numbers_go_on(tmp_path):
    """From a file without pickled classes; an odd normal number is cached."""
    torch.rand(3), random.gauss(0, 1), torch.randn(1)
    torch.save(random_state(), tmp_path / "state")

    def draws():
        import numpy as np

        return [
            *torch.rand(3).tolist(),
            *(random.gauss(0, 1) for _ in range(3)),
            *np.random.standard_normal(3),
            random.getrandbits(64),
        ]

    expected = draws()
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert draws() == expected


def go_on_as(rank, folder):
    """One of two processes, that saves where it is and goes on from there."""
    os.environ["RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )

    def checkpointer():
        brain = types.SimpleNamespace(
            statistics=EpochStatistics(),
            views=rank,
            avg_train_loss=float(rank),
            device="cpu",
            hparams=types.SimpleNamespace(seed=0),
        )
        recoverables = {"run_state": RunState(brain)}
        return RecentCheckpointer(folder, recoverables=recoverables)

    torch.manual_seed(rank)
    checkpointer().save_checkpoint()
    expected = torch.rand(1)
    again = checkpointer()
    again.recover_if_possible()
    state = again.recoverables["run_state"]
    state.brain.avg_train_loss = 0.0  # of the main process
    state.restore(resumes=True)
    assert torch.rand(1) == expected
    assert state.brain.views == state.brain.avg_train_loss == rank
    torch.distributed.barrier()


def test_each_process_goes_on_from_its_own(tmp_path):
    run_as_two(go_on_as, tmp_path)


@pytest.mark.parametrize("drawn", [1, 3, 4, 8])
@pytest.mark.parametrize("make", [AddNoise, AddReverb])
def test_noises_go_on(folder, tmp_path, make, drawn):
    """Over the ends of passes through the files too, of batches of two."""
    sounds = "rir" if make is AddReverb else "noise"
    write_noise_csv(folder / "sounds" / sounds, tmp_path / "csv", tmp_path)

    def draws(adder, count):
        waveforms, found = torch.ones(2, 3000), []
        for _ in range(count):
            torch.manual_seed(0)
            lengths = [] if make is AddReverb else [torch.ones(2)]
            found.append(adder(waveforms, *lengths))
        return found

    adder = make(tmp_path / "csv")
    draws(adder, drawn)
    other = make(tmp_path / "csv")
    go_to(other, position(adder))
    assert_identical(draws(adder, 5), draws(other, 5))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_crops_of_an_epoch(tmp_path, start):
    """The same by workers that persist, however started, and in any order;
    other ones in each epoch.
    """
    counter = SharedEpochCounter(3)
    values = hparams(tmp_path, [9 * CROP] * 6, epoch_counter=counter)
    train, _, _ = make_datasets(values)
    loader = make_dataloader(
        train,
        batch_size=2,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=start,
    )
    found = []
    for _ in counter:
        alone = {
            row["id"]: row["sig"] for row in map(train.__getitem__, order())
        }
        for batch in loader:
            for name, crop in zip(batch.id, batch.sig.data, strict=True):
                assert torch.equal(crop, alone[name])
        found.append(torch.stack([alone[name] for name in sorted(alone)]))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (found[a][:, 0] != found[b][:, 0]).sum() >= 5


def order():
    numbers = list(range(6))
    random.shuffle(numbers)
    return numbers
