"""The metrics against loops over all thresholds, SpeechBrain, and replicas."""

import json
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.utils.metric_stats import EER, minDCF

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.metrics import (
    bootstrap_intervals,
    eer,
    error_rates,
    evaluate,
    min_dcf,
)

TIED = st.lists(st.integers(-4, 4), min_size=1, max_size=30)
FINE = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30)
SCORES = st.one_of(TIED, FINE)


def loop_rates(target, nontarget):
    """(threshold, p_miss, p_fa) by counting, as exact fractions."""
    return [
        (
            t,
            Fraction(sum(s <= t for s in target), len(target)),
            Fraction(sum(s > t for s in nontarget), len(nontarget)),
        )
        for t in sorted({-np.inf, *target, *nontarget})
    ]


def loop_eer(target, nontarget):
    """Where the broken line through the points meets the diagonal."""
    points = [(miss, fa) for _, miss, fa in loop_rates(target, nontarget)]
    for i in range(len(points) - 1):
        (m0, f0), (m1, f1) = points[i], points[i + 1]
        if m0 <= f0 and m1 >= f1 and (m0, f0) != (m1, f1):
            along = (f0 - m0) / ((f0 - m0) + (m1 - f1))
            return float(m0 + along * (m1 - m0))
    raise AssertionError("the rates always cross")


def loop_min_dcf(target, nontarget, p_target, c_miss=1, c_fa=1):
    costs = [
        c_miss * p_target * float(miss) + c_fa * (1 - p_target) * float(fa)
        for _, miss, fa in loop_rates(target, nontarget)
    ]
    return min(costs) / min(c_miss * p_target, c_fa * (1 - p_target))


@given(SCORES, SCORES)
def test_error_rates_count_every_threshold(target, nontarget):
    expected = loop_rates(target, nontarget)
    points = np.transpose(error_rates(target, nontarget))
    assert points.tolist() == [[float(x) for x in row] for row in expected]


@given(SCORES, SCORES)
def test_eer_is_where_the_rates_cross(target, nontarget):
    value, _ = eer(target, nontarget)
    assert value == pytest.approx(loop_eer(target, nontarget), abs=1e-12)


def test_eer_interpolates_between_tied_points():
    # (p_miss, p_fa) jumps from (0, 1/2) to (3/4, 1/4): crosses at 3/8.
    assert eer([1, 1, 1, 2], [0, 0, 1, 2]) == (0.375, 1.0)


@given(SCORES, SCORES)
def test_eer_threshold_has_the_closest_rates(target, nontarget):
    _, threshold = eer(target, nontarget)
    gaps = {t: abs(m - f) for t, m, f in loop_rates(target, nontarget)}
    assert np.isfinite(threshold)
    assert gaps[threshold] == min(gaps.values())


@settings(max_examples=50)
@given(SCORES, SCORES)
def test_eer_is_speechbrains_within_one_threshold(target, nontarget):
    theirs, their_threshold = EER(
        torch.tensor(target, dtype=torch.float32),
        torch.tensor(nontarget, dtype=torch.float32),
    )
    value, threshold = eer(target, nontarget)
    thresholds, p_miss, p_fa = error_rates(target, nontarget)
    ours = np.searchsorted(thresholds, threshold)
    other = np.searchsorted(thresholds, their_threshold, side="right") - 1
    assert abs(ours - other) <= 1
    step = max(np.diff(p_miss).max(), -np.diff(p_fa).min())
    assert abs(value - theirs) <= step + 1e-6


@given(
    SCORES,
    SCORES,
    st.floats(0.001, 0.999),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
)
def test_min_dcf_is_the_least_cost(target, nontarget, p_target, c_miss, c_fa):
    value, threshold = min_dcf(target, nontarget, p_target, c_miss, c_fa)
    expected = loop_min_dcf(target, nontarget, p_target, c_miss, c_fa)
    assert value == pytest.approx(expected, abs=1e-12)
    reached = (
        c_miss * p_target * np.mean(np.array(target) <= threshold)
        + c_fa * (1 - p_target) * np.mean(np.array(nontarget) > threshold)
    ) / min(c_miss * p_target, c_fa * (1 - p_target))
    assert reached == pytest.approx(value, abs=1e-12)


