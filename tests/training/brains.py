"""A SpeakerBrain that trains in no time, on vectors instead of speech."""

import functools
import types

import torch
from speechbrain.dataio.batch import PaddedData
from speechbrain.nnet.losses import classification_error
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.metric_stats import MetricStats
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_hyperbolic.lobes.classifiers import (
    HyperbolicClassifier,
    JointClassifier,
)
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.checkpoints import RecentCheckpointer
from speechbrain_hyperbolic.training.finetuning import fine_tuning_optimizer

DIM, SPEAKERS, BATCH = 6, 5, 8
ERROR = functools.partial(classification_error, reduction="batch")


class Batch(types.SimpleNamespace):
    def to(self, device, non_blocking=False):
        return self


def make_batches(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for number in range(count):
        vectors = torch.randn(BATCH, DIM, generator=generator)
        labels = torch.randint(SPEAKERS, (BATCH, 1), generator=generator)
        ids = [f"{seed}-{number}-{row}" for row in range(BATCH)]
        batches.append(
            Batch(
                id=ids,
                sig=PaddedData(vectors, torch.ones(BATCH)),
                spk_id_encoded=PaddedData(labels, torch.ones(BATCH)),
            )
        )
    return batches


class Same(torch.nn.Module):
    def forward(self, x, lengths=None):
        return x


class Encoder(torch.nn.Linear):
    def forward(self, x, lengths=None):
        return super().forward(x).unsqueeze(1)


class Doubles:
    """An augmentation that gives two views of each utterance."""

    def __call__(self, waveforms, lengths):
        both = torch.cat([waveforms, 1.1 * waveforms])
        return both, torch.cat([lengths, lengths])

    def replicate_labels(self, labels):
        return torch.cat([labels, labels])


def ham(margin=0.2, chunk_size=None):
    torch.manual_seed(2)
    head = HyperbolicClassifier(DIM, out_neurons=SPEAKERS)
    return head, MarginSoftmax(AdditiveMargin(margin), chunk_size)


def joint(margin=0.2, chunk_size=None):
    """Two heads, and one margin for both."""
    head, cost = ham(margin, chunk_size)
    other = HyperbolicClassifier(DIM, out_neurons=SPEAKERS, map="cosine")
    cost = JointLoss(
        [cost, MarginSoftmax(AdditiveMargin(margin), chunk_size)], [0.7, 0.3]
    )
    return JointClassifier([head, other]), cost


def make_brain(
    folder,
    classifier,
    cost,
    epochs=1,
    run_opts=None,
    brain_class=SpeakerBrain,
    fine_tuning=None,
    **hparams,
):
    """With ``fine_tuning``, the options of ``fine_tuning_optimizer``."""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    encoder = Encoder(DIM, DIM)
    counter = hparams.setdefault("epoch_counter", EpochCounter(epochs))
    opt_class = functools.partial(torch.optim.SGD, lr=0.01)
    if fine_tuning is not None:
        opt_class = functools.partial(
            fine_tuning_optimizer,
            opt_class=opt_class,
            module=encoder,
            epoch_counter=counter,
            **fine_tuning,
        )
    return brain_class(
        modules={
            "compute_features": Same(),
            "mean_var_norm": Same(),
            "embedding_model": encoder,
            "classifier": classifier,
        },
        opt_class=opt_class,
        hparams={
            "classifier": classifier,
            "compute_cost": cost,
            "lr_annealing": lambda epoch: (0.01, 0.01),
            "train_logger": FileTrainLogger(folder / "train_log.txt"),
            "error_stats": functools.partial(MetricStats, metric=ERROR),
            "output_folder": folder,
            **hparams,
        },
        run_opts={"device": "cpu", "noprogressbar": True, **(run_opts or {})},
        checkpointer=RecentCheckpointer(
            folder / "save",
            recoverables={
                "encoder": encoder,
                "classifier": classifier,
                "counter": counter,
            },
        ),
    )


def fit(brain, steps=4, batches=None):
    train, valid = (
        torch.utils.data.DataLoader(data, collate_fn=lambda batches: batches[0])
        for data in (batches or make_batches(steps), make_batches(1, seed=9))
    )
    brain.fit(brain.hparams.epoch_counter, train, valid)
    return brain
