"""Values out of range, and shapes that do not fit, of margins to heads."""

import pytest
import torch
from speechbrain.nnet.losses import AngularMargin

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.nnet.schedulers import MarginSchedule
from speechbrain_hyperbolic.nnet.similarity import make_similarity

NAN = float("nan")
HAM = MarginSoftmax(AdditiveMargin())
TOP_K = MarginSoftmax(AdditiveMargin(top_k=2), chunk_size=4)


def joint(*weights):
    return JointLoss([HAM, HAM], weights)


def head(**options):
    return HyperbolicClassifier(4, **options)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: AdditiveMargin(margin=NAN), "margin is nan, expected"),
        (lambda: AdditiveMargin(scale="x"), "scale is .* expected"),
        (lambda: AdditiveMargin(top_k=1.5), "top_k is 1.5, expected"),
        (lambda: AdditiveMargin(penalty=-1), "penalty is -1, expected"),
        (lambda: MarginSchedule(last_step=0), "first_step is 0"),
        (lambda: MarginSchedule(first_step=-1), "first_step is -1"),
        (lambda: MarginSchedule(end=-1), "margin is -1"),
        (lambda: make_similarity("exponential", curvature=0), "curvature is 0"),
        (lambda: make_similarity("smooth_cap", cap="3"), "cap is .* expected"),
        (lambda: make_similarity("smooth_cap", cap=20), "radius of at most 14"),
        (lambda: make_similarity("clip", embedding_scale=NAN), "scale is nan"),
        (lambda: make_similarity("clip", c=-1), "c is -1, expected"),
        (
            lambda: make_similarity("clip", learn_curvature=True),
            "learn_curvature is True, but map",
        ),
        (lambda: MarginSoftmax(AngularMargin()), "a margin of nnet.margins"),
        (lambda: MarginSoftmax(AdditiveMargin(), 0), "chunk_size is 0"),
        (lambda: HAM(torch.zeros(0, 1, 3), torch.zeros(0, 1)), "one row"),
        (lambda: joint("x"), "weights are"),
        (lambda: joint(1.0, -1.0), "weights are"),
        (lambda: joint(1, 1)(torch.zeros(1, 1, 3), None), "2, classes"),
        (
            lambda: head()(torch.zeros(1, 4), torch.zeros(1), TOP_K),
            "top_k is 2, expected 0",
        ),
        (lambda: head(map="ball"), "map is 'ball', expected one of clip"),
        (lambda: head(sub_centers="3"), "sub_centers is '3', expected"),
        (lambda: head()(torch.zeros(2, 7)), r"shape .2, 7., expected"),
        (lambda: head(device=5), "pass the number of speakers as out_neurons"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()
