"""A loss or gradient that is not finite."""

import csv
import json
import os

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.training import SpeakerBrain
from tests.faults.runs import Run
from tests.processes import run_as_two
from tests.test_systems import load

BATCH = 4
# The first epoch trains at 0.001, the second at 1e27.
DIVERGES = [
    "--lr_decay=1.0e30",
    "--dataloader_options={shuffle: False}",
    f"--batch_size={BATCH}",
]


def test_ends_the_run_and_names_the_batch(corpus, tmp_path):
    output = tmp_path / "out"
    with Run(corpus, output, *DIVERGES) as run:
        error = run.error()
    report = json.loads((output / "diverged.json").read_text())
    assert str(output / "diverged.json") in error
    assert f"of epoch 2, batch {report['step']} is" in error
    assert report["epoch"] == 2 and report["lr"] == pytest.approx(1e27)
    with open(output / "save" / "train.csv", newline="") as file:
        rows = [row["ID"] for row in csv.DictReader(file)]
    first = BATCH * (report["step"] - 1)
    assert report["ids"] == rows[first : first + BATCH]
    assert len(list(output.glob("save/CKPT*"))) == 1
    assert not (output / "model").exists()


def test_patience_that_was_given(corpus, tmp_path):
    output = tmp_path / "out"
    with Run(corpus, output, *DIVERGES, "--nonfinite_patience=2") as run:
        error = run.error()
    assert "is nan" in error or "is inf" in error
    assert run.printed().count("Patience not yet exhausted.") == 2


def batch_of(value):
    return PaddedBatch(
        [
            {
                "id": f"{value}-{number}",
                "sig": value * torch.ones(8000) + torch.randn(8000),
                "spk_id_encoded": torch.tensor([number]),
            }
            for number in range(2)
        ]
    )


def brain_on(folder, **run_opts):
    hparams = load("ham_ecapa", folder)
    del hparams["wav_augment"]
    brain = SpeakerBrain(
        hparams["modules"],
        hparams=hparams,
        run_opts=run_opts,
    )
    brain.optimizer = torch.optim.Adam(brain.modules.parameters(), lr=0.1)
    brain.optimizers_dict = {"opt_class": brain.optimizer}
    brain.nonfinite_count = 0
    brain.step = 0
    brain.on_stage_start(sb.Stage.TRAIN)
    brain.step = 1
    brain.modules.train()
    return brain


def parameters_of(brain):
    return torch.cat([p.detach().flatten() for p in brain.modules.parameters()])


def test_a_batch_that_is_passed_over_makes_no_step(tmp_path):
    brain = brain_on(tmp_path, nonfinite_patience=1)
    brain.fit_batch(batch_of(0))
    before = parameters_of(brain)
    brain.fit_batch(batch_of(float("nan")))
    assert torch.equal(parameters_of(brain), before)
    brain.fit_batch(batch_of(0))
    assert not torch.equal(parameters_of(brain), before)
    assert parameters_of(brain).isfinite().all()
    with pytest.raises(InputError, match="the loss of epoch 0, batch 1 is nan"):
        brain.fit_batch(batch_of(float("nan")))


def test_a_gradient(tmp_path):
    """Of a loss that is finite; the report has the norm of the step before."""
    brain = brain_on(tmp_path)
    brain.fit_batch(batch_of(0))
    weight = brain.hparams.classifier.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(InputError, match="the gradient norm of epoch 0, batch"):
        brain.fit_batch(batch_of(1))
    report = json.loads(
        (tmp_path / "diverged.json").read_text(encoding="utf-8")
    )
    assert report["ids"] == ["1-0", "1-1"]
    assert report["gradient_norm"] in ("inf", "nan")
    assert 0 < report["last_gradient_norm"] < float("inf")


def train_as(rank, folder):
    """One of two processes, the second of which has a bad batch."""
    os.environ["RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    batch = batch_of(float("nan") if rank else 0)
    brain = brain_on(folder, nonfinite_patience=1)
    brain.fit_batch(batch)
    assert brain.nonfinite_count == 1
    # It tells; the other one loses it.
    with pytest.raises(
        InputError if rank else RuntimeError,
        match="is nan" if rank else "(?i)closed|reset",
    ):
        brain.fit_batch(batch)


def test_a_loss_of_one_process_alone(tmp_path):
    """They count alike, and end; the report has the batch of that one."""
    run_as_two(train_as, tmp_path)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert report["ids"] == ["nan-0", "nan-1"] and report["loss"] == "nan"
