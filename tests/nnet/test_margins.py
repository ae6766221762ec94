"""Margins and their schedule. test_losses has their values."""

import warnings

import pytest
import torch
from speechbrain.nnet.losses import LogSoftmaxWrapper

from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import (
    AdditiveAngularMargin,
    AdditiveMargin,
    RealAdditiveMargin,
)
from speechbrain_hyperbolic.nnet.schedulers import (
    MarginSchedule,
    margin_schedules,
)

MARGINS = [AdditiveMargin, AdditiveAngularMargin, RealAdditiveMargin]


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("linear", [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5]),
        (
            "exponential",
            [0.1, 0.1]
            + [0.1 + 0.4 * (1 - 10 ** (-0.75 * i)) / 0.999 for i in (1, 2, 3)]
            + [0.5, 0.5],
        ),
    ],
)
def test_schedule(kind, expected):
    schedule = MarginSchedule(0.1, 0.5, first_step=1, last_step=5, kind=kind)
    values = []
    for _ in expected:
        values.append(schedule.value)
        schedule.step()
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("wrapper", [MarginSoftmax, LogSoftmaxWrapper])
@pytest.mark.parametrize("loss_fn", MARGINS)
def test_a_loss_uses_the_schedule_and_never_steps_it(wrapper, loss_fn):
    schedule = MarginSchedule(0.0, 0.2, last_step=4)
    loss = wrapper(loss_fn(schedule, 10.0))
    outputs = torch.rand(3, 1, 5)
    labels = torch.tensor([[0], [1], [2]])
    schedule.step()
    schedule.step()
    for _ in range(2):
        value = loss(outputs.clone().requires_grad_(), labels)
        expected = wrapper(loss_fn(0.1, 10.0))(outputs, labels)
        torch.testing.assert_close(value.detach(), expected)
    assert schedule.steps == 2


def test_distinct_schedules_of_a_joint_loss():
    shared, own = MarginSchedule(), MarginSchedule()
    losses = [
        MarginSoftmax(AdditiveMargin(shared)),
        LogSoftmaxWrapper(RealAdditiveMargin(shared)),
        MarginSoftmax(AdditiveAngularMargin(own)),
    ]
    assert margin_schedules(JointLoss(losses, [1, 1, 1])) == [shared, own]
    assert margin_schedules(torch.nn.functional.cross_entropy) == []


@pytest.mark.parametrize(
    "steps, start, warned", [(0, 0.0, 1), (1, 0.0, 0), (0, 0.2, 0)]
)
def test_warns_once_if_nothing_steps_a_schedule(
    steps, start, warned, monkeypatch
):
    monkeypatch.setattr(MarginSchedule, "PATIENCE", 5)
    schedule = MarginSchedule(start, 0.2)
    for _ in range(steps):
        schedule.step()
    loss = MarginSoftmax(AdditiveMargin(schedule))
    outputs = torch.rand(3, 1, 5, requires_grad=True)
    labels = torch.zeros(3, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            loss(outputs, labels)
            loss(outputs.detach(), labels)  # validation does not count
    assert len(caught) == warned
    for warning in caught:
        assert "nothing steps its MarginSchedule" in str(warning.message)
        assert "\n" not in str(warning.message)
