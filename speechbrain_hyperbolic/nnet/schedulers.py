"""Schedules of the margin."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from speechbrain_hyperbolic.errors import InputError, is_finite


def check_margin(margin: float) -> float:
    """Returns a margin, or raises InputError."""
    if not (is_finite(margin) and margin >= 0):
        raise InputError(
            f"margin is {margin}, expected a finite number >= 0; "
            "published: 0.2 (HAM-Softmax), 0 (H-Softmax)"
        )
    return margin


class MarginSchedule(torch.nn.Module):
    """A margin that changes linearly with the training steps.

    It is given to a loss as its margin. ``SpeakerBrain`` steps it once per
    optimizer step; another training loop calls ``step`` itself. The number of
    steps is its state: put it among the checkpointer's recoverables. Do not
    compile such a loss: torch.compile would begin anew at each step.

    Arguments
    ---------
    start : float
        The margin until ``first_step``, >= 0.
    end : float
        The margin from ``last_step`` on, >= 0.
    first_step : int
        Number of optimizer steps, >= 0.
    last_step : int
        Number of optimizer steps, above ``first_step``.

    Raises
    ------
    InputError
        If a value is out of range.

    Example
    -------
    >>> schedule = MarginSchedule(end=0.2, first_step=0, last_step=10)
    >>> for _ in range(5):
    ...     schedule.step()
    >>> schedule.value
    0.1
    """

    # Uses without a step, after which a user is warned
    PATIENCE = 1000

    def __init__(
        self,
        start: float = 0.0,
        end: float = 0.2,
        first_step: int = 0,
        last_step: int = 10000,
    ) -> None:
        super().__init__()
        self.start, self.end = check_margin(start), check_margin(end)
        if not 0 <= first_step < last_step:
            raise InputError(
                f"first_step is {first_step} and last_step is {last_step}, "
                "expected 0 <= first_step < last_step"
            )
        self.first_step, self.last_step = first_step, last_step
        # No buffer: reading one on a GPU would wait for the GPU.
        self.steps = 0
        self._unstepped_uses = 0

    @property
    def value(self) -> float:
        """The margin now; warns once if a training loop never steps it."""
        silent = self.start == self.end or torch.compiler.is_compiling()
        if not self.steps and not silent:
            self._unstepped_uses += 1
            if self._unstepped_uses == self.PATIENCE:
                warnings.warn(
                    f"the margin is still {self.start:g} after {self.PATIENCE} "
                    "batches: nothing steps its MarginSchedule; train with "
                    "SpeakerBrain or call schedule.step() after each "
                    "optimizer step",
                    stacklevel=2,
                )
        done = self.steps - self.first_step
        share = min(max(done / (self.last_step - self.first_step), 0.0), 1.0)
        return self.start + (self.end - self.start) * share

    def step(self) -> None:
        """Counts one optimizer step."""
        self.steps += 1

    def get_extra_state(self) -> dict[str, int]:
        """The number of steps, for ``state_dict``."""
        return {"steps": self.steps}

    def set_extra_state(self, state: Any) -> None:
        """Resumes from the number of steps."""
        self.steps = int(state["steps"])


def margin_schedules(cost: Callable) -> list[MarginSchedule]:
    """The distinct margin schedules within a cost, each to be stepped once."""
    if not isinstance(cost, torch.nn.Module):
        return []  # a plain function
    return [m for m in cost.modules() if isinstance(m, MarginSchedule)]
