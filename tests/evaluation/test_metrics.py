"""The metrics against loops over all thresholds; calibration."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.calibration import Calibration, features
from speechbrain_hyperbolic.evaluation.metrics import (
    act_dcf,
    cllr,
    eer,
    error_rates,
    min_dcf,
    split_trials,
)

TIED = st.lists(st.integers(-4, 4), min_size=1, max_size=30)
FINE = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30)
SCORES = st.one_of(TIED, FINE)
PRIORS = st.floats(0.001, 0.999)


def loop_rates(target, nontarget):
    """(threshold, p_miss, p_fa) by counting, as exact fractions."""
    rates = []
    for t in sorted({-np.inf, *target, *nontarget}):
        misses = Fraction(sum(s <= t for s in target), len(target))
        alarms = Fraction(sum(s > t for s in nontarget), len(nontarget))
        rates.append((t, misses, alarms))
    return rates


@given(SCORES, SCORES)
def test_error_rates_count_every_threshold(target, nontarget):
    """Values of the equal error rate: tests/kept."""
    expected = loop_rates(target, nontarget)
    points = np.transpose(error_rates(target, nontarget))
    assert points.tolist() == [[float(x) for x in row] for row in expected]
    gaps = {t: abs(m - f) for t, m, f in expected}
    _, threshold = eer(target, nontarget)
    assert np.isfinite(threshold) and gaps[threshold] == min(gaps.values())


def cost_at(threshold, target, nontarget, p_target):
    misses = sum(s <= threshold for s in target) / len(target)
    alarms = sum(s > threshold for s in nontarget) / len(nontarget)
    cost = p_target * misses + (1 - p_target) * alarms
    return cost / min(p_target, 1 - p_target)


@given(SCORES, SCORES, PRIORS)
def test_costs_are_counted(target, nontarget, p_target):
    """The least, and that at Bayes' threshold."""
    trials = target, nontarget, p_target
    value, threshold = min_dcf(*trials)
    costs = [cost_at(t, *trials) for t in (-np.inf, *target, *nontarget)]
    assert value == pytest.approx(min(costs), abs=1e-12)
    assert cost_at(threshold, *trials) == pytest.approx(value, abs=1e-12)
    bayes = math.log((1 - p_target) / p_target)
    assert act_dcf(*trials) == pytest.approx(cost_at(bayes, *trials), rel=1e-12)


def loop_cllr(target, nontarget):
    """By the definition, which overflows for large scores."""
    bits_t = [math.log2(1 + math.exp(-s)) for s in target]
    bits_n = [math.log2(1 + math.exp(s)) for s in nontarget]
    return (sum(bits_t) / len(bits_t) + sum(bits_n) / len(bits_n)) / 2


LLRS = st.lists(st.floats(-30, 30), min_size=1, max_size=30)


@given(LLRS, LLRS)
def test_cllr_is_its_definition(target, nontarget):
    value = cllr(target, nontarget)
    assert value == pytest.approx(loop_cllr(target, nontarget), abs=1e-12)


BAD = {
    "there are no nontarget scores": lambda: min_dcf([1], []),
    "nontarget scores: 1 of 2 are NaN": lambda: eer([1], [0, -np.inf]),
    "there are 2 labels for 2 scores": lambda: split_trials([1, 2], [0, 2]),
    "target scores: the shape is (1, 2)": lambda: eer([[1, 2]], [0]),
    "p_target is 0": lambda: min_dcf([1], [0], p_target=0),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(InputError) as caught:
        BAD[message]()
    assert message in str(caught.value)


def classes(llr, labels):
    return llr[labels == 1], llr[labels == 0]


def test_quality_helps_where_scores_drift_with_it():
    """Scores of short utterances are higher here, whatever the label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=40_000)
    # Calibrated: their means are +-a and their variance is 2 a.
    llr = rng.normal(np.where(labels, 4, -4), math.sqrt(8))
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
