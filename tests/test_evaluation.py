"""The summary is made of the metrics, each tested on its own."""

import json

import numpy as np
import pytest

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import evaluate
from speechbrain_hyperbolic.metrics import (
    act_dcf,
    cllr,
    eer,
    min_cllr,
    min_dcf,
)
from speechbrain_hyperbolic.significance import bootstrap_intervals
from tests.test_significance import few, some_trials


def test_evaluate_sums_up():
    scores, labels, enrol, test = some_trials("usual")
    target, nontarget = scores[labels == 1], scores[labels == 0]
    plain = evaluate(scores, labels)
    assert plain == {
        "n_target": len(target),
        "n_nontarget": len(nontarget),
        "eer": eer(target, nontarget)[0],
        "eer_threshold": eer(target, nontarget)[1],
        "min_dcf_0.01": min_dcf(target, nontarget, 0.01)[0],
        "min_dcf_0.05": min_dcf(target, nontarget, 0.05)[0],
        "intervals": None,
    }
    full = evaluate(
        scores, labels == 1, enrol, test, replicates=30, level=0.9, seed=2
    )
    intervals = bootstrap_intervals(
        scores, labels, enrol, test, replicates=30, level=0.9, seed=2
    )
    assert full == {**plain, "intervals": intervals}
    assert json.loads(json.dumps(full))["eer"] == plain["eer"]


def test_calibrated_scores_are_judged_as_such():
    scores, labels, *_ = some_trials("usual")
    scores = scores - 3.0
    classes = scores[labels == 1], scores[labels == 0]
    priors = {"p_targets": (0.05, 0.5)}
    assert evaluate(scores, labels, **priors, calibrated=True) == {
        **evaluate(scores, labels, **priors),
        "act_dcf_0.05": act_dcf(*classes, 0.05),
        "act_dcf_0.5": act_dcf(*classes, 0.5),
        "cllr": cllr(*classes),
        "min_cllr": min_cllr(*classes),
    }


def test_nine_speakers_have_no_intervals():
    assert evaluate(*few(9), replicates=20)["intervals"] is None
    assert evaluate(*few(10), replicates=20)["intervals"] is not None


BAD = {
    "no target trials": lambda: evaluate([1, 2], [0, 0]),
    "1 of 2 are NaN": lambda: evaluate([1, np.nan], [0, 1]),
    "only one side": lambda: evaluate([1, 2], [0, 1], ["a", "b"]),
    "test_speakers has 3": lambda: evaluate(
        [1, 2], [0, 1], ["a", "b"], ["a", "b", "c"]
    ),
    "p_target is 1": lambda: evaluate([1, 2], [0, 1], p_targets=(0.5, 1)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(InputError, match=message):
        BAD[message]()
