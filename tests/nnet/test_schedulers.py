"""Learning rates, against the formula."""

import pytest
import torch
from speechbrain.nnet.schedulers import StepScheduler, update_learning_rate

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.schedulers import WarmUp

LR, DECAY, BATCHES = 0.1, 0.5, 5


def make(steps):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR)
    return WarmUp(StepScheduler(LR / DECAY, DECAY, 1), LR, steps), optimizer


def epoch_of(schedule, optimizer, epoch, batches=BATCHES):
    """As the stock recipe does it; the learning rate of each step."""
    rates = []
    for _ in range(batches):
        schedule.on_batch_end(optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    old, new = schedule(epoch)
    update_learning_rate(optimizer, new)
    return rates, old


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 8, 100])
def test_rates(steps):
    schedule, optimizer = make(steps)
    for epoch in (1, 2, 3):
        rates, _ = epoch_of(schedule, optimizer, epoch)
        for batch, rate in enumerate(rates, start=1):
            step = (epoch - 1) * BATCHES + batch
            share = min(1, step / steps) if steps else 1
            assert rate == pytest.approx(LR * DECAY ** (epoch - 1) * share)


def test_resumes(tmp_path):
    """A checkpoint at the end of an epoch, and one within the next."""
    whole, whole_optimizer = make(8)
    epoch_of(whole, whole_optimizer, 1)
    expected, _ = epoch_of(whole, whole_optimizer, 2)
    first, first_optimizer = make(8)
    epoch_of(first, first_optimizer, 1)
    first.save(tmp_path / "lr.ckpt")
    second, _ = make(8)
    second.load(tmp_path / "lr.ckpt", end_of_epoch=True)
    rates = []
    for _ in range(2):
        second.on_batch_end(first_optimizer)
        rates.append(first_optimizer.param_groups[0]["lr"])
    second.save(tmp_path / "lr.ckpt")
    third, _ = make(8)
    third.load(tmp_path / "lr.ckpt", end_of_epoch=False)
    for _ in range(3):
        third.on_batch_end(first_optimizer)
        rates.append(first_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("steps", [-1, 0.5, True, "many"])
def test_bad_steps(steps):
    with pytest.raises(InputError, match="warmup_steps is"):
        make(steps)
