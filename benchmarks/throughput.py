"""Training examples per second, by this package's script and by the stock's.

> SPEECHBRAIN_CLONE=/path/to/speechbrain OMP_NUM_THREADS=2 \
      python -m benchmarks.throughput --data_folder CORPUS

Both train the same encoder on the same utterances, with the same batches and
augmentation. Each has a process of its own, and they take turns.
"""

import argparse
import contextlib
import csv
import importlib.util
import io
import itertools
import logging
import multiprocessing
import os
import pathlib
import random
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.utils.seed import seed_everything

from benchmarks import commit, machine
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.training import brain, datasets
from speechbrain_hyperbolic.training.processes import keep_freed_memory

HPARAMS = pathlib.Path(__file__).parents[1] / "hparams"
STOCK = "recipes/VoxCeleb/SpeakerRec/train_speaker_embeddings.py"
SENTENCE = 2.015  # seconds of a crop
WARM_UP = 2  # batches of a round
# What is compared: the hparams files of the stock script and of ours. None is
# ours with the stock's classifier and AAM-Softmax.
ROWS = {
    "HAM-Softmax, ham_ecapa.yaml in both": ("ham", "ham"),
    "AAM-Softmax, stock head and loss against ours": (None, "aam"),
}


def prepare(data_folder, work_folder, rows):
    """Writes the CSV file of as many rows as a round takes.

    They are of utterances longer than a crop: the stock script stops at a
    shorter one.
    """
    prepare_corpus(data_folder, work_folder / "save", test_speakers=())
    with open(work_folder / "save" / "train.csv", newline="") as file:
        every = list(csv.DictReader(file))
    found = [row for row in every if float(row["duration"]) > SENTENCE]
    if not found:
        raise InputError(
            f"data_folder {data_folder} has no utterance of {SENTENCE} s"
        )
    random.Random(0).shuffle(found)
    drawn = itertools.islice(itertools.cycle(found), rows)
    # The stock script numbers the speakers as they come, ours sorts them.
    drawn = sorted(drawn, key=lambda row: row["spk_id"])
    path = work_folder / "train.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        for number, row in enumerate(drawn):
            writer.writerow(row | {"ID": f"{number}--{row['ID']}"})
    return str(path)


def stock_script():
    """The stock script as a module."""
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    if not clone:
        raise InputError(
            "SPEECHBRAIN_CLONE is not set: name a clone of SpeechBrain, whose "
            "recipe this compares with"
        )
    path = pathlib.Path(clone, STOCK)
    if not path.is_file():
        raise InputError(f"{path} is missing: expected a clone of SpeechBrain")
    spec = importlib.util.spec_from_file_location("stock", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def timed(brain_class):
    """The Brain of a script, which notes when each batch ended."""

    class TimedBrain(brain_class):
        ends, losses = (), ()

        def on_fit_batch_end(self, batch, outputs, loss, should_step):
            super().on_fit_batch_end(batch, outputs, loss, should_step)
            # Reading the loss waits for the device.
            self.losses.append(float(loss.detach()))
            self.ends.append(time.perf_counter())

    return TimedBrain


class Run:
    """A script's Brain and data, trained round by round."""

    def __init__(self, stock, loss, overrides, device):
        # The workers of a data loader are forked, as in a script.
        multiprocessing.set_start_method("fork", force=True)
        logging.disable(logging.INFO)
        file = HPARAMS / f"{loss or 'aam'}_ecapa.yaml"
        hparams = load_hparams(file, overrides)
        if loss is None:
            head = Classifier(hparams["emb_dim"], out_neurons=5994)
            margin = AdditiveAngularMargin(margin=0.2, scale=30)
            hparams["modules"]["classifier"] = hparams["classifier"] = head
            hparams["compute_cost"] = LogSoftmaxWrapper(margin)
        hparams["prepare_noise_data"]()
        hparams["prepare_rir_data"]()
        if stock:
            script = stock_script()
            self.data, *_ = script.dataio_prep(hparams)
        else:
            keep_freed_memory()  # as our script does
            script = brain
            with open(hparams["train_annotation"], newline="") as file:
                speakers = {row["spk_id"] for row in csv.DictReader(file)}
            # The head has the outputs of a larger corpus.
            few = {"out_n_neurons": len(speakers)}
            self.data, *_ = datasets.make_datasets(hparams | few)
        self.hparams = hparams
        self.brain = timed(script.SpeakerBrain)(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts={"device": device, "noprogressbar": True},
        )

    def round(self):
        """Examples per second of an epoch, and the loss of its first batch."""
        self.brain.ends, self.brain.losses = [], []
        seed_everything(self.hparams["seed"])  # each round is the same training
        options = dict(self.hparams["dataloader_options"])
        self.brain.fit(range(1), self.data, train_loader_kwargs=options)
        ends = self.brain.ends[WARM_UP - 1 :]
        examples = options["batch_size"] * (len(ends) - 1)
        return examples / (ends[-1] - ends[0]), self.brain.losses[0]


_run = None  # the Run of a process


def start(*arguments):
    global _run
    with contextlib.redirect_stdout(io.StringIO()):
        _run = Run(*arguments)


def train():
    return _run.round()


def compare(losses, overrides, work_folder, rounds, device):
    """What the rounds of the stock script and of ours give."""
    pools, found = [], ([], [])
    try:
        for number, loss in enumerate(losses):
            output = work_folder / f"{'-'.join(map(str, losses))}-{number}"
            (output / "save").mkdir(parents=True)
            spawn = multiprocessing.get_context("spawn")
            pools.append(ProcessPoolExecutor(1, spawn))
            own = overrides | {"output_folder": str(output)}
            pools[-1].submit(start, number == 0, loss, own, device).result()
        for _ in range(rounds):
            for pool, results in zip(pools, found, strict=True):
                results.append(pool.submit(train).result())
    finally:
        for pool in pools:
            pool.shutdown()
    return found


def main():
    """Reads the command line and prints a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=10)
    options = parser.parse_args()
    stock_script()  # fails now rather than in a process
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rows = (WARM_UP + options.batches) * options.batch_size
        table = prepare(options.data_folder, folder, rows)
        overrides = {
            "data_folder": options.data_folder,
            "train_annotation": table,
            "valid_annotation": table,
            "channels": options.channels,
            "batch_size": options.batch_size,
            "num_workers": options.num_workers,
            "sentence_len": SENTENCE,
            "noise_source": "generate",
            "rir_source": "generate",
            "data_folder_noise": str(folder / "sounds"),
        }
        print(f"Commit {commit()}; {machine(options.device)}; {options}\n")
        print("| what | stock, examples/s | ours | ours / stock | ", end="")
        print(
            "loss of the first batch, stock | ours |\n|---|---|---|---|---|---|"
        )
        for what, losses in ROWS.items():
            each = overrides, folder, options.rounds, options.device
            stock, ours = compare(losses, *each)
            ratios = [b[0] / a[0] for a, b in zip(stock, ours, strict=True)]
            speeds = [statistics.median(x[0] for x in s) for s in (stock, ours)]
            print(
                f"| {what} | {speeds[0]:.1f} | {speeds[1]:.1f} | "
                f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to "
                f"{max(ratios):.2f}) | {stock[0][1]:.3f} | {ours[0][1]:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    with exit_on_error():
        main()
