"""Calibration where the truth is known, and its files."""

import json
import math

import numpy as np
import pytest

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.calibration import (
    Calibration,
    check_quality,
    quality_measures,
)
from speechbrain_hyperbolic.evaluation.metrics import act_dcf, cllr, min_dcf


def gaussian_llrs(trials, seed):
    """Calibrated ratios and labels: means +-a, variance 2 a."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=trials)
    return rng.normal(np.where(labels, 4, -4), math.sqrt(8)), labels


def classes(llr, labels):
    return llr[labels == 1], llr[labels == 0]


def test_known_ratios_are_recovered():
    llr, labels = gaussian_llrs(100_000, 0)
    held_out, held_out_labels = gaussian_llrs(100_000, 1)
    for p in (0.01, 0.5):
        fitted = Calibration.fit(0.05 * llr + 0.3, labels, p_target=p)
        found = fitted(0.05 * held_out + 0.3)
        assert np.abs(found - held_out).max() < 0.8
        assert np.abs(found - held_out).mean() < 0.2
        assert cllr(*classes(found, held_out_labels)) == pytest.approx(
            cllr(*classes(held_out, held_out_labels)), rel=0.01
        )
        for at in (0.01, 0.05):
            least, _ = min_dcf(*classes(found, held_out_labels), at)
            assert act_dcf(*classes(found, held_out_labels), at) < least + 0.01


@pytest.mark.parametrize("scale, shift", [(1e-6, 0), (100, -7), (-3, 1e4)])
def test_affine_maps_of_the_score_change_nothing(scale, shift):
    llr, labels = gaussian_llrs(500, 0)
    expected = Calibration.fit(llr, labels)(llr)
    mapped = scale * llr + shift
    found = Calibration.fit(mapped, labels)(mapped)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_quality_helps_where_scores_drift_with_it():
    """Scores of short utterances are higher here, whatever the label."""
    llr, labels = gaussian_llrs(40_000, 0)
    rng = np.random.default_rng(1)
    sides = np.exp(rng.normal(1.5, 0.7, (2, len(llr))))
    scores = llr - 4 * np.log(sides).min(0)
    features = np.column_stack([scores, quality_measures({"duration": sides})])
    fit, test = slice(0, 20_000), slice(20_000, None)
    alone = Calibration.fit(scores[fit], labels[fit], p_target=0.5)
    helped = Calibration.fit(features[fit], labels[fit], ["duration"], 0.5)
    ideal = cllr(*classes(llr[test], labels[test]))
    assert cllr(*classes(alone(scores[test]), labels[test])) > ideal + 0.05
    found = helped(features[test])
    assert cllr(*classes(found, labels[test])) < ideal + 0.005
    np.testing.assert_allclose(helped.weights, [1, 4, 0], atol=0.15)


def test_quality_measures_do_not_tell_the_sides_apart():
    enroll, test = np.array([1.0, 5.0, 2.0]), np.array([3.0, 4.0, 2.0])
    features = quality_measures(
        {"radius": (enroll, test), "duration": (test, enroll)}
    )
    expected = np.log([[1, 3], [4, 5], [2, 2]])
    np.testing.assert_array_equal(features, np.hstack([expected, expected]))


@pytest.mark.parametrize("gap", [1e-6, 1.0, 1e3])
def test_separable_classes_stay_finite(gap):
    scores = np.array([-1.0, 0.0, gap, gap + 1])
    llr = Calibration.fit(scores, [0, 0, 1, 1])(scores)
    assert np.isfinite(llr).all() and (np.diff(llr) > 0).all()
    assert llr.max() < 1000
    if gap >= 1:
        assert llr[1] < -math.log(0.01 / 0.99) < llr[2]


def test_a_constant_feature_has_no_weight():
    llr, labels = gaussian_llrs(500, 0)
    features = np.column_stack([llr, np.full((500, 2), 0.1)])
    fitted = Calibration.fit(features, labels, ["radius"])
    np.testing.assert_allclose(fitted.weights[1:], 0, atol=1e-9)
    np.testing.assert_allclose(
        fitted(features), Calibration.fit(llr, labels)(llr)
    )


BAD = {
    "there are no nontarget scores": lambda: Calibration.fit([1, 2], [1, 1]),
    "scores: 1 of 2 are NaN": lambda: Calibration.fit([1, math.nan], [0, 1]),
    "features has shape (1, 3), expected [trials, 1]": lambda: Calibration.fit(
        [[1.0, 2.0, 3.0]], [0]
    ),
    "p_target is 0.1, expected a number": lambda: Calibration.fit(
        [0, 1], [0, 1], p_target="0.1"
    ),
    "quality measures are ['snr'], expected a list": lambda: check_quality(
        ["snr"]
    ),
    "quality measures are 'radius', expected a list": lambda: check_quality(
        "radius"
    ),
    "duration of test is 0.0 in trial 2": lambda: quality_measures(
        {"duration": ([1.0, 1.0], [1.0, 0.0])}
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(InputError) as caught:
        BAD[message]()
    assert message in str(caught.value)


def test_saved_and_loaded(tmp_path):
    calibration = Calibration([1 / 3, 2.0, -1e-9], 0.1, ["radius"], 0.05)
    calibration.save(tmp_path / "c.json")
    loaded = Calibration.load(tmp_path / "c.json")
    assert loaded == calibration
    features = np.random.default_rng(0).normal(size=(9, 3))
    np.testing.assert_array_equal(loaded(features), calibration(features))


WRONG = [
    *({"more": 1}, {"weights": [1.0, 2.0]}, {"weights": [1.0, "a", 2.0]}),
    *({"weights": 1.0}, {"offset": math.inf}, {"quality": ["snr"]}),
    *({"p_target": 1.5}, "{", "[1]"),
]


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_file_is_named(tmp_path, change):
    path = tmp_path / "c.json"
    Calibration([1.0, 2.0, 3.0], 0.1, ["radius"]).save(path)
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text()) | change)
    path.write_text(change)
    with pytest.raises(InputError, match=f"calibration {path} ") as caught:
        Calibration.load(path)
    assert "\n" not in str(caught.value)
