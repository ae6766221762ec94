"""What lets a run that was killed end with the weights of one that was not.

Beside what the stock checkpoint has: where the generators of random numbers
are, where the augmentation is in its noises, what the epoch has shown so far,
and where the train log ended. Crops need no state (``dataio.crops``).
"""

import functools
import io
import os
import pathlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import AddNoise, AddReverb
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import get_rank, if_main_process

from speechbrain_hyperbolic.dataio.crops import draw
from speechbrain_hyperbolic.distributed import of_processes

if TYPE_CHECKING:  # it imports this module
    from speechbrain_hyperbolic.training import SpeakerBrain


@functools.partial(register_checkpoint_hooks, save_on_main_only=False)
class RunState:
    """A recoverable, for what a training has besides weights and counts.

    Each process of distributed training has its own; the main one writes all.

    Arguments
    ---------
    brain : SpeakerBrain
        With ``statistics``, ``views`` and ``avg_train_loss``. Of its hparams
        are used, where they are: ``seed``, ``train_logger`` (with a
        ``save_file``), and ``wav_augment``.
    """

    def __init__(self, brain: "SpeakerBrain") -> None:
        self.brain = brain
        self.rank = get_rank() or 0
        self.loaded, self.as_many = None, False

    @mark_as_saver
    def save(self, path: pathlib.Path) -> None:
        """Saves where the run is.

        Arguments
        ---------
        path : pathlib.Path
        """
        state = {
            "random": random_state(),
            "noises": [position(adder) for adder in self._adders()],
            "statistics": self.brain.statistics.state_dict(),
            "views": self.brain.views,
            "loss": self.brain.avg_train_loss,
            "log_bytes": self._log_bytes(),
        }
        # In bytes, since tensors would come on the GPUs of others.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states = of_processes(buffer.getvalue())
        if if_main_process():
            torch.save([*map(_as_tensor, states)], path)

    @mark_as_loader
    def load(self, path: pathlib.Path, end_of_epoch: bool) -> None:
        """Reads it; it takes effect with ``restore``.

        Arguments
        ---------
        path : pathlib.Path
        end_of_epoch : bool
            Not used: what begins with an epoch is begun there.
        """
        del end_of_epoch
        states = torch.load(path, "cpu", weights_only=True)
        self.as_many = len(states) == len(of_processes(None))
        if self.rank < len(states):  # else the run had fewer processes
            state = io.BytesIO(states[self.rank].numpy().tobytes())
            self.loaded = torch.load(state, "cpu", weights_only=True)

    def restore(self, resumes: bool) -> None:
        """Goes on from what was loaded: to be called when nothing more of the
        start draws random numbers.

        Arguments
        ---------
        resumes : bool
            Whether there is a checkpoint. One of an older version has no
            state of a run.
        """
        state = self.loaded
        if state is None:
            given = getattr(self.brain.hparams, "seed", None)
            if given is not None:
                # Not as the start left them: preparing data may have drawn.
                seed(draw(2**32, given, "training", self.rank))
            if not resumes and if_main_process():
                self._cut_log(0)
            return
        for adder, place in zip(self._adders(), state["noises"], strict=False):
            go_to(adder, place)
        if if_main_process():
            self._cut_log(state["log_bytes"])
        if self.as_many:  # else some have none, which all are to have alike
            self.brain.statistics.load_state_dict(
                state["statistics"], self.brain.device
            )
        self.brain.views = state["views"]
        # The stock checkpoint has that of the main process.
        loss = state.get("loss", self.brain.avg_train_loss)
        self.brain.avg_train_loss = loss
        set_random_state(state["random"])

    def _log_bytes(self) -> int:
        log = self._log()
        return log.stat().st_size if log and log.is_file() else 0

    def _log(self) -> pathlib.Path | None:
        train_logger = getattr(self.brain.hparams, "train_logger", None)
        path = getattr(train_logger, "save_file", None)
        return pathlib.Path(path) if path else None

    def _cut_log(self, size: int) -> None:
        """Takes back what was logged after the checkpoint."""
        log = self._log()
        if log and self._log_bytes() > size:
            if size == 0:  # of a run whose checkpoints are not here
                os.replace(log, f"{log}.before")
            else:
                os.truncate(log, size)

    def _adders(self) -> list[AddNoise | AddReverb]:
        augmenter = getattr(self.brain.hparams, "wav_augment", None)
        if not isinstance(augmenter, Augmenter):
            return []
        return [
            module
            for augmentation in augmenter.augmentations.values()
            for module in augmentation.modules()
            if isinstance(module, AddNoise | AddReverb)
        ]


def _as_tensor(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def random_state() -> dict[str, Any]:
    """Where the generators of random numbers are.

    Returns
    -------
    state : dict
        Of tensors, numbers and text, for ``torch.load(weights_only=True)``.

    Example
    -------
    >>> state = random_state()
    >>> first = torch.rand(1), random.random(), np.random.rand()
    >>> set_random_state(state)
    >>> first == (torch.rand(1), random.random(), np.random.rand())
    True
    """
    of_numpy: Any = np.random.get_state()
    name, keys, *rest = of_numpy
    cuda = torch.cuda.is_available()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *rest],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators there again.

    Arguments
    ---------
    state : dict
        Of ``random_state``. GPUs that it has not, or are not here, are left.
    """
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        for device, of_device in zip(devices, state["cuda"], strict=False):
            torch.cuda.set_rng_state(of_device, device)
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))


def seed(number: int) -> None:
    """Seeds all generators of random numbers.

    Not by SpeechBrain's ``seed_everything``: by the seed that it notes, all
    processes shuffle alike.

    Arguments
    ---------
    number : int
        Below 2^32.
    """
    torch.manual_seed(number)  # of GPUs too
    random.seed(number)
    np.random.seed(number)


def position(adder: AddNoise | AddReverb) -> dict[str, int] | None:
    """Where a stock augmentation is in the files that it adds.

    Arguments
    ---------
    adder : AddNoise or AddReverb

    Returns
    -------
    place : dict
        The size of its batches, and how many it has drawn of this pass; None
        where it has not begun.
    """
    if not hasattr(adder, "data_loader"):
        return None
    batches = getattr(adder, _iterator_of(adder))
    return {
        "batch_size": adder.data_loader.batch_size,
        "drawn": batches._num_yielded,
    }


def go_to(adder: AddNoise | AddReverb, place: dict[str, int] | None) -> None:
    """Takes it there: the batches before are passed over, not read.

    Arguments
    ---------
    adder : AddNoise or AddReverb
    place : dict
        Of ``position``.
    """
    if place is None:
        return
    # It makes its loader at the first batch, of that batch's size.
    if isinstance(adder, AddNoise):
        AddNoise._load_noise(adder, torch.ones(place["batch_size"], 1), 1)
    else:
        adder._load_rir(torch.zeros(1, 1))
    adder.data_loader._speechbrain_recovery_skip_to = place["drawn"]
    setattr(adder, _iterator_of(adder), iter(adder.data_loader))


def _iterator_of(adder: AddNoise | AddReverb) -> str:
    return "noise_data" if isinstance(adder, AddNoise) else "rir_data"
