"""Calibration where the truth is known, and its files."""

import json
import math

import numpy as np
import pytest

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.calibration import (
    Calibration,
    check_quality,
    features,
)
from speechbrain_hyperbolic.evaluation.metrics import cllr


def gaussian_llrs(trials, seed):
    """Calibrated ratios and labels: means +-a, variance 2 a."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=trials)
    return rng.normal(np.where(labels, 4, -4), math.sqrt(8)), labels


def classes(llr, labels):
    return llr[labels == 1], llr[labels == 0]


def test_quality_helps_where_scores_drift_with_it():
    """Scores of short utterances are higher here, whatever the label."""
    llr, labels = gaussian_llrs(40_000, 0)
    rng = np.random.default_rng(1)
    sides = np.exp(rng.normal(1.5, 0.7, (2, len(llr))))
    scores = llr - 4 * np.log(sides).min(0)
    columns = features(scores, {"duration": sides}, ["duration"])
    fit, test = slice(0, 20_000), slice(20_000, None)
    alone = Calibration.fit(columns[fit, :1], labels[fit], p_target=0.5)
    helped = Calibration.fit(columns[fit], labels[fit], ["duration"], 0.5)
    ideal = cllr(*classes(llr[test], labels[test]))
    assert cllr(*classes(alone(columns[test, :1]), labels[test])) > ideal + 0.05
    found = helped(columns[test])
    assert cllr(*classes(found, labels[test])) < ideal + 0.005
    np.testing.assert_allclose(helped.weights, [1, 4, 0], atol=0.15)


@pytest.mark.parametrize("gap", [1e-9, 1.0, 1e3])
def test_separable_classes_stay_finite(gap):
    scores = np.array([[-1.0], [0.0], [gap], [gap + 1]])
    llr = Calibration.fit(scores, [0, 0, 1, 1])(scores)
    assert np.isfinite(llr).all() and (np.diff(llr) > 0).all()
    assert llr.max() < 1000


BAD = {
    "no nontarget scores": lambda: Calibration.fit([[1], [2]], [1, 1]),
    "1 of 2 are NaN": lambda: Calibration.fit([[1], [math.nan]], [0, 1]),
    "quality measures are ['snr'], expected a list": lambda: check_quality(
        ["snr"]
    ),
    "quality measures are 'radius', expected a list": lambda: check_quality(
        "radius"
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(InputError) as caught:
        BAD[message]()
    assert message in str(caught.value)


def test_saved_as_json(tmp_path):
    calibration = Calibration([1 / 3, 2.0, -1e-9], 0.1, ["radius"], 0.05)
    calibration.save(tmp_path / "c.json")
    saved = json.loads((tmp_path / "c.json").read_text())
    assert Calibration(**saved) == calibration
