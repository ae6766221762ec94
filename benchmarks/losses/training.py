"""One cell: a system, a seed, a part of the speakers kept for the trials."""

import csv
import random

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.encoder import CategoricalEncoder

from speechbrain_hyperbolic.checkpoints import AveragedPretrainer
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.export import export_model
from speechbrain_hyperbolic.hparams import load_hparams, nest_overrides
from speechbrain_hyperbolic.scoring.extraction import Encoder
from speechbrain_hyperbolic.significance import MIN_SPEAKERS
from speechbrain_hyperbolic.training import (
    SpeakerBrain,
    check_resumable,
    save_labels,
)

FOLDS = 5
FRAMES = 200
# What makes the recipe small enough: a cell takes minutes on a core.
SMALL = {
    "channels": 64,
    "batch_size": 32,
    "number_of_epochs": 15,
    "lr_decay": 0.85,
}
# As --precision of the recipe: the heads compute in float32 all the same
PRECISION = "bf16"


def fold_of(features):
    """Training speaker -> fold, for choices that the test must not see."""
    speakers = sorted(
        {row["speaker"] for row in features.rows if row["part"] != "test"}
    )
    random.Random(0).shuffle(speakers)
    return {s: number % FOLDS for number, s in enumerate(speakers)}


def select(features, fold=None):
    """Rows that train, that are for the error rate of epochs, and trials.

    Arguments
    ---------
    features : Features
    fold : int
        The training speakers that make the trials; None: the test speakers
        do, and all training speakers train.

    Returns
    -------
    train, dev, trials : list of dict
    """
    rows, held_out = features.rows, set()
    if fold is not None:
        folds = fold_of(features)
        held_out = {s for s, number in folds.items() if number == fold}
        trials = [
            row
            for row in rows
            if row["speaker"] in held_out and row["copy"] == 0
        ]
    else:
        trials = [row for row in rows if row["part"] == "test"]
    kept = [row for row in rows if row["speaker"] not in held_out]
    train = [row for row in kept if row["part"] == "train"]
    return train, [row for row in kept if row["part"] == "dev"], trials


class Crops(torch.utils.data.IterableDataset):
    """The batches of an epoch, a function of the seed and the epoch alone.

    Every loss sees the same crops of the same copies in the same order.

    Arguments
    ---------
    frames : np.ndarray
        Shape [frames, mels].
    rows : list of dict
        Copies of an utterance are next to each other.
    label : callable
        Speaker -> number.
    batch_size : int
    draw : callable
        Gives the epoch's random generator; None: the middle of each row.
    """

    def __init__(self, frames, rows, label, batch_size, draw=None):
        self.frames = frames
        self.label = label
        self.batch_size = batch_size
        self.draw = draw
        utterances = {}
        for row in rows:
            utterances.setdefault(row["id"], []).append(row)
        self.utterances = list(utterances.values())

    def __len__(self):
        return len(self._starts())

    def __iter__(self):
        order = np.arange(len(self.utterances))
        generator = self.draw and self.draw()
        if generator:
            generator.shuffle(order)
        for start in self._starts():
            yield PaddedBatch(
                [
                    self._crop(self.utterances[number], generator)
                    for number in order[start : start + self.batch_size]
                ]
            )

    def _starts(self):
        starts = range(0, len(self.utterances), self.batch_size)
        # Batch normalisation can't train on one.
        alone = self.draw and len(self.utterances) - starts[-1] == 1
        return starts[:-1] if alone else starts

    def _crop(self, copies, generator):
        place, row = 0.5, copies[0]
        if generator:
            # Half of the crops are clean, as in the recipe.
            which, place, clean = generator.random(3)
            if clean > 0.5:
                row = copies[
                    min(1 + int(which * (len(copies) - 1)), len(copies) - 1)
                ]
        slack = row["stop"] - row["start"] - FRAMES
        start = row["start"] + int(place * (max(slack, 0) + 1))
        crop = self.frames[start : min(start + FRAMES, row["stop"])]
        if len(crop) < FRAMES:
            crop = np.resize(crop, (FRAMES, crop.shape[1]))
        return {
            "id": row["id"],
            "sig": torch.from_numpy(crop.astype(np.float32)),
            "spk_id_encoded": torch.tensor([self.label(row["speaker"])]),
        }


