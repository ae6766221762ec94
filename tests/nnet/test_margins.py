"""Margins and their schedule. test_losses has their values."""

import pytest
import torch
from speechbrain.nnet.losses import LogSoftmaxWrapper

from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
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


def test_schedule():
    schedule = MarginSchedule(0.1, 0.5, first_step=1, last_step=5)
    for part in (0, 0, 0.25, 0.5, 0.75, 1, 1):
        assert schedule.value == pytest.approx(0.1 + 0.4 * part)
        schedule.step()


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


def test_a_function_has_no_schedule():
    assert margin_schedules(torch.nn.functional.cross_entropy) == []


@pytest.mark.parametrize(
    "steps, start, warned", [(0, 0.0, 1), (1, 0.0, 0), (0, 0.2, 0)]
)
def test_warns_once_if_nothing_steps_a_schedule(
    steps, start, warned, monkeypatch, recwarn
):
    monkeypatch.setattr(MarginSchedule, "PATIENCE", 5)
    schedule = MarginSchedule(start, 0.2)
    for _ in range(steps):
        schedule.step()
    loss = MarginSoftmax(AdditiveMargin(schedule))
    outputs = torch.rand(3, 1, 5, requires_grad=True)
    labels = torch.zeros(3, 1)
    for _ in range(20):
        loss(outputs, labels)
    assert len(recwarn) == warned
    for warning in recwarn:
        assert "nothing steps its MarginSchedule" in str(warning.message)
