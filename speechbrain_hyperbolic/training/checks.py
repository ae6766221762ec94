"""What can be checked before a training begins, checked before it begins."""

import contextlib
import math
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import torch
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.errors import InputError, is_finite, message_of
from speechbrain_hyperbolic.hparams import HPARAMS, read_settings
from speechbrain_hyperbolic.inference.config import CONFIG
from speechbrain_hyperbolic.inference.model import check_device
from speechbrain_hyperbolic.training.monitor import summary_writer_class

logger = get_logger(__name__)

# key -> (the smallest value, whether it is an integer, what is expected)
_NUMBERS = {
    "batch_size": (1, True, "an integer of 1 or more"),
    "number_of_epochs": (1, True, "an integer of 1 or more"),
    "epochs_to_average": (1, True, "an integer of 1 or more"),
    "num_workers": (0, True, "an integer of 0 or more; 0: no workers"),
    "sample_rate": (1000, True, "a rate in Hz, such as 16000"),
    "sentence_len": (0.1, False, "seconds of speech, such as 2.015"),
    "lr": (1e-30, False, "a number > 0, such as 0.001"),
    "encoder_lr": (1e-30, False, "a number > 0, such as 0.0001"),
    "weight_decay": (0, False, "a number >= 0"),
    "channels": (1, True, "an integer of 1 or more, such as 1024"),
    "emb_dim": (1, True, "an integer of 1 or more, such as 192"),
}
# Files of a training and of a verification, which keep to their own folders
TRAIN_LOG, SCORE_FILE = "train_log.txt", "scores.txt"
# What lies in a run's folder that must outlive an error
_RESULTS = ("save/CKPT*", "save/skipped.txt", "diverged.json", SCORE_FILE)
# What a resumed run may change, besides names with "_folder"
_MAY_CHANGE = """
number_of_epochs num_workers skip_prep check_audio ckpt_interval_minutes
epochs_to_average pretrain_path verification_file train_log
""".split()


def check_training(settings: dict[str, Any], run_opts: Any) -> None:
    """Refuses settings with which the training would end in an error."""
    for key, (least, whole, expected) in _NUMBERS.items():
        value = settings.get(key, least)
        if isinstance(value, list):  # channels of an encoder's layers
            continue
        valid = is_finite(value) and value >= least
        if not valid or (whole and value != int(value)):
            raise InputError(f"{key} is {value}, expected {expected}")
    ratio = settings.get("split_ratio", [90, 10])
    valid = isinstance(ratio, list) and len(ratio) in (2, 3)
    if not (valid and all(is_finite(x) and x >= 0 for x in ratio) and ratio[0]):
        raise InputError(
            f"split_ratio is {ratio}, expected the shares of training and "
            "validation, such as [90, 10]"
        )
    if settings.get("tensorboard_folder"):
        summary_writer_class()
    device = check_device(run_opts["device"])
    for key in ("precision", "eval_precision"):
        # As in SpeechBrain, the command line comes before the hparams file.
        given = key in run_opts.overridden_args or key not in settings
        precision = run_opts[key] if given else settings[key]
        if precision == "fp16" and device == "cpu":
            raise InputError(
                f"{key} is fp16, which needs a GPU: pass --{key}=bf16 or fp32"
            )
    if run_opts["data_parallel_backend"] and not torch.cuda.is_available():
        raise InputError(
            "data_parallel_backend needs a GPU: leave it out; torchrun "
            "--nproc_per_node=N starts several processes"
        )


def check_space(hparams: dict[str, Any]) -> None:
    """Refuses a new run whose checkpoints don't fit on the disk."""
    checkpointer = hparams["checkpointer"]
    if checkpointer is None or checkpointer.list_checkpoints():
        return
    folder = pathlib.Path(hparams["save_folder"])
    modules = hparams["modules"].values()
    sizes = [p.numel() for module in modules for p in module.parameters()]
    # Adam keeps two numbers for each weight. Besides the last epochs there are
    # the best one, one within an epoch and the one that is being written.
    count = getattr(checkpointer, "keep_epochs", 1) + 3
    needed = 3 * 4 * math.fsum(sizes) * count
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} is on a disk with {free / 1e9:.3g} GB free, and the "
            f"checkpoints take {needed / 1e9:.3g} GB: free some space, pass "
            "another --output_folder, or a smaller --epochs_to_average"
        )


def check_resumable(
    hparams_file: StrPath, overrides: str | dict, hparams: dict[str, Any]
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
    changed = [
        f"{key} {then.get(key)} -> {now.get(key)}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
        and key not in _MAY_CHANGE
        and "_folder" not in key
        and not key.endswith("_annotation")
    ]
    if changed:
        told = ", ".join(changed)
        text = f"{saved.parent} is resumed with other settings: {told}"
        counter = hparams["epoch_counter"]
        if counter.current >= counter.limit:  # its settings would be replaced
            raise InputError(
                f"{text}. Nothing is left to train: pass another "
                "--output_folder, or more --number_of_epochs"
            )
        logger.warning(text)


@contextlib.contextmanager
def no_trace_if_refused(folder: StrPath, foreign: str) -> Iterator[None]:
    """Refuses another command's folder, and removes that of a refused run."""
    folder = pathlib.Path(os.path.abspath(folder))
    for name in (foreign, CONFIG):
        if (folder / name).is_file():
            raise InputError(
                f"output_folder {folder} holds another command's results "
                f"({name}): pass another --output_folder"
            )
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        yield
    except InputError:
        kept = any(any(folder.glob(pattern)) for pattern in _RESULTS)
        if missing and if_main_process() and not kept:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # others may use those above
                for parent in missing[1:]:
                    parent.rmdir()
        raise
