"""Statistics of the geometry, by hand; and what a training step gives."""

import copy
import math
import os
import sys
import types

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedData
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import LogSoftmaxWrapper, classification_error
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.metric_stats import MetricStats
from speechbrain.utils.train_logger import FileTrainLogger
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from speechbrain_hyperbolic import statistics
from speechbrain_hyperbolic.checkpoints import RecentCheckpointer
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.heads import (
    CentreClassifier,
    HyperbolicClassifier,
    JointClassifier,
)
from speechbrain_hyperbolic.lobes.similarity import (
    ClippedDistance,
    ExactDistance,
    SmoothDistance,
)
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin, MarginSchedule
from speechbrain_hyperbolic.statistics import (
    EpochStatistics,
    TensorBoardLogger,
    geometry_statistics,
)
from speechbrain_hyperbolic.training import SpeakerBrain

DIM, SPEAKERS = 6, 5


def of_norms(*norms):
    """Vectors of these lengths, in any directions."""
    directions = torch.randn(len(norms), DIM)
    directions /= directions.norm(dim=1, keepdim=True)
    return torch.tensor(norms).unsqueeze(1) * directions


def with_centres(head, *norms):
    head.weight = torch.nn.Parameter(of_norms(*norms))
    return head


def test_the_published_clip():
    """Radii are 2 artanh(norm), up to a norm of 1/sqrt(3)."""
    cap = 1 / math.sqrt(3)
    head = HyperbolicClassifier(DIM, out_neurons=SPEAKERS, c=3.0)
    with_centres(head, 0.0, 0.1, 0.2, 0.3, 5.0)
    embeddings = of_norms(0.0, 0.1, 0.3, 0.57, 0.58, 0.6, 1.0, 200.0)
    found = geometry_statistics(
        head, MarginSoftmax(AdditiveMargin()), embeddings
    )
    assert found["cap_embeddings"] == 0.5
    assert found["cap_centres"] == pytest.approx(0.2)
    largest = 2 * math.atanh(cap * (1 - 1e-5))
    at = {norm: 2 * math.atanh(norm) for norm in (0.1, 0.2, 0.3, 0.57)}
    assert {n: v for n, v in found.items() if "cap" not in n} == pytest.approx(
        {
            # Linear between the order statistics, as numpy's
            "radius_embeddings_05": 0.35 * at[0.1],
            "radius_embeddings_50": (at[0.57] + largest) / 2,
            "radius_embeddings_95": largest,
            "radius_centres_05": 0.2 * at[0.1],
            "radius_centres_50": at[0.2],
            "radius_centres_95": 0.2 * at[0.3] + 0.8 * largest,
            "curvature": 1.0,
            "embedding_scale": 1.0,
            "margin": 0.2,
        },
        rel=1e-5,
    )


def test_on_the_cap_is_within_1e_4():
    head = CentreClassifier(
        DIM, out_neurons=4, similarity=ExactDistance(max_radius=2.0)
    )
    with_centres(head, 2 * (1 - 3e-4), 2 * (1 - 1.2e-4), 2 * (1 - 8e-5), 9.0)
    assert geometry_statistics(head, None)["cap_centres"] == 0.5


def test_curvature_and_scale():
    """The scale is the embeddings' alone; radii are of curvature -1."""
    similarity = ExactDistance(
        0.25, learnable=True, embedding_scale=0.1, learn_scale=True
    )
    head = CentreClassifier(DIM, out_neurons=3, similarity=similarity)
    found = geometry_statistics(
        with_centres(head, 3.0, 3.0, 3.0), None, of_norms(3.0, 3.0)
    )
    assert found["radius_centres_50"] == pytest.approx(1.5)
    assert found["radius_embeddings_50"] == pytest.approx(0.15)
    assert found["curvature"] == pytest.approx(0.25)
    assert found["embedding_scale"] == pytest.approx(0.1)
    assert found["cap_embeddings"] == found["cap_centres"] == 0
    assert "margin" not in found


def test_smooth_cap():
    head = CentreClassifier(DIM, similarity=SmoothDistance(2.0), out_neurons=2)
    found = geometry_statistics(
        with_centres(head, 0.5, 0.5), None, of_norms(1.0, 30.0)
    )
    assert found["cap_embeddings"] == 0.5
    assert found["radius_embeddings_50"] == pytest.approx(1 + math.tanh(0.5))
    assert found["radius_centres_95"] == pytest.approx(2 * math.tanh(0.25))


def test_more_centres_than_torch_gives_quantiles_of():
    count = 2**24 + 1
    similarity = SmoothDistance(2.3)
    head = CentreClassifier(1, out_neurons=count, similarity=similarity)
    lengths = torch.linspace(0, 1, count).unsqueeze(1)
    head.load_state_dict({"weight": lengths})
    found = geometry_statistics(head, None)
    for share in (0.05, 0.5, 0.95):
        radius = 2.3 * math.tanh(share / 2.3)
        key = f"radius_centres_{round(100 * share):02}"
        assert found[key] == pytest.approx(radius, abs=1e-3)


