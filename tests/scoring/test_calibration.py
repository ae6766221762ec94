"""Calibration where the truth is known, and against a search without slopes."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.metrics import min_dcf
from speechbrain_hyperbolic.scoring.calibration import (
    Calibration,
    quality_measures,
)


def gaussian_llrs(trials, seed):
    """Well calibrated by definition: with means +-a and variance 2 a, the
    log likelihood ratio of x is x itself.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=trials)
    return rng.normal(np.where(labels, 4, -4), math.sqrt(8)), labels


def loss(llr, labels, p):
    """The objective, term by term."""
    total, shift = 0.0, math.log(p / (1 - p))
    for of_class, share, sign in ((1, p, -1), (0, 1 - p, 1)):
        terms = [
            math.log1p(math.exp(sign * (x + shift)))
            for x in llr[labels == of_class]
        ]
        total += share * sum(terms) / len(terms)
    return total


def cllr(llr, labels):
    """In bits: Brummer and du Preez 2006."""
    return loss(llr, labels, 0.5) / math.log(2)


def actual_dcf(llr, labels, p):
    """Normalised, at the threshold that the prior gives."""
    accept = llr > -math.log(p / (1 - p))
    cost = p * np.mean(~accept[labels == 1])
    cost += (1 - p) * np.mean(accept[labels == 0])
    return cost / min(p, 1 - p)


def test_known_llrs_are_recovered():
    llr, labels = gaussian_llrs(100_000, 0)
    held_out, held_out_labels = gaussian_llrs(100_000, 1)
    for p in (0.01, 0.5):
        fitted = Calibration.fit(0.05 * llr + 0.3, labels, p_target=p)
        found = fitted(0.05 * held_out + 0.3)
        assert np.abs(found - held_out).max() < 0.8
        assert np.abs(found - held_out).mean() < 0.2
        assert cllr(found, held_out_labels) == pytest.approx(
            cllr(held_out, held_out_labels), rel=0.01
        )
        for at in (0.01, 0.05):
            target = found[held_out_labels == 1]
            least, _ = min_dcf(target, found[held_out_labels == 0], at)
            assert actual_dcf(found, held_out_labels, at) < least + 0.01


@pytest.mark.parametrize("p", [0.001, 0.01, 0.5, 0.9])
def test_no_search_finds_a_lower_loss(p):
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=80)
    score = rng.normal(size=80) + 1.5 * labels
    quality = rng.normal(1, 2, (80, 2)) + 0.5 * labels[:, None]
    features = np.column_stack([score, quality])
    fitted = Calibration.fit(features, labels, ["duration"], p)

    def objective(w):
        return loss(features @ w[:3] + w[3], labels, p)

    start = [*fitted.weights, fitted.offset]
    options = {"xatol": 1e-9, "fatol": 1e-15, "maxiter": 10_000}
    searched = minimize(
        objective, np.zeros(4), method="Nelder-Mead", options=options
    )
    assert objective(start) <= searched.fun + 1e-8
    near = minimize(objective, start, method="Nelder-Mead", options=options)
    np.testing.assert_allclose(start, near.x, rtol=1e-3, atol=1e-3)


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
    quality = quality_measures({"duration": sides})
    features = np.column_stack([scores, quality])
    fit, test = slice(0, 20_000), slice(20_000, None)
    alone = Calibration.fit(scores[fit], labels[fit], p_target=0.5)
    helped = Calibration.fit(features[fit], labels[fit], ["duration"], 0.5)
    ideal = cllr(llr[test], labels[test])
    assert cllr(alone(scores[test]), labels[test]) > ideal + 0.05
    assert cllr(helped(features[test]), labels[test]) < ideal + 0.005
    np.testing.assert_allclose(helped.weights, [1, 4, 0], atol=0.15)


