"""The names behind the tests of kept behavior, and nothing else."""

import csv

import numpy as np
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

from recipes.OwnCorpus.synthetic_speech import (
    make_synthetic_corpus,  # noqa: F401
)
from speechbrain_hyperbolic import geometry
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus
from speechbrain_hyperbolic.evaluation import extraction, metrics
from speechbrain_hyperbolic.evaluation.bootstrap import bootstrap_intervals
from speechbrain_hyperbolic.evaluation.calibration import Calibration
from speechbrain_hyperbolic.evaluation.normalization import (
    cohort_statistics,
    normalize,
)
from speechbrain_hyperbolic.evaluation.scores import make_score
from speechbrain_hyperbolic.inference.model import measure_thresholds
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin


def head(size, classes, c):
    return HyperbolicClassifier(size, out_neurons=classes, c=c)


def cost(margin, scale, chunk_size=None):
    return MarginSoftmax(AdditiveMargin(margin, scale), chunk_size)


def chunked_loss(head, embeddings, labels, chunk_size):
    return head(embeddings, labels, cost(0.2, 30.0, chunk_size))


def exponential_distance(x, y):
    return geometry.scaled_distance(x, y, geometry.exponential, 1.0)


def eer(target, nontarget):
    return metrics.eer(target, nontarget)[0]


def min_dcf(target, nontarget, p_target):
    return metrics.min_dcf(target, nontarget, p_target)[0]


def bootstrap(scores, labels, enroll, test):
    intervals = bootstrap_intervals(
        scores, labels, enroll, test, replicates=200
    )
    return tuple(intervals["eer"])


def as_norm(enroll, test, cohort, top_k):
    score = make_score("cosine")
    enroll, test, cohort = (
        score.prepare(torch.tensor(v, dtype=torch.float32).unsqueeze(1))
        for v in (enroll, test, cohort)
    )
    shape = len(enroll[0]), len(test[0])
    rows, columns = (v.ravel() for v in np.indices(shape))
    raw = score.trials(enroll, test, rows, columns)
    sides = [
        cohort_statistics(score, side, cohort, top_k) for side in (enroll, test)
    ]
    return normalize("as-norm", raw, rows, columns, *sides).reshape(shape)


def calibrate(scores, labels):
    return Calibration.fit(scores[:, None], labels)(scores[:, None])


def thresholds(target, nontarget):
    measured = measure_thresholds(target, nontarget)
    return measured.eer, measured.false_accepts["0.01"]


def small_modules():
    torch.manual_seed(0)
    return (
        Fbank(n_mels=80),
        InputNormalization(norm_type="sentence", std_norm=False),
        ECAPA_TDNN(
            80,
            channels=[16, 16, 16, 16, 48],
            attention_channels=8,
            lin_neurons=8,
        ),
    )


def extract(modules, paths, cache):
    embeddings = extraction.extract(
        extraction.Encoder(*modules), paths, cache_folder=cache
    )
    return embeddings.views.numpy()


def export_arguments(run, folder):
    return ["export", run, folder, "--verification", run / "trained"]


def with_hostile_class(config):
    return config.replace(
        "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN", "subprocess.Popen"
    )


def prepared(corpus, save):
    save.mkdir()
    prepare_corpus(corpus, save, test_speakers=set(), split_ratio=[50, 50])
    rows = []
    for name in ("train", "dev"):
        with open(save / f"{name}.csv", newline="") as file:
            rows += csv.DictReader(file)
    return rows
