"""Learning-rate schedules."""

import pathlib
from collections.abc import Callable

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from speechbrain_hyperbolic.errors import InputError


@register_checkpoint_hooks
class WarmUp:
    """A schedule by epochs whose first steps are smaller.

    Step n of the first ``steps`` is taken with n / steps of the learning rate
    that the schedule says. The stock recipe calls it once a batch and once an
    epoch.

    Arguments
    ---------
    scheduler : callable
        One of ``speechbrain.nnet.schedulers`` that is called with the epoch
        and gives the old and the new learning rate.
    lr : float
        The learning rate of the first epoch, > 0.
    steps : int
        >= 0; with 0 it is the schedule alone.

    Raises
    ------
    InputError
        If ``steps`` is not an integer >= 0.

    Example
    -------
    >>> from speechbrain.nnet.schedulers import StepScheduler
    >>> warm_up = WarmUp(StepScheduler(0.1, 0.5, 1), lr=0.1, steps=4)
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> warm_up.on_batch_end(optimizer)
    >>> optimizer.param_groups[0]["lr"]
    0.025
    """

    def __init__(self, scheduler: Callable, lr: float, steps: int = 0) -> None:
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
            raise InputError(
                f"warmup_steps is {steps}, expected a number of batches >= 0"
            )
        self.scheduler = scheduler
        self.steps = steps
        self.lr = lr
        self.step = 0

    def __call__(self, epoch: int) -> tuple[float, float]:
        """The learning rates of the epoch that ended and of the next.

        Arguments
        ---------
        epoch : int
            That ended, from 1.

        Returns
        -------
        old, new : float
        """
        old, self.lr = self.scheduler(epoch)
        return old, self.lr

    def on_batch_end(self, optimizer: torch.optim.Optimizer) -> None:
        """To be called in each batch, before the step of the optimizer.

        Arguments
        ---------
        optimizer : torch.optim.Optimizer
        """
        self.step += 1
        if self.step <= self.steps:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.step / self.steps

    @mark_as_saver
    def save(self, path: str | pathlib.Path) -> None:
        """Saves where it is.

        Arguments
        ---------
        path : str or pathlib.Path
        """
        torch.save({"lr": self.lr, "step": self.step}, path)

    @mark_as_loader
    def load(self, path: str | pathlib.Path, end_of_epoch: bool) -> None:
        """Goes on from where it was.

        Arguments
        ---------
        path : str or pathlib.Path
        end_of_epoch : bool
            Not used: both counts are of what is done.
        """
        del end_of_epoch
        state = torch.load(path, weights_only=True)
        self.lr, self.step = state["lr"], state["step"]