@settings(max_examples=50)
@given(SCORES, SCORES, st.sampled_from([0.01, 0.05]), st.sampled_from([1, 10]))
def test_min_dcf_is_speechbrains_normalised(
    target, nontarget, p_target, c_miss
):
    theirs, _ = minDCF(
        torch.tensor(target, dtype=torch.float32),
        torch.tensor(nontarget, dtype=torch.float32),
        c_miss=c_miss,
        p_target=p_target,
    )
    value, _ = min_dcf(target, nontarget, p_target, c_miss)
    assert value * c_miss * p_target == pytest.approx(theirs, abs=1e-6)


def test_min_dcf_may_accept_everything():
    assert min_dcf([0, 0], [1, 1], p_target=0.9) == (1.0, -np.inf)


def replica_intervals(trials, replicates, level, seed, p_targets):
    """The bootstrap by writing out the trials of every draw."""
    speakers = sorted({s for _, _, a, b in trials for s in (a, b)})
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        counts = rng.multinomial(
            len(speakers), [1 / len(speakers)] * len(speakers)
        )
        drawn = np.repeat(speakers, counts).tolist()
        scores = {0: [], 1: []}
        for score, label, a, b in trials:
            if a == b:
                copies = [1 for x in drawn if x == a]
            else:
                copies = [1 for x in drawn for y in drawn if (x, y) == (a, b)]
            scores[label] += [score] * len(copies)
        if scores[0] and scores[1]:
            values.append(
                [loop_eer(scores[1], scores[0])]
                + [loop_min_dcf(scores[1], scores[0], p) for p in p_targets]
            )
    assert values
    tail = (1 - level) / 2
    intervals = []
    for column in np.sort(values, axis=0).T:
        ends = [tail * (len(column) - 1), (1 - tail) * (len(column) - 1)]
        intervals.append(tuple(np.interp(ends, range(len(column)), column)))
    return len(values), intervals


def some_trials(kind):
    rng = np.random.default_rng(3)
    trials = []
    for _ in range(80):
        a, b = rng.integers(11, size=2).tolist()
        label = int(rng.integers(2))
        if kind == "mixed":
            # Labels that ignore the speakers: all four kinds of trials.
            b = rng.choice([a, b])
        elif kind == "usual":
            b = a if label else (a + 1 + b % 10) % 11
        elif kind == "one target speaker":
            a = 4 if label else a
            b = a if label else (a + 1 + b % 10) % 11
        trials.append((int(rng.integers(6)) + 2 * label, label, a, int(b)))
    return trials


@pytest.mark.parametrize("kind", ["usual", "mixed", "one target speaker"])
def test_bootstrap_is_that_of_replicated_trials(kind):
    trials = some_trials(kind)
    intervals = bootstrap_intervals(
        *np.transpose(trials),
        p_targets=(0.01, 0.3),
        replicates=40,
        level=0.8,
        seed=5,
    )
    used, expected = replica_intervals(trials, 40, 0.8, 5, (0.01, 0.3))
    assert (used < 40) == (kind == "one target speaker")
    assert list(intervals) == ["eer", "min_dcf_0.01", "min_dcf_0.3"]
    np.testing.assert_allclose(list(intervals.values()), expected, atol=1e-12)


def test_bootstrap_depends_on_the_seed_and_not_on_the_order():
    scores, labels, enrol, test = np.transpose(some_trials("usual"))
    first = bootstrap_intervals(scores, labels, enrol, test, replicates=50)
    order = np.random.default_rng(0).permutation(len(scores))
    again = bootstrap_intervals(
        *(x[order] for x in (scores, labels, enrol, test)), replicates=50
    )
    names = np.array([f"id{i:02d}" for i in range(11)])
    named = bootstrap_intervals(
        scores, labels, names[enrol], names[test], replicates=50
    )
    other = bootstrap_intervals(
        scores, labels, enrol, test, replicates=50, seed=1
    )
    assert first == again == named
    assert first != other


def simulate(rng, n_speakers=40):
    """Two trials of every pair of speakers, some of whom are harder.

    Over all speakers targets are N(3, 2), nontargets N(0, 1.98).
    """
    a, b = np.triu_indices(n_speakers)
    a, b = np.repeat(a, 2), np.repeat(b, 2)
    ease = rng.normal(0, 1, n_speakers)
    scores = rng.normal(0, 1, a.size) - 0.7 * (ease[a] + ease[b])
    scores[a == b] = rng.normal(3, 1, 2 * n_speakers) + np.repeat(ease, 2)
    return scores, a == b, a, b