def train(system, seed, features, fold, hparams_folder, folder):
    """Trains a system by the recipe's Brain, on cached features.

    A cell that was interrupted goes on from its last epoch. The folder is
    what the recipe makes of a training, model folder included.

    Arguments
    ---------
    system : System
    seed : int
    features : Features
    fold : int or None
    hparams_folder : pathlib.Path
    folder : pathlib.Path

    Returns
    -------
    embeddings : np.ndarray
        Of the trials' rows, whole utterances, shape [N, D].
    rows : list of dict
        The trials' rows.
    resumed : bool
        Whether a training went on.

    Raises
    ------
    InputError
        If the folder has a training of other settings, or there are too few
        speakers for trials.
    """
    torch.manual_seed(seed)
    train_rows, dev_rows, trial_rows = select(features, fold)
    tested = {row["speaker"] for row in trial_rows}
    if len(tested) < MIN_SPEAKERS:
        raise InputError(
            f"the trials are of {len(tested)} speakers: intervals need "
            f"{MIN_SPEAKERS} or more"
        )
    speakers = sorted({row["speaker"] for row in train_rows})
    hparams_file = hparams_folder / system.hparams
    given = {
        **SMALL,
        **system.overrides,
        "seed": seed,
        "output_folder": str(folder),
        "data_folder": "cached features",
        "out_n_neurons": len(speakers),
    }
    utterances = len({row["id"] for row in train_rows})
    if "last_step:" in hparams_file.read_text():
        # The margin grows for a third of the training.
        steps = -(-utterances // SMALL["batch_size"])
        given["last_step"] = steps * SMALL["number_of_epochs"] // 3
    overrides = nest_overrides(hparams_file, given)
    hparams = load_hparams(hparams_file, overrides)
    resumed = check_resumable(hparams_file, overrides, hparams)
    sb.create_experiment_directory(folder, hparams_file, overrides)
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(speakers)
    encoder.expect_len(len(speakers))
    save_labels(encoder, hparams)
    _write_list(train_rows, hparams["train_annotation"])
    hparams["modules"]["compute_features"] = torch.nn.Identity()
    del hparams["wav_augment"]  # the copies of the features
    counter = hparams["epoch_counter"]

    def draw():
        # Of the masks: not what the head has drawn of the seed for itself.
        torch.manual_seed(seed * 1000 + counter.current)
        return np.random.default_rng([seed, counter.current])

    size = hparams["batch_size"]
    loaders = [
        torch.utils.data.DataLoader(
            Crops(features.frames, rows, encoder.encode_label, size, drawn),
            batch_size=None,
        )
        for rows, drawn in ((train_rows, draw), (dev_rows, None))
    ]
    brain = SpeakerBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={"precision": PRECISION, "ckpt_interval_minutes": 0},
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(counter, *loaders)
    model = export_model(hparams_file, overrides, hparams, folder / "model")
    AveragedPretrainer(
        model, loadables={"embedding_model": hparams["embedding_model"]}
    ).load_collected()
    embed = Encoder(
        torch.nn.Identity(),
        hparams["mean_var_norm"],
        hparams["embedding_model"],
    )
    embeddings = [
        embed(
            torch.from_numpy(
                features.frames[row["start"] : row["stop"]].astype(np.float32)
            )[None]
        )
        for row in trial_rows
    ]
    return torch.cat(embeddings).numpy(), trial_rows, resumed


def _write_list(rows, path):
    """Who has trained, for those who test the model on another corpus."""
    utterances = {row["id"]: row["speaker"] for row in rows}
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["ID", "spk_id"])
        writer.writerows(utterances.items())