def test_scheduled_margin_is_the_one_now():
    schedule = MarginSchedule(end=0.2, first_step=0, last_step=4)
    head = HyperbolicClassifier(DIM, out_neurons=SPEAKERS)
    for loss in (MarginSoftmax, LogSoftmaxWrapper):
        cost = loss(AdditiveMargin(schedule))
        before = geometry_statistics(head, cost)["margin"]
        schedule.step()
        assert geometry_statistics(head, cost)["margin"] - before == (
            pytest.approx(0.05)
        )


def test_layers_before_the_centres_are_applied_and_do_not_learn():
    head = CentreClassifier(
        DIM,
        lin_blocks=1,
        lin_neurons=DIM,
        out_neurons=SPEAKERS,
        similarity=ExactDistance(),
    )
    norm, linear = head.blocks
    # A batch norm of weight 0 leaves the linear layer's bias.
    torch.nn.init.zeros_(norm.norm.weight)
    torch.nn.init.constant_(linear.w.bias, 0.5)
    before = copy.deepcopy(head.state_dict())
    found = geometry_statistics(head, None, torch.randn(50, DIM))
    assert found["radius_embeddings_05"] == pytest.approx(0.5 * DIM**0.5)
    assert head.training and norm.training
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name])


def test_joint_head():
    heads = [
        with_centres(HyperbolicClassifier(DIM, out_neurons=2), 0.1, 9.0),
        CentreClassifier(DIM, out_neurons=2),
        with_centres(HyperbolicClassifier(DIM, out_neurons=2, c=25), 9.0, 9.0),
    ]
    losses = [MarginSoftmax(AdditiveMargin(m)) for m in (0.1, 0.2, 0.3)]
    found = geometry_statistics(
        JointClassifier(heads),
        JointLoss(losses, [1, 1, 1]),
        of_norms(0.1, 0.3, 0.3, 0.3),
    )
    assert {name.split("_")[0] for name in found} == {"head1", "head3"}
    assert (found["head1_cap_centres"], found["head3_cap_centres"]) == (0.5, 1)
    assert found["head1_cap_embeddings"] == 0
    assert found["head3_cap_embeddings"] == 0.75
    assert (found["head1_margin"], found["head3_margin"]) == (0.1, 0.3)


@pytest.mark.parametrize("head", [Classifier, CentreClassifier])
def test_heads_that_are_not_hyperbolic(head):
    head = head(DIM, out_neurons=SPEAKERS)
    cost = MarginSoftmax(AdditiveMargin())
    assert geometry_statistics(head, cost, of_norms(1.0)) == {}


@pytest.mark.parametrize("sizes", [(3, 4), (2048,), (1500, 700, 900), (5000,)])
def test_last_embeddings_of_an_epoch(sizes, monkeypatch):
    numbers = torch.arange(sum(sizes)).reshape(-1, 1, 1)
    epoch = EpochStatistics()
    for batch in numbers.split(sizes):
        epoch.add_embeddings(batch)
    monkeypatch.setattr(
        statistics, "geometry_statistics", lambda *a: {"rows": a[2].flatten()}
    )
    rows = epoch.summarize(None, None)["rows"]
    assert torch.equal(rows, numbers.flatten()[-2048:])
    assert sum(map(len, epoch.batches)) < 2048 + max(sizes)


def test_an_epoch_without_steps():
    head = HyperbolicClassifier(DIM, out_neurons=SPEAKERS)
    found = EpochStatistics().summarize(head, None)
    assert "cap_centres" in found
    assert not {"gradient_norm", "cap_embeddings"} & found.keys()


# TensorBoard