def test_intervals_cover_the_truth_and_are_no_wider_than_needed():
    rng = np.random.default_rng(8)
    truth = NormalDist().cdf(-3 / (2**0.5 + 1.98**0.5))
    values, intervals = [], []
    for _ in range(150):
        scores, labels, a, b = simulate(rng)
        values.append(eer(scores[labels], scores[~labels])[0])
        intervals.append(
            bootstrap_intervals(
                scores, labels, a, b, p_targets=(), replicates=200
            )["eer"]
        )
    low, high = np.transpose(intervals)
    coverage = np.mean((low <= truth) & (truth <= high))
    width = np.mean(high - low) / (2 * 1.96 * np.std(values))
    assert 0.88 <= coverage <= 0.99
    assert 0.8 <= width <= 1.25


def test_evaluate_sums_up():
    scores, labels, enrol, test = np.transpose(some_trials("usual"))
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


def test_nine_speakers_are_too_few():
    def intervals(n):
        speakers = np.arange(n)
        a, b = np.concatenate([speakers, speakers]), np.tile(speakers, 2)
        b[n:] = np.roll(speakers, 1)
        scores = np.random.default_rng(0).normal(size=2 * n)
        return evaluate(scores, a == b, a, b, replicates=20)["intervals"]

    assert intervals(9) is None
    assert intervals(10) is not None


def test_tensors_and_lists_agree():
    target, nontarget = [0.5, 0.25, 0.75], [0.25, 0.125]
    expected = error_rates(target, nontarget)
    tensors = torch.tensor(target), torch.tensor(nontarget)
    np.testing.assert_array_equal(error_rates(*tensors), expected)


BAD = {
    "no target trials": lambda: evaluate([1, 2], [0, 0]),
    "no nontarget trials": lambda: evaluate([1, 2], [1, 1]),
    "no target trials: ": lambda: eer([], [1]),
    "no nontarget trials: ": lambda: min_dcf([1], []),
    "2 of 4 are NaN or infinite, the first at index 1": lambda: evaluate(
        [1, np.nan, 2, np.inf], [0, 1, 0, 1]
    ),
    "nontarget scores: 1 of 2 are NaN or infinite": lambda: eer(
        [1], [0, -np.inf]
    ),
    "2 labels are neither 0 nor 1, the first at index 2": lambda: evaluate(
        [1, 2, 3, 4], [0, 1, 2, np.nan]
    ),
    "labels cannot be read": lambda: evaluate([1, 2], ["a", "b"]),
    "labels has 3 entries but there are 2": lambda: evaluate([1, 2], [0, 1, 1]),
    "enrol_speakers has 1 entries": lambda: evaluate(
        [1, 2], [0, 1], ["a"], ["a", "b"]
    ),
    "test_speakers has 3 entries": lambda: evaluate(
        [1, 2], [0, 1], ["a", "b"], ["a", "b", "c"]
    ),
    "only one side": lambda: evaluate([1, 2], [0, 1], ["a", "b"]),
    "target scores has shape": lambda: eer([[1, 2]], [0]),
    "p_target is 0": lambda: min_dcf([1], [0], p_target=0),
    "p_target is 1": lambda: evaluate([1, 2], [0, 1], p_targets=(0.5, 1)),
    "c_miss is -1": lambda: min_dcf([1], [0], c_miss=-1),
    "c_fa is inf": lambda: min_dcf([1], [0], c_fa=np.inf),
    "level is 95": lambda: bootstrap_intervals(
        [1, 2], [0, 1], [1, 2], [1, 1], level=95
    ),
    "replicates is 0": lambda: bootstrap_intervals(
        [1, 2], [0, 1], [1, 2], [1, 1], replicates=0
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(InputError) as caught:
        BAD[message]()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_usable_replicate_is_an_error():
    # One target trial, of speaker 0; a seed that leaves that speaker out.
    seed = next(
        s
        for s in range(100)
        if np.random.default_rng(s).multinomial(10, [0.1] * 10)[0] == 0
    )
    speakers = np.arange(10)
    with pytest.raises(InputError, match="none of 1 bootstrap replicates"):
        bootstrap_intervals(
            speakers,
            speakers == 0,
            speakers,
            np.append(0, np.roll(speakers[1:], 1)),
            replicates=1,
            seed=seed,
        )
