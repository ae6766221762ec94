"""What a training step is made of."""

import json
import math

import pytest
import speechbrain as sb
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AngularMargin, LogSoftmaxWrapper
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.nnet.schedulers import MarginSchedule
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from tests.processes import run_as_two
from tests.training.brains import (
    DIM,
    SPEAKERS,
    Doubles,
    fit,
    ham,
    joint,
    make_batches,
    make_brain,
)


def parameters_of(brain):
    return torch.cat([p.detach().flatten() for p in brain.modules.parameters()])


class Watching(SpeakerBrain):
    """Keeps the gradient of each step as it was before clipping."""

    def clip_gradients(self):
        gradients = [p.grad.flatten() for p in self.modules.parameters()]
        gradient = torch.cat(gradients) / self.scaler.get_scale()
        self.gradients = [*getattr(self, "gradients", []), gradient]
        return super().clip_gradients()


def test_the_losses_of_the_views_are_added(tmp_path):
    """The gradient is that of the stock loss of one view plus the other's."""
    head, cost = ham()
    brain = make_brain(
        tmp_path, head, cost, wav_augment=Doubles(), brain_class=Watching
    )
    encoder = brain.modules.embedding_model
    (batch,) = make_batches(1)
    stock = LogSoftmaxWrapper(AngularMargin(margin=0.2, scale=30))
    labels = batch.spk_id_encoded.data
    losses = [
        stock(head(encoder(view * batch.sig.data)), labels) for view in (1, 1.1)
    ]
    expected = torch.autograd.grad(
        sum(losses), list(brain.modules.parameters())
    )
    fit(brain, batches=[batch])
    expected = torch.cat([gradient.flatten() for gradient in expected])
    torch.testing.assert_close(brain.gradients[0], expected)
    mean = sum(losses).item() / 2
    assert brain.train_stats["loss"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("make", [ham, joint])
def test_the_chunked_form_gives_the_same_step(tmp_path, make, views):
    hparams = {"wav_augment": Doubles()} if views == 2 else {}
    found = []
    for chunk_size in (None, 2):
        folder = tmp_path / str(chunk_size)
        brain = make_brain(folder, *make(chunk_size=chunk_size), **hparams)
        (batch,) = make_batches(1)
        outputs, _ = brain.compute_forward(batch, sb.Stage.TRAIN)
        assert (outputs.ndim == 0) == (chunk_size is not None)
        fit(brain)
        found.append((parameters_of(brain), brain.train_stats["loss"]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("max_norm", [1e-2, 1e6])
def test_the_step_is_the_stock_one(tmp_path, max_norm):
    class Stock(SpeakerBrain):
        fit_batch = sb.Brain.fit_batch

    run_opts = {"max_grad_norm": max_norm}
    found = []
    for brain_class in (SpeakerBrain, Stock):
        folder = tmp_path / brain_class.__name__
        given = {"run_opts": run_opts, "brain_class": brain_class}
        brain = make_brain(folder, *ham(), **given)
        fit(brain)
        assert brain.optimizer_step == 4
        found.append((parameters_of(brain), brain.train_stats["loss"]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_gradient_norm(tmp_path):
    """The mean norm of the steps, before clipping and without the scale."""
    run_opts = {"max_grad_norm": 1e-2, "grad_accumulation_factor": 2}
    brain = make_brain(
        tmp_path, *ham(), run_opts=run_opts, brain_class=Watching
    )
    brain.scaler = torch.GradScaler("cpu", init_scale=1024.0)
    fit(brain)
    norms = [gradient.norm().item() for gradient in brain.gradients]
    assert len(norms) == brain.optimizer_step == 2
    mean = sum(norms) / len(norms)
    assert brain.train_stats["gradient_norm"] == pytest.approx(mean)


def test_a_stock_head(tmp_path):
    head = Classifier(DIM, out_neurons=SPEAKERS)
    brain = make_brain(tmp_path, head, LogSoftmaxWrapper(AdditiveMargin()))
    fit(brain)
    assert brain.train_stats.keys() == {"loss", "gradient_norm"}
    assert not list(tmp_path.glob("**/*tfevents*"))


def test_a_full_disk_of_the_train_log(tmp_path):
    """Its error names the file."""
    train_logger = FileTrainLogger("/dev/full")
    brain = make_brain(tmp_path, *ham(), train_logger=train_logger)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        fit(brain)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_schedule_steps_once_per_optimizer_step(tmp_path, accumulation):
    """Though two heads use it, and in a resumed run."""
    for epochs in (1, 2):
        schedule = MarginSchedule(end=0.4, last_step=8)
        run_opts = {"grad_accumulation_factor": accumulation}
        fit(make_brain(tmp_path, *joint(schedule), epochs, run_opts))
    assert schedule.value == pytest.approx(0.4 / accumulation)


def bad_batches(count):
    """Their loss is not finite."""
    batches = make_batches(count, seed=7)
    for batch in batches:
        batch.sig.data.fill_(float("nan"))
    return batches


def with_bad_batch():
    """Three batches, of which the second is bad."""
    first, last = make_batches(2)
    return [first, *bad_batches(1), last]


def test_a_bad_batch_ends_the_training_and_is_named(tmp_path):
    brain = make_brain(tmp_path, *ham())
    with pytest.raises(InputError, match="epoch 1, batch 2 has the loss nan"):
        fit(brain, batches=with_bad_batch())
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert report["ids"] == [f"7-0-{row}" for row in range(8)]
    assert (report["epoch"], report["step"], report["loss"]) == (1, 2, "nan")
    assert report["lr"] == 0.01
    assert parameters_of(brain).isfinite().all()


@pytest.mark.parametrize("accumulation", [1, 3])
def test_patience_skips_a_bad_batch(tmp_path, accumulation):
    """It makes no step, nor do the gradients accumulated before it."""
    run_opts = {"nonfinite_patience": 1}
    run_opts["grad_accumulation_factor"] = accumulation
    brain = make_brain(tmp_path, *ham(), run_opts=run_opts)
    fit(brain, batches=with_bad_batch())
    assert parameters_of(brain).isfinite().all()
    assert brain.optimizer_step == (2 if accumulation == 1 else 1)
    assert brain.nonfinite_count == 1
    assert all(map(math.isfinite, brain.train_stats.values()))


FROZEN = {"epochs": 2, "fine_tuning": {"freeze": 1}}  # then the encoder learns


def train_as(rank, folder):
    run_opts, board = {"distributed_backend": "gloo"}, str(folder / "board")
    brain = make_brain(
        folder, *ham(), **FROZEN, run_opts=run_opts, tensorboard_folder=board
    )
    fit(brain, batches=make_batches(4, seed=rank))
    torch.save((parameters_of(brain), brain.train_stats), folder / f"{rank}.pt")


def test_two_processes_train_as_one(tmp_path):
    """On batches of both; one of them logs."""
    run_as_two(train_as, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert len((tmp_path / "train_log.txt").read_text().splitlines()) == 2
    assert len(list(tmp_path.glob("board/*"))) == 1

    pairs = zip(*(make_batches(4, seed=rank) for rank in (0, 1)), strict=True)
    run_opts = {"grad_accumulation_factor": 2}
    brain = make_brain(tmp_path / "one", *ham(), **FROZEN, run_opts=run_opts)
    fit(brain, batches=[batch for pair in pairs for batch in pair])
    torch.testing.assert_close(found[0][0], parameters_of(brain))


def diverge_as(rank, folder):
    run_opts = {"nonfinite_patience": 1, "distributed_backend": "gloo"}
    brain = make_brain(folder, *ham(), run_opts=run_opts)
    batches = make_batches(3)
    if rank:  # the other one's batches are fine
        batches[0], batches[2] = bad_batches(2)
    with pytest.raises(InputError, match="epoch 1, batch 3 has the loss nan"):
        fit(brain, batches=batches)
    assert brain.nonfinite_count == 2 and brain.optimizer_step == 1


def test_processes_lose_patience_together(tmp_path):
    run_as_two(diverge_as, tmp_path)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert report["ids"] == [f"7-1-{row}" for row in range(8)]