def read_events(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_events(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    for epoch in (1, 2):
        logger.log_stats(
            {"epoch": epoch, "lr": 0.5},
            {"loss": epoch / 4, "cap_embeddings": 1.0},
            {"loss": 4.0 * epoch, "ErrorRate": torch.tensor(0.25)},
        )
    assert read_events(tmp_path) == {
        "lr": [(1, 0.5), (2, 0.5)],
        "loss/train": [(1, 0.25), (2, 0.5)],
        "cap_embeddings/train": [(1, 1.0), (2, 1.0)],
        "loss/valid": [(1, 4.0), (2, 8.0)],
        "ErrorRate/valid": [(1, 0.25), (2, 0.25)],
    }


def test_an_epoch_that_is_trained_again_is_hidden(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    for epoch in (1, 2):
        logger.log_stats({"epoch": epoch}, {"loss": 1.0})
    # Event files are told apart by the second and the process.
    logger.writer.close()
    logger = TensorBoardLogger(tmp_path, first_epoch=2)
    for epoch in (2, 3):
        logger.log_stats({"epoch": epoch}, {"loss": 2.0})
    expected = [(1, 1.0), (2, 2.0), (3, 2.0)]
    assert read_events(tmp_path) == {"loss/train": expected}


def test_tensorboard_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install .*\[tensorboard\]'"):
        TensorBoardLogger(tmp_path)


# Training steps


class Batch(types.SimpleNamespace):
    def to(self, device):
        return self


def make_batch(generator):
    waveforms = torch.randn(8, DIM, generator=generator)
    labels = torch.randint(SPEAKERS, (8, 1), generator=generator)
    return Batch(
        id=list("abcdefgh"),
        sig=PaddedData(waveforms, torch.ones(8)),
        spk_id_encoded=PaddedData(labels, torch.ones(8)),
    )


class Features(torch.nn.Module):
    def forward(self, x, lengths=None):
        return x


class Encoder(torch.nn.Linear):
    def forward(self, x, lengths=None):
        return super().forward(x).unsqueeze(1)


class Doubles:
    """An augmentation that gives two views."""

    def __call__(self, waveforms, lengths):
        both = torch.cat([waveforms, 1.1 * waveforms])
        return both, torch.cat([lengths, lengths])

    def replicate_labels(self, labels):
        return torch.cat([labels, labels])


def make_brain(
    folder,
    classifier,
    cost,
    epochs=1,
    run_opts=None,
    brain_class=SpeakerBrain,
    **hparams,
):
    torch.manual_seed(0)
    encoder = Encoder(DIM, DIM)
    counter = EpochCounter(epochs)
    return brain_class(
        modules={
            "compute_features": Features(),
            "mean_var_norm": Features(),
            "embedding_model": encoder,
            "classifier": classifier,
        },
        opt_class=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        hparams={
            "classifier": classifier,
            "compute_cost": cost,
            "epoch_counter": counter,
            "lr_annealing": lambda epoch: (0.01, 0.01),
            "train_logger": FileTrainLogger(folder / "train_log.txt"),
            "error_stats": lambda: MetricStats(
                lambda outputs, labels, lengths: classification_error(
                    outputs, labels, lengths, reduction="batch"
                )
            ),
            **hparams,
        },
        run_opts={"device": "cpu", "noprogressbar": True, **(run_opts or {})},
        checkpointer=RecentCheckpointer(
            folder / "save",
            recoverables={
                "encoder": encoder,
                "classifier": classifier,
                "counter": counter,
            },
        ),
    )


def fit(brain, steps=4):
    generator = torch.Generator().manual_seed(1)
    train, valid = (
        torch.utils.data.DataLoader(
            [make_batch(generator) for _ in range(count)],
            collate_fn=lambda batches: batches[0],
        )
        for count in (steps, 1)
    )
    brain.fit(brain.hparams.epoch_counter, train, valid)


def ham():
    torch.manual_seed(2)
    head = HyperbolicClassifier(DIM, out_neurons=SPEAKERS)
    return head, MarginSoftmax(AdditiveMargin())


def joint():
    (head, cost), euclidean = ham(), CentreClassifier(DIM, out_neurons=SPEAKERS)
    cost = JointLoss([cost, MarginSoftmax(AdditiveMargin(0.3))], [0.7, 0.3])
    return JointClassifier([head, euclidean]), cost


@pytest.mark.parametrize("max_norm", [1e-2, 1e6])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("scaled", [False, True])
def test_gradient_norm(tmp_path, max_norm, accumulation, scaled):
    """The mean of what a stock Brain would clip, with and without clipping."""
    seen, applied = [], []

    class Watched(SpeakerBrain):
        def optimizers_step(self):
            seen.append(self.norm().item() / self.scaler.get_scale())
            super().optimizers_step()

        def norm(self):
            squares = [p.grad.square().sum() for p in self.modules.parameters()]
            return sum(squares).sqrt()

        def init_optimizers(self):
            super().init_optimizers()
            self.optimizer.register_step_pre_hook(
                lambda *_: applied.append(self.norm().item())
            )

    run_opts = {
        "max_grad_norm": max_norm,
        "grad_accumulation_factor": accumulation,
    }
    brain = make_brain(tmp_path, *ham(), run_opts=run_opts, brain_class=Watched)
    brain.scaler = torch.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
    fit(brain)
    assert len(seen) == brain.optimizer_step == 4 // accumulation
    assert applied == pytest.approx([min(max_norm, n) for n in seen], rel=1e-3)
    expected = sum(seen) / len(seen)
    assert brain.train_stats["gradient_norm"] == pytest.approx(expected)


@pytest.mark.parametrize("run_opts", [{}, {"skip_nonfinite_grads": True}])
@pytest.mark.parametrize("max_norm", [1e-2, 1e6])
def test_the_step_is_the_stock_one(tmp_path, max_norm, run_opts):
    class Stock(SpeakerBrain):
        optimizers_step = sb.Brain.optimizers_step

    run_opts = {"max_grad_norm": max_norm, **run_opts}
    found = []
    for brain_class in (SpeakerBrain, Stock):
        folder = tmp_path / brain_class.__name__
        folder.mkdir()
        brain = make_brain(
            folder, *ham(), run_opts=run_opts, brain_class=brain_class
        )
        fit(brain)
        assert brain.optimizer_step == 4
        found.append(list(brain.modules.parameters()))
    for ours, stock in zip(*found, strict=True):
        assert torch.equal(ours, stock)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("make", [ham, joint])
def test_fused_step_is_the_unfused_one(tmp_path, monkeypatch, make, views):
    hparams = {"wav_augment": Doubles()} if views == 2 else {}
    brain = make_brain(tmp_path, *make(), **hparams)
    brain.on_stage_start(sb.Stage.TRAIN)
    batch = make_batch(torch.Generator().manual_seed(3))
    found = []
    for fuses in (True, False):
        if not fuses:
            monkeypatch.setattr(brain, "_fuses", lambda stage: False)
        outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
        assert (outputs[0].ndim == 0) == fuses
        loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
        gradients = torch.autograd.grad(loss, list(brain.modules.parameters()))
        found.append((loss, *gradients))
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


def test_validation_and_other_losses_need_the_scores(tmp_path):
    head, cost = ham()
    brain = make_brain(tmp_path, head, cost)
    batch = make_batch(torch.Generator())
    outputs, _ = brain.compute_forward(batch, sb.Stage.VALID)
    assert outputs.shape == (8, 1, SPEAKERS)
    brain = make_brain(tmp_path, head, LogSoftmaxWrapper(cost.loss_fn))
    brain.on_stage_start(sb.Stage.TRAIN)
    outputs, _ = brain.compute_forward(batch, sb.Stage.TRAIN)
    assert outputs.shape == (8, 1, SPEAKERS)


def test_logs_of_a_run_that_goes_on(tmp_path):
    """Both logs have each epoch once, with the same values."""
    board = tmp_path / "board"
    for epochs in (2, 3):
        brain = make_brain(
            tmp_path, *ham(), epochs, tensorboard_folder=str(board)
        )
        fit(brain)
    events = read_events(board)
    lines = (tmp_path / "train_log.txt").read_text().splitlines()
    assert len(lines) == 3
    for epoch, line in enumerate(lines, start=1):
        logged = dict(
            item.split(": ") for item in line.replace(" - ", ", ").split(", ")
        )
        assert int(logged.pop("epoch")) == epoch
        assert logged.keys() == {
            " ".join(reversed(tag.split("/"))) for tag in events
        }
        for tag, values in events.items():
            assert [step for step, _ in values] == [1, 2, 3]
            value = float(logged[" ".join(reversed(tag.split("/")))])
            assert value == pytest.approx(values[epoch - 1][1], rel=1e-2)
    assert {"gradient_norm/train", "cap_embeddings/train"} <= events.keys()
    assert ClippedDistance().cap >= events["radius_embeddings_95/train"][0][1]


def test_a_stock_head_logs_its_gradient_norm(tmp_path):
    head = Classifier(DIM, out_neurons=SPEAKERS)
    brain = make_brain(tmp_path, head, LogSoftmaxWrapper(AdditiveMargin()))
    fit(brain)
    assert brain.train_stats.keys() == {"loss", "gradient_norm"}
    assert not list(tmp_path.glob("**/*tfevents*"))


def train_in_process(rank, folder):
    """One of two processes, on the same batches."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
    )
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=2,
    )
    run_opts = {"distributed_launch": True, "distributed_backend": "gloo"}
    brain = make_brain(
        folder,
        *ham(),
        run_opts=run_opts,
        tensorboard_folder=str(folder / "board"),
    )
    fit(brain)
    assert not isinstance(brain.modules.classifier, HyperbolicClassifier)
    torch.save(brain.train_stats, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes(tmp_path):
    """They train as one does on these batches, and one of them logs."""
    (tmp_path / "one").mkdir()
    brain = make_brain(tmp_path / "one", *ham())
    fit(brain)
    torch.multiprocessing.spawn(train_in_process, (tmp_path,), nprocs=2)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found == pytest.approx(brain.train_stats, rel=1e-4)
    assert len(list(tmp_path.glob("board/*"))) == 1
    assert len((tmp_path / "train_log.txt").read_text().splitlines()) == 1
    (event,) = read_events(tmp_path / "board")["gradient_norm/train"]
    assert event == (1, pytest.approx(brain.train_stats["gradient_norm"]))
