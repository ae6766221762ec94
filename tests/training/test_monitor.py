"""Statistics of the geometry, by hand, and in the logs."""

import csv
import math
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from speechbrain_hyperbolic.lobes.classifiers import (
    HyperbolicClassifier,
    JointClassifier,
)
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.training.monitor import (
    EpochStatistics,
    duration,
    geometry_statistics,
)
from tests.training.brains import DIM, fit, ham, make_brain


def of_norms(*norms):
    """Vectors of these lengths, in any directions."""
    directions = torch.randn(len(norms), DIM)
    directions /= directions.norm(dim=1, keepdim=True)
    return torch.tensor(norms).unsqueeze(1) * directions


def head_of(*norms, **options):
    """A head whose centers have these norms."""
    head = HyperbolicClassifier(DIM, out_neurons=len(norms), **options)
    head.weight = torch.nn.Parameter(of_norms(*norms))
    return head


def test_the_published_clip():
    """Radii are 2 artanh(norm), up to a norm of 1/sqrt(3)."""
    cap = 1 / math.sqrt(3)
    head = head_of(0.0, 0.1, 0.2, 0.3, 5.0)
    embeddings = of_norms(0.0, 0.1, 0.3, 0.57, 0.58, 0.6, 1.0, 200.0)
    found = geometry_statistics(
        head, MarginSoftmax(AdditiveMargin()), embeddings
    )
    assert found["cap_embeddings"] == 0.5
    assert found["cap_centers"] == pytest.approx(0.2)
    largest = 2 * math.atanh(cap * (1 - 1e-5))
    at = {norm: 2 * math.atanh(norm) for norm in (0.1, 0.2, 0.3, 0.57)}
    assert {n: v for n, v in found.items() if "cap" not in n} == pytest.approx(
        {
            # Linear between the order statistics, as numpy's
            "radius_embeddings_05": 0.35 * at[0.1],
            "radius_embeddings_50": (at[0.57] + largest) / 2,
            "radius_embeddings_95": largest,
            "radius_centers_05": 0.2 * at[0.1],
            "radius_centers_50": at[0.2],
            "radius_centers_95": 0.2 * at[0.3] + 0.8 * largest,
            "curvature": 1.0,
            "embedding_scale": 1.0,
            "margin": 0.2,
        },
        rel=1e-5,
    )


def test_curvature_and_scale():
    """The scale is the embeddings' alone; radii are of curvature -1."""
    options = {"curvature": 0.25, "embedding_scale": 0.1}
    head = head_of(3.0, 3.0, 3.0, map="exponential", **options)
    found = geometry_statistics(head, None, of_norms(3.0, 3.0))
    assert found["radius_centers_50"] == pytest.approx(1.5)
    assert found["radius_embeddings_50"] == pytest.approx(0.15)
    assert found["curvature"] == pytest.approx(0.25)
    assert found["embedding_scale"] == pytest.approx(0.1)
    assert found["cap_embeddings"] == found["cap_centers"] == 0


def test_joint_head():
    heads = [
        head_of(0.1, 9.0),
        HyperbolicClassifier(DIM, out_neurons=2, map="cosine"),
        head_of(9.0, 9.0, c=25.0),
    ]
    losses = [MarginSoftmax(AdditiveMargin(m)) for m in (0.1, 0.2, 0.3)]
    head, cost = JointClassifier(heads), JointLoss(losses, [1, 1, 1])
    found = geometry_statistics(head, cost, of_norms(0.1, 0.3, 0.3, 0.3))
    assert {name.split("_")[0] for name in found} == {"head1", "head3"}
    assert (found["head1_cap_centers"], found["head3_cap_centers"]) == (0.5, 1)
    assert found["head1_cap_embeddings"] == 0
    assert found["head3_cap_embeddings"] == 0.75
    assert (found["head1_margin"], found["head3_margin"]) == (0.1, 0.3)


def test_the_last_embeddings_of_an_epoch():
    """The quantiles are those of the last 2048."""
    sizes = 1500, 700, 900
    norms = torch.rand(sum(sizes)) + torch.linspace(0, 9, sum(sizes))
    epoch = EpochStatistics()
    for batch in (of_norms(*norms.tolist()).unsqueeze(1)).split(sizes):
        epoch.add_embeddings(batch)
    head = head_of(1.0, map="exponential")
    found = epoch.summarize(head, None)
    expected = norms[-2048:].quantile(0.05).item()
    assert found["radius_embeddings_05"] == pytest.approx(expected, rel=1e-4)
    assert len(epoch.embeddings) == 2048


def test_the_logs_of_a_resumed_run(tmp_path):
    """All logs have each epoch once, with the same values."""
    board = str(tmp_path / "board")
    for epochs in (2, 3):
        fit(make_brain(tmp_path, *ham(), epochs, tensorboard_folder=board))
    with open(tmp_path / "geometry.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"gradient_norm", "cap_embeddings"} <= rows[0].keys()
    reader = EventAccumulator(board)
    reader.Reload()
    events = {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }
    lines = (tmp_path / "train_log.txt").read_text().splitlines()
    assert len(lines) == 3
    for values in events.values():
        assert [step for step, _ in values] == [1, 2, 3]
    for line, (_, loss) in zip(lines, events["loss/train"], strict=True):
        logged = float(line.split("train loss: ")[1].split()[0])
        assert logged == pytest.approx(loss, rel=1e-2)
    assert {"gradient_norm/train", "cap_embeddings/train"} <= events.keys()


def test_the_line_of_an_epoch(tmp_path, caplog):
    """Short; and an error of a few utterances is given as a count."""
    with caplog.at_level("INFO"):
        fit(make_brain(tmp_path, *ham(), epochs=2))
    lines = [r.getMessage() for r in caplog.records]
    first, last = (line for line in lines if line.startswith("epoch "))
    assert re.fullmatch(
        r"epoch 1/2: lr 0.01, loss [\d.]+, valid loss [\d.]+, "
        r"\d of 8 utterances wrong, [\d.]+ s, \d+ s left",
        first,
    )
    assert last.startswith("epoch 2/2: ") and "left" not in last
    log = (tmp_path / "train_log.txt").read_text().splitlines()[0]
    assert "cap_" not in log and log.endswith("valid utterances: 8")


def test_durations():
    times = (7, 90, 3000, 70_000, 2_000_000)
    words = ["7 s", "1.5 min", "50 min", "19 h", "23 days"]
    assert [duration(seconds) for seconds in times] == words
