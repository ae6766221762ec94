"""One cell: a system is trained by the recipe's own Brain, and embeds."""

import random

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.encoder import CategoricalEncoder

from speechbrain_hyperbolic.dataio.preparation import Utterance, write_csv
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
    "number_of_epochs": 12,
    "lr_decay": 0.8,
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

    def of(part, speakers):
        chosen = set(speakers)
        rows_of = (row for row in rows if row["part"] == part)
        return [row for row in rows_of if row["speaker"] in chosen]

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
    train = of("train", speakers[:classes])
    dev = of("dev", speakers[:classes]) or train[:1]
    return train, dev, trials, len(of("train", speakers))


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


def train(seed, selected, frames, settings, hparams_file, folder):
    """Trains, or resumes, and returns the embeddings [N, D] of the trials'
    rows and some figures. The folder is left as the recipe leaves it.
    """
    keep_freed_memory()
    train_rows, dev_rows, trial_rows, crops = selected
    speakers = sorted({row["speaker"] for row in train_rows})
    overrides = {
        **settings["overrides"],
        "seed": seed,
        "output_folder": str(folder),
        "data_folder": "cached features",
        "out_n_neurons": len(speakers),
    }
    hparams = load_hparams(hparams_file, overrides)
    save_resolved(hparams_file, overrides, folder)
    labels = CategoricalEncoder()
    labels.update_from_iterable(speakers)
    labels.expect_len(len(speakers))
    save_labels(labels, hparams)
    spans = [(row, *row["spans"][0]) for row in train_rows]
    write_csv(
        [
            Utterance(r["id"], (b - a) / 100, r["path"], a, b, r["speaker"])
            for r, a, b in spans
        ],
        hparams["train_annotation"],
    )
    hparams["modules"]["compute_features"] = torch.nn.Identity()
    del hparams["wav_augment"]  # in its place, copies of the features
    counter = hparams["epoch_counter"]

    def draw():
        # Heads draw different amounts: masks start anew in each epoch.
        torch.manual_seed(seed * 1000 + counter.current)
        return np.random.default_rng([seed, counter.current])

    def loader(rows, *drawn):
        size = hparams["batch_size"], *drawn
        dataset = Crops(frames, rows, labels.encode_label, *size)
        return torch.utils.data.DataLoader(dataset, batch_size=None)

    brain = SpeakerBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={
            "device": settings["device"],
            "precision": settings["precision"],
            "ckpt_interval_minutes": 0,
            "noprogressbar": True,
        },
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(counter, loader(train_rows, draw, crops), loader(dev_rows))
    export_model(folder)
    names = "embedding_model", "classifier"
    AveragedPretrainer(
        hparams["save_folder"],
        hparams["epochs_to_average"],
        {name: hparams[name] for name in names},
    ).load_collected()
    embed = Encoder(
        torch.nn.Identity(),
        hparams["mean_var_norm"],
        hparams["embedding_model"],
        settings["device"],
    )
    judged = loader(train_rows[:: max(1, len(train_rows) // _JUDGED)])
    accuracy = _accuracy(embed, hparams["classifier"].eval(), judged)
    embeddings = [
        embed(torch.from_numpy(frames[a:b].astype(np.float32))[None])
        for a, b in (row["spans"][0] for row in trial_rows)
    ]
    return torch.cat(embeddings).numpy(), {
        "speakers": len(speakers),
        "utterances": len(train_rows),
        "crops": crops,
        "train_accuracy": accuracy,
    }


@torch.no_grad()
def _accuracy(embed, classifier, batches):
    """The share of training utterances whose own center is the nearest."""
    hits = []
    for batch in batches:
        outputs = classifier(embed(batch.sig.data)[:, None].to(embed.device))
        labels = batch.spk_id_encoded.data[:, 0]
        hits.append(outputs[:, 0].argmax(1).cpu() == labels)
    return round(float(torch.cat(hits).float().mean()), 4)
