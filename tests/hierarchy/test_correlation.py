"""Rank correlation against scipy's and draws written out."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from speechbrain_hyperbolic.hierarchy.correlation import rank_correlation
from tests.hierarchy.cases import assert_refused


@pytest.mark.parametrize("ties", [False, True])
def test_rho_is_scipys(ties):
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    y += x
    if ties:
        x, y = x.round(), y.round()
    found = rank_correlation(x, y, replicates=10)
    assert found.rho == pytest.approx(spearmanr(x, y).statistic)


def test_interval_and_p_are_those_of_draws_written_out():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(list("zyxwvutsrqpo"), 3))
    x, y = rng.normal(size=(2, 36)).round(1)
    y += 0.3 * x
    found = rank_correlation(x, y, replicates=200, seed=4, groups=groups)

    rng = np.random.default_rng(4)
    names = sorted(set(groups))
    drawn = []
    for _ in range(200):
        counts = rng.multinomial(12, [1 / 12] * 12)
        rows = [
            row
            for name, count in zip(names, counts, strict=True)
            for row in count * np.flatnonzero(groups == name).tolist()
        ]
        drawn.append(spearmanr(x[rows], y[rows]).statistic)
    assert found.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    below = sum(rho <= 0 for rho in drawn)
    p_value = 2 * (1 + min(below, 200 - below)) / 201
    assert found.p_value == pytest.approx(p_value)


def test_groups_keep_the_error_rate():
    """Of utterances that know nothing but their speaker."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    wrong = {"speakers": 0, "utterances": 0}
    for seed in range(40):
        x, y = rng.normal(size=(2, 20))[:, groups]
        x, y = (v + 0.3 * rng.normal(size=200) for v in (x, y))
        for kind, of in (("speakers", groups), ("utterances", None)):
            found = rank_correlation(x, y, 100, seed, of)
            wrong[kind] += found.p_value < 0.05
    assert wrong["speakers"] <= 6 < 16 < wrong["utterances"]


def test_draws_of_one_value_are_skipped():
    # A draw without the one group that differs has no correlation.
    x = np.append(np.zeros(9), 1)
    found = rank_correlation(x, np.arange(10), replicates=50)
    assert 0 < found.interval[0] <= found.interval[1] <= 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: rank_correlation([1, 2, 3], [1, 2]), r"y has shape \(2,\)"),
        (lambda: rank_correlation([1] * 20, range(20)), "x are all equal"),
        (
            lambda: rank_correlation([1, math.inf], [1, 2]),
            "x is inf at index 1",
        ),
        (lambda: rank_correlation(range(9), range(9)), "there are 9 groups"),
        (
            lambda: rank_correlation(range(20), range(20), groups=[1] * 20),
            "there are 1 groups",
        ),
        (
            lambda: rank_correlation(range(20), range(20), groups=[1]),
            r"groups has shape \(1,\)",
        ),
        (
            lambda: rank_correlation(range(20), range(20), replicates=0.5),
            "replicates is 0.5",
        ),
    ],
)
def test_refused_in_one_line(call, message):
    assert_refused(call, message)
