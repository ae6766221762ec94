"""One cell: a system is trained by the recipe's own Brain, and embeds."""

import csv
import random

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.encoder import CategoricalEncoder

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import Encoder
from speechbrain_hyperbolic.hparams import load_hparams, save_resolved
from speechbrain_hyperbolic.hub.export import export_model
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.checkpoints import AveragedPretrainer
from speechbrain_hyperbolic.training.datasets import save_labels
from speechbrain_hyperbolic.training.processes import keep_freed_memory

FOLDS = 5
FRAMES = 200  # of a crop
# Makes a cell short enough for one thread; --set changes it.
SMALL = {
    "channels": 96,
    "batch_size": 64,
    "number_of_epochs": 8,
    "lr_decay": 0.75,
}
# The heads compute in float32 all the same.
PRECISION = "bf16"
_JUDGED = 2000  # training utterances that the training accuracy is of


def select(rows, fold=None, classes=None):
    """Rows to train on, to validate on and to make trials of, and the number
    of crops in an epoch, which does not depend on the number of classes.

    Subsets of the classes are nested. With a fold, training speakers whom that
    training does not see make the trials, to choose settings by.
    """

    def of(part, *speakers):
        return [r for r in rows if r["part"] == part and r["speaker"] in speakers]

    trials = [row for row in rows if row["part"] == "test"]
    speakers = sorted({r["speaker"] for r in rows if r["part"] == "train"})
    random.Random(0).shuffle(speakers)
    if fold is not None:
        # A corpus that is only for training would make poor trials.
        tested = {row["corpus"] for row in trials}
        held_out = set(speakers[fold::FOLDS])
        trials = [r for r in rows if r["speaker"] in held_out]
        trials = [r for r in trials if r["corpus"] in tested]
        speakers = [s for s in speakers if s not in held_out]
    if classes and classes > len(speakers):
        raise InputError(
            f"classes is {classes}, but {len(speakers)} speakers train: pass "
            "a smaller number or all"
        )
    chosen = set(speakers[:classes])
    every = [r for r in rows if r["part"] == "train"]
    train = of("train", *chosen)
    return train, of("dev", *chosen) or train[:1], trials, len(every)


class Crops(torch.utils.data.IterableDataset):
    """The batches of an epoch, which depend on the seed and the epoch alone.

    ``draw`` gives the epoch's random generator; without one, each row gives
    the middle of its recording.
    """

    def __init__(self, frames, rows, label, batch_size, draw=None, crops=None):
        self.frames = frames
        self.rows = rows
        self.label = label
        self.draw = draw
        self.crops = crops or len(rows)
        self.batch_size = min(batch_size, self.crops)

    def __len__(self):
        # Batch normalization can't train on a last batch of one.
        whole, rest = divmod(self.crops, self.batch_size)
        return whole + bool(rest and not self.draw)

    def __iter__(self):
        generator = self.draw and self.draw()
        order = np.arange(self.crops) % len(self.rows)
        if generator:
            passes = -(-self.crops // len(self.rows))
            order = np.concatenate(
                [generator.permutation(len(self.rows)) for _ in range(passes)]
            )[: self.crops]
        for number in range(len(self)):
            start = number * self.batch_size
            chosen = order[start : start + self.batch_size]
            yield PaddedBatch(
                [self._crop(self.rows[i], generator) for i in chosen]
            )

    def _crop(self, row, generator):
        place, (start, stop) = 0.5, row["spans"][0]
        if generator:
            # Half of the crops are clean, as in the recipe.
            which, place, clean = generator.random(3)
            copies = row["spans"][1:]
            if clean > 0.5 and copies:
                start, stop = copies[int(which * len(copies))]
        start += int(place * (max(stop - start - FRAMES, 0) + 1))
        crop = self.frames[start : min(start + FRAMES, stop)]
        if len(crop) < FRAMES:
            crop = np.resize(crop, (FRAMES, crop.shape[1]))
        return {
            "id": row["id"],
            "sig": torch.from_numpy(crop.astype(np.float32)),
            "spk_id_encoded": torch.tensor([self.label(row["speaker"])]),
        }


def train(system, seed, selected, frames, settings, hparams_folder, folder):
    """Trains, or resumes, and returns the embeddings [N, D] of the trials'
    rows and figures of the training.

    The folder is left as the recipe leaves it, with its model folder.
    """
    keep_freed_memory()
    train_rows, dev_rows, trial_rows, crops = selected
    speakers = sorted({row["speaker"] for row in train_rows})
    hparams_file = hparams_folder / system.hparams
    overrides = {
        **settings["overrides"],
        "seed": seed,
        "output_folder": str(folder),
        "data_folder": "cached features",
        "out_n_neurons": len(speakers),
    }
    hparams = load_hparams(hparams_file, overrides)
    folder.mkdir(parents=True, exist_ok=True)
    save_resolved(hparams_file, overrides, folder)
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(speakers)
    encoder.expect_len(len(speakers))
    save_labels(encoder, hparams)
    _write_list(train_rows, hparams["train_annotation"])
    hparams["modules"]["compute_features"] = torch.nn.Identity()
    del hparams["wav_augment"]  # in its place, copies of the features
    counter = hparams["epoch_counter"]

    def draw():
        # Heads draw different amounts: masks start anew in each epoch.
        torch.manual_seed(seed * 1000 + counter.current)
        return np.random.default_rng([seed, counter.current])

    def loader(rows, *drawn):
        size, label = hparams["batch_size"], encoder.encode_label
        dataset = Crops(frames, rows, label, size, *drawn)
        return torch.utils.data.DataLoader(dataset, batch_size=None)

    device = settings["device"]
    brain = SpeakerBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={
            "device": device,
            "precision": settings["precision"],
            "ckpt_interval_minutes": 0,
            "noprogressbar": True,
        },
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(counter, loader(train_rows, draw, crops), loader(dev_rows))
    export_model(folder)
    AveragedPretrainer(
        hparams["save_folder"],
        hparams["epochs_to_average"],
        {name: hparams[name] for name in ("embedding_model", "classifier")},
    ).load_collected()
    embed = Encoder(
        torch.nn.Identity(),
        hparams["mean_var_norm"],
        hparams["embedding_model"],
        device,
    )
    classifier = hparams["classifier"].eval()
    accuracy = _accuracy(
        embed,
        classifier,
        loader(train_rows[:: max(1, len(train_rows) // _JUDGED)]),
    )
    whole = [frames[slice(*row["spans"][0])] for row in trial_rows]
    embeddings = [
        embed(torch.from_numpy(of.astype(np.float32))[None]) for of in whole
    ]
    figures = {
        "speakers": len(speakers),
        "utterances": len(train_rows),
        "crops": crops,
        "train_accuracy": accuracy,
    }
    return torch.cat(embeddings).numpy(), figures


@torch.no_grad()
def _accuracy(embed, classifier, batches):
    """The share of training utterances whose own center is the nearest."""
    hits = []
    for batch in batches:
        outputs = classifier(embed(batch.sig.data)[:, None].to(embed.device))
        labels = batch.spk_id_encoded.data[:, 0]
        hits.append(outputs[:, 0].argmax(1).cpu() == labels)
    return round(float(torch.cat(hits).float().mean()), 4)
