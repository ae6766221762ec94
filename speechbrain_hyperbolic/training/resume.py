"""The state that exact resumption needs and stock checkpoints lack."""

import functools
import os
import pathlib
import random
from typing import Any

import numpy as np
import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import get_rank, if_main_process
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.errors import InputError, message_of
from speechbrain_hyperbolic.hparams import HPARAMS, read_settings
from speechbrain_hyperbolic.training.processes import gather

logger = get_logger(__name__)

# Keys that may differ, as those that end in _folder or _annotation
_MAY_CHANGE = """
number_of_epochs num_workers skip_prep check_audio ckpt_interval_minutes
epochs_to_average pretrain_path verification_file train_log
""".split()


def check_resumable(
    hparams_file: str | pathlib.Path,
    overrides: str | dict,
    hparams: dict[str, Any],
) -> None:
    """Refuses weights that do not fit, and warns of other settings."""
    try:
        newest = hparams["checkpointer"].recover_if_possible()
    except RuntimeError as error:
        message = message_of(error)
        raise InputError(
            f"the weights in {hparams['save_folder']} do not fit ({message}): "
            "pass the options of that run, or another --output_folder"
        ) from error
    saved = pathlib.Path(hparams["output_folder"]) / HPARAMS
    if newest is None or not saved.is_file():
        return
    then = read_settings(saved)
    now = read_settings(hparams_file, overrides)
    told = [
        f"{key} {then.get(key)} -> {now.get(key)}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
        and key not in _MAY_CHANGE
        and not key.endswith(("_folder", "_annotation"))
    ]
    if told:
        logger.warning(
            f"{saved.parent} is resumed with other settings: {', '.join(told)}"
        )


@functools.partial(register_checkpoint_hooks, save_on_main_only=False)
class RunState:
    """Random numbers, the mean loss, and the length of the train log."""

    def __init__(self, brain: Any) -> None:
        self.brain = brain
        self.states: list[dict[str, Any]] = []

    @mark_as_saver
    def save(self, path: pathlib.Path) -> None:
        """Saves the states of all processes."""
        log = self._log()
        state = {
            "random": random_state(),
            "loss": self.brain.avg_train_loss,
            "log_bytes": log.stat().st_size if log.is_file() else 0,
        }
        states = gather(state)
        if if_main_process():
            torch.save(states, path)

    @mark_as_loader
    def load(self, path: pathlib.Path, end_of_epoch: bool) -> None:
        """Reads the states; ``restore`` puts them into effect."""
        states = torch.load(path, "cpu", weights_only=True)
        if not all(isinstance(state, dict) for state in states):
            raise InputError(
                f"{path} was written by another version of this package: "
                "resume with that version, or pass another --output_folder"
            )
        self.states = states

    def restore(self) -> None:
        """Called last, since what comes before may draw random numbers."""
        rank = get_rank() or 0
        if if_main_process():
            self._cut_log(self.states[0]["log_bytes"] if self.states else 0)
        if len(self.states) != len(gather(rank)):  # none, or other processes
            # Unlike seed_everything, without the order of the data, which must
            # be the same in all processes
            seed = getattr(self.brain.hparams, "seed", 0) + rank
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            return
        self.brain.avg_train_loss = self.states[rank]["loss"]
        set_random_state(self.states[rank]["random"])

    def _log(self) -> pathlib.Path:
        train_logger = getattr(self.brain.hparams, "train_logger", None)
        return pathlib.Path(getattr(train_logger, "save_file", ""))

    def _cut_log(self, size: int) -> None:
        """Removes what was logged after the checkpoint."""
        log = self._log()
        if log.is_file() and log.stat().st_size > size:
            if size == 0:  # of another run
                os.replace(log, f"{log}.before")
            else:
                os.truncate(log, size)


def random_state() -> dict[str, Any]:
    """The states of the generators, for torch.load(weights_only=True)."""
    state: Any = np.random.get_state()
    name, keys, *rest = state
    cuda = torch.cuda.is_available()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *rest],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Continues from ``random_state``, on as many GPUs as there are."""
    torch.set_rng_state(state["torch"])
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
