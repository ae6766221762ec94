"""Training by one of the two scripts, in a process of its own.

Nothing of either script is changed: time is taken by the Brain's own hooks and
by those of its modules.
"""

import contextlib
import csv
import importlib.util
import io
import itertools
import logging
import multiprocessing
import os
import random
import resource
import time
from pathlib import Path
from typing import NamedTuple

import speechbrain as sb
import torch
from speechbrain.utils.seed import seed_everything

from speechbrain_hyperbolic import training
from speechbrain_hyperbolic.dataio.corpus import prepare_corpus
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.memory import keep_freed_memory

ROOT = Path(__file__).parents[2]
STOCK = "recipes/VoxCeleb/SpeakerRec/train_speaker_embeddings.py"
HPARAMS = ROOT / "hparams"
STOCK_AAM = Path(__file__).with_name("stock_aam_ecapa.yaml")


class Side(NamedTuple):
    """A script and what it is given.

    Arguments
    ---------
    script : str
        "stock" or "ours".
    hparams_file : pathlib.Path
    """

    script: str
    hparams_file: Path


def prepare(data_folder, work_folder, rows, sentence_len, seed=0):
    """Writes the CSV file that both scripts train on.

    It has as many rows as a run takes, drawn from the utterances that are not
    shorter than a crop, since the stock script stops at a shorter one.

    Arguments
    ---------
    data_folder : str or pathlib.Path
    work_folder : pathlib.Path
    rows : int
    sentence_len : float
        Seconds of a crop.
    seed : int

    Returns
    -------
    path : pathlib.Path
    """
    prepare_corpus(data_folder, work_folder / "save", test_speakers=())
    with open(work_folder / "save" / "train.csv", newline="") as file:
        found = list(csv.DictReader(file))
    found = [row for row in found if float(row["duration"]) > sentence_len]
    if not found:
        raise InputError(
            f"data_folder {data_folder} has no utterance of {sentence_len} s"
        )
    random.Random(seed).shuffle(found)
    drawn = itertools.islice(itertools.cycle(found), rows)
    # The stock script numbers the speakers as they come, this one as sorted.
    drawn = sorted(drawn, key=lambda row: row["spk_id"])
    path = work_folder / "train.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        for number, row in enumerate(drawn):
            writer.writerow(row | {"ID": f"{number}--{row['ID']}"})
    return path


def stock_script():
    """The stock script as a module."""
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    if not clone:
        raise InputError(
            "SPEECHBRAIN_CLONE is not set to a clone of SpeechBrain, whose "
            "recipe this compares with"
        )
    spec = importlib.util.spec_from_file_location("stock", Path(clone, STOCK))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Run:
    """A script's Brain and data, to be trained round by round.

    Arguments
    ---------
    side : Side
    overrides : dict
        Of the hparams file.
    device : str
    """

    def __init__(self, side, overrides, device):
        logging.disable(logging.INFO)
        hparams = load_hparams(side.hparams_file, overrides)
        hparams["prepare_noise_data"]()
        hparams["prepare_rir_data"]()
        if side.script == "stock":
            script = stock_script()
            self.data, *_ = script.dataio_prep(hparams)
        else:
            keep_freed_memory()  # as its script does
            script = training
            with open(hparams["train_annotation"], newline="") as file:
                speakers = {row["spk_id"] for row in csv.DictReader(file)}
            # The head has the outputs of a larger corpus.
            few = {"out_n_neurons": len(speakers)}
            self.data, *_ = training.make_datasets(hparams | few)
        self.options = hparams["dataloader_options"]
        self.seed = hparams["seed"]
        self.brain = marked(script.SpeakerBrain)(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts={"device": device, "noprogressbar": True},
        )

    def round(self):
        """Trains an epoch.

        Returns
        -------
        steps : list of dict
            Seconds of each batch by what they were spent on, and ``CPU``:
            those of all threads of the process, but not of its workers.
        losses : list of float
            Of each batch, by utterance.
        """
        brain = self.brain
        brain.steps, brain.losses = [], []
        # So that each round is the same training
        seed_everything(self.seed)
        brain.fit(range(1), self.data, train_loader_kwargs=dict(self.options))
        return brain.steps, brain.losses

    def loading(self):
        """Seconds to make a batch, what the workers do meanwhile."""
        options = self.options | {"num_workers": 0}
        loader = self.brain.make_dataloader(
            self.data, sb.Stage.TRAIN, **options
        )
        began = time.perf_counter()
        count = sum(1 for _ in loader)
        return (time.perf_counter() - began) / count


def marked(brain_class):
    """The Brain of a script, with marks where a part of a step ends."""

    class MarkedBrain(brain_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.steps, self.losses = [], []
            for module, part in (
                (self.hparams.wav_augment, "augmentation"),
                (self.modules.mean_var_norm, "features"),
                (self.modules.embedding_model, "encoder, forward"),
            ):
                module.register_forward_hook(
                    lambda *_, part=part: self.mark(part)
                )
            self.modules.embedding_model.register_forward_hook(self.watch)

        def watch(self, encoder, inputs, embeddings):
            embeddings.register_hook(
                lambda gradient: self.mark("head and loss, backward")
            )

        def mark(self, part):
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)
            now = time.perf_counter()
            self.steps[-1][part] = now - self.marked_at
            self.marked_at = now

        def batch_begins(self):
            self.marked_at = time.perf_counter()
            self.cpu_at = time.process_time()

        def on_stage_start(self, stage, epoch=None):
            super().on_stage_start(stage, epoch)
            self.batch_begins()

        def on_fit_batch_start(self, batch, should_step):
            super().on_fit_batch_start(batch, should_step)
            self.steps.append({})
            self.mark("waiting for data")

        def check_loss_isfinite(self, loss):
            self.mark("head and loss, forward")
            super().check_loss_isfinite(loss)

        def optimizers_step(self):
            self.mark("encoder, backward")
            super().optimizers_step()
            self.mark("optimizer")

        def on_fit_batch_end(self, batch, outputs, loss, should_step):
            super().on_fit_batch_end(batch, outputs, loss, should_step)
            self.losses.append(loss.item() / getattr(self, "views", 1))
            self.mark("other")
            self.steps[-1]["CPU"] = time.process_time() - self.cpu_at
            self.batch_begins()

    return MarkedBrain


# Of this process, see ``start``
_run = None


def start(*arguments):
    """Makes the Run of this process."""
    global _run
    # The workers of a script's data loader are forked; a spawned process would
    # spawn its own.
    multiprocessing.set_start_method("fork", force=True)
    with contextlib.redirect_stdout(io.StringIO()):
        _run = Run(*arguments)


def train():
    """A round of it."""
    return _run.round()


def load():
    """Its ``Run.loading``."""
    return _run.loading()


def peak():
    """Bytes: the most that was resident in this process."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