def test_quality_measures_do_not_tell_the_sides_apart():
    enrol, test = np.array([1.0, 5.0, 2.0]), np.array([3.0, 4.0, 2.0])
    features = quality_measures(
        {"radius": (enrol, test), "duration": (test, enrol)}
    )
    expected = np.log([[1, 3], [4, 5], [2, 2]])
    np.testing.assert_array_equal(features, np.hstack([expected, expected]))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_wrong_quality_value_is_named(value):
    with pytest.raises(InputError, match="duration of test is .* in trial 2"):
        quality_measures({"duration": ([1.0, 1.0], [1.0, value])})


def test_wrong_quality_name():
    with pytest.raises(InputError, match="measure is 'snr', expected some of"):
        quality_measures({"snr": ([1.0], [1.0])})
    with pytest.raises(InputError, match="give each once"):
        Calibration([1.0] * 5, 0.0, ["radius", "radius"])


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
    assert fitted.weights[1:].tolist() == [0, 0]
    np.testing.assert_allclose(
        fitted(features), Calibration.fit(llr, labels)(llr)
    )


@pytest.mark.parametrize(
    "features, labels, message",
    [
        ([1.0, 2.0], [1, 1], "there are 2 target and 0 nontarget trials"),
        ([1.0, 2.0], [0, 0], "there are 0 target and 2 nontarget trials"),
        ([], [], "there are 0 target and 0 nontarget trials"),
        ([1.0, math.nan], [0, 1], "the score of trial 2 is nan"),
        ([1.0, 2.0], [0, 2], "a label is neither 0"),
        ([1.0, 2.0], [0, 1, 1], r"labels has shape \(3,\), expected .* of 2"),
        ([[1.0, 2.0, 3.0]], [0], r"features has shape \(1, 3\), expected"),
    ],
)
def test_unfit_trials(features, labels, message):
    with pytest.raises(InputError, match=message):
        Calibration.fit(features, labels)


@pytest.mark.parametrize("p", [0, 1, math.nan, "0.1"])
def test_prior_out_of_range(p):
    with pytest.raises(InputError, match=f"p_target is {p}, expected"):
        Calibration.fit([0.0, 1.0], [0, 1], p_target=p)


def test_wrong_features_of_a_trial():
    calibration = Calibration([1.0, 2.0, 3.0], 0.5, ["radius"])
    with pytest.raises(InputError, match=r"shape \(2, 1\), expected .* 3\]"):
        calibration([1.0, 2.0])
    with pytest.raises(InputError, match="the feature 2 of trial 1 is inf"):
        calibration([[1.0, 2.0, math.inf]])


def test_saved_and_loaded(tmp_path):
    calibration = Calibration([1 / 3, 2.0, -1e-9], 0.1, ["radius"], 0.05)
    calibration.save(tmp_path / "c.json")
    loaded = Calibration.load(tmp_path / "c.json")
    features = np.random.default_rng(0).normal(size=(9, 3))
    np.testing.assert_array_equal(loaded(features), calibration(features))
    assert loaded.quality == ("radius",) and loaded.p_target == 0.05


@pytest.mark.parametrize(
    "change, message",
    [
        ({"more": 1}, r"has \['more', 'offset', .*\], expected the fields"),
        ({"weights": [1.0, 2.0]}, r"weights has shape \(2,\), expected 3"),
        ({"weights": [1.0, math.nan, 2.0]}, "not a finite number"),
        ({"weights": 1.0}, "weights is not a list"),
        ({"weights": [1.0, "a", 2.0]}, "not a finite number"),
        ({"offset": math.inf}, "not a finite number"),
        ({"offset": None}, "not a finite number"),
        ({"quality": ["snr"]}, "quality measure is 'snr'"),
        ({"quality": "radius"}, "quality is not a list"),
        ({"p_target": 1.5}, "p_target is 1.5"),
    ],
)
def test_wrong_file_is_named(tmp_path, change, message):
    path = tmp_path / "c.json"
    Calibration([1.0, 2.0, 3.0], 0.1, ["radius"]).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "{", "[1]", "{}", "\ud800"])
def test_unreadable_file_is_named(tmp_path, text):
    path = tmp_path / "c.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="c.json"):
        Calibration.load(path)
