"""Results, intervals and comparisons, against trials written out."""

import itertools
import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks.intervals import coverage, simulate
from speechbrain_hyperbolic.dataio.files import write_json
from speechbrain_hyperbolic.dataio.scores import write_scores
from speechbrain_hyperbolic.dataio.trials import TrialList
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import bootstrap, metrics
from speechbrain_hyperbolic.evaluation.bootstrap import (
    bootstrap_intervals,
    compare_score_files,
    compare_systems,
    format_comparison,
)
from speechbrain_hyperbolic.evaluation.results import (
    evaluate,
    evaluate_trials,
    format_results,
    interval_note,
    read_results,
)


def some_trials(kind):
    """Columns scores, labels, enrollment and test speakers."""
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
    return np.transpose(trials)


def written_out(labels, enroll, test, replicates, seed):
    """The indices of target and nontarget trials in every usable draw."""
    speakers = sorted({*enroll.tolist(), *test.tolist()})
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        counts = rng.multinomial(
            len(speakers), [1 / len(speakers)] * len(speakers)
        )
        drawn = np.repeat(speakers, counts).tolist()
        trials = {0: [], 1: []}
        rows = zip(labels, enroll, test, strict=True)
        for i, (label, a, b) in enumerate(rows):
            if a == b:
                copies = [1 for x in drawn if x == a]
            else:
                copies = [1 for x in drawn for y in drawn if (x, y) == (a, b)]
            trials[label] += [i] * len(copies)
        if trials[0] and trials[1]:
            yield trials[1], trials[0]


def loop_values(scores, draws):
    """The metrics of each draw, shape [metrics, draws]."""
    values = []
    for target, nontarget in draws:
        classes = scores[target], scores[nontarget]
        costs = [metrics.min_dcf(*classes, p)[0] for p in metrics.P_TARGETS]
        values.append([metrics.eer(*classes)[0], *costs])
    return np.transpose(values)


def loop_interval(values, chances=(0.025, 0.975)):
    n = len(values)
    ends = np.multiply(chances, n - 1)
    return np.interp(ends, range(n), sorted(values))


def loop_bca(values, found, without):
    """Efron's BCa with Hesterberg's expansion, by the formulas of both."""
    n = len(without)
    values, found = np.round(values, 12), round(found, 12)
    below = (np.sum(values < found) + np.sum(values == found) / 2) / len(values)
    z0 = stats.norm.ppf(
        np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))
    )
    away = np.mean(without) - without
    a = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    z = z0 + np.sqrt(n / (n - 1)) * stats.t(n - 1).ppf([0.025, 0.975])
    return loop_interval(values, stats.norm.cdf(z0 + z / (1 - a * z)))


@pytest.mark.parametrize("kind", ["usual", "mixed", "one target speaker"])
def test_both_are_those_of_trials_written_out(kind, monkeypatch):
    monkeypatch.setattr(bootstrap, "MIN_ERRORS", 0)
    a, *trials = some_trials(kind)
    b = a + np.random.default_rng(1).integers(-1, 3, a.size) * trials[0]
    options = {"replicates": 40, "seed": 5}
    found = compare_systems(a, b, *trials, **options)
    draws = list(written_out(*trials, **options))
    assert (len(draws) < 40) == (kind == "one target speaker")
    drawn_a, drawn_b = loop_values(a, draws), loop_values(b, draws)
    intervals = bootstrap_intervals(a, *trials, **options)
    drawn = drawn_b - drawn_a
    everything = [[np.flatnonzero(trials[0] == label) for label in (1, 0)]]
    values = [loop_values(scores, everything)[:, 0] for scores in (a, b)]
    if kind != "one target speaker":  # without whom there is no target trial
        others = [(trials[1] != s) & (trials[2] != s) for s in range(11)]
        left = [
            [np.flatnonzero(other & (trials[0] == n)) for n in (1, 0)]
            for other in others
        ]
        without = loop_values(a, left)
        expected = map(loop_bca, drawn_a, values[0], without)
        np.testing.assert_allclose(
            list(intervals.values()), list(expected), atol=1e-12
        )
    assert list(found) == list(intervals)
    for i, metric in enumerate(found.values()):
        assert metric["a"] == pytest.approx(values[0][i], abs=1e-12)
        assert metric["b"] == pytest.approx(values[1][i], abs=1e-12)
        assert metric["difference"] == metric["b"] - metric["a"]
        np.testing.assert_allclose(
            metric["interval"], loop_interval(drawn[i]), atol=1e-12
        )
        # Differences of 0 in exact arithmetic count to both sides.
        above = sum(d >= -1e-9 for d in drawn[i])
        below = sum(d <= 1e-9 for d in drawn[i])
        p_value = min(1, 2 * (1 + min(above, below)) / (1 + len(draws)))
        assert metric["p_value"] == pytest.approx(p_value)


def test_intervals_hold_the_truth():
    """More data sets and cases: benchmarks/intervals.py."""
    case = 60, 0.02, 6, 1  # the minDCF's percentiles: 60 % of cases
    for given, held in coverage(case, 60, replicates=200):
        # Of 60 data sets at coverage 0.95, 52 hold the truth in 99 % of cases.
        assert given == 1 and held >= 52 / 60


def test_too_few_errors_and_speakers():
    scores, *trials = simulate(np.random.default_rng(0), 40, 0.07, 2, 2)
    scores += 6 * trials[0]  # all classes are apart
    found = bootstrap_intervals(scores, *trials, replicates=20)
    assert set(found.values()) == {None}
    scores, *trials = simulate(np.random.default_rng(0), 9, 0.07, 2, 2)
    assert bootstrap_intervals(scores, *trials) is None
    with pytest.raises(InputError, match="have 9 speakers: .* takes 10"):
        compare_systems(scores, scores, *trials)
    with pytest.raises(InputError, match="scores: 90 of 90 are NaN"):
        compare_systems(scores, np.nan * scores, *trials)


@pytest.fixture
def files(tmp_path):
    """Score files of two systems, B's lines in another order.

    The names of some enrolled models say nothing about their speakers.
    """
    rng = np.random.default_rng(0)
    scores_a, labels, a, b = simulate(rng, 40, 0.07, 2, 2)
    scores_b = scores_a + rng.normal(0, 0.3, a.size) + 0.5 * labels
    names = [f"id{s}/x/{i}" if s % 2 else f"m{s}" for i, s in enumerate(a)]
    enroll = np.array(names)
    test = np.array([f"id{s}/y/{i}" for i, s in enumerate(b)])
    paths = tmp_path / "a.txt", tmp_path / "b.txt"
    write_scores(paths[0], enroll, test, labels, scores_a)
    order = rng.permutation(len(a))
    columns = (enroll, test, labels, scores_b)
    write_scores(paths[1], *(column[order] for column in columns))
    speakers = ([f"id{s}" for s in side] for side in (a, b))
    systems = scores_a, scores_b, labels
    expected = compare_systems(*systems, *speakers)
    return *paths, expected


@pytest.mark.parametrize("change", ["label", "repeated"])
def test_a_trial_of_one_file_only_is_named(files, change):
    a, b, _ = files
    first, *others = b.read_text().splitlines()
    enroll, test, label, score = first.split()
    other = f"{enroll} {test} {1 - int(label)} {score}"
    changed = [other] if change == "label" else [first, first]
    b.write_text("\n".join([*changed, *others]))
    with pytest.raises(InputError, match=rf"differ in \d trials.*'{enroll} "):
        compare_score_files(a, b)
    with pytest.raises(InputError, match="scores.txt is missing"):
        compare_score_files(a.parent, b.parent)


def test_command_line(files, monkeypatch, capsys):
    a, b, expected = files
    monkeypatch.setattr(sys, "argv", ["bootstrap", str(a), str(b)])
    bootstrap.main()
    table, note = capsys.readouterr().out.split("\n\n")
    assert table == format_comparison(expected)
    metric = expected["eer"]
    low, high = (f"{100 * bound:+.2f}" for bound in metric["interval"])
    assert f"{100 * metric['difference']:+.2f} [{low}, {high}]" in table
    assert f"A is {a}, B is {b}" in note


def test_evaluate_sums_up():
    scores, labels, *speakers = some_trials("usual")
    scores = scores - 3.0
    classes = scores[labels == 1], scores[labels == 0]
    options = {"replicates": 30, "p_targets": [0.5]}
    found = evaluate(scores, labels, *speakers, calibrated=True, **options)
    assert found["n_speakers"] == 11
    assert found["eer_threshold"] == metrics.eer(*classes)[1]
    assert found["min_dcf_0.5"] == metrics.min_dcf(*classes, 0.5)[0]
    assert found["act_dcf_0.5"] == metrics.act_dcf(*classes, 0.5)
    assert found["cllr"] == metrics.cllr(*classes)
    intervals = bootstrap_intervals(scores, labels, *speakers, **options)
    assert found["intervals"] == intervals
    note = interval_note({"all": found})
    assert note.startswith("in brackets 95 %")
    assert "too narrow for as few as 11 speakers" in note
    header, _, row = format_results({"all": found}).splitlines()
    assert "minDCF(0.5)" in header and header.endswith("| Cllr  |")
    assert f"{found['cllr']:.3f}" in row
    few = found | {"n_speakers": 99, "intervals": {"eer": None}}
    assert f"fewer than {bootstrap.MIN_ERRORS}" in interval_note({"all": few})


def test_subsets_by_hand(tmp_path):
    names = [f"{s}/{i}" for s in "abc" for i in range(3)]
    pairs = itertools.combinations(names, 2)
    trials = TrialList.of((int(a[0] == b[0]), a, b) for a, b in pairs)
    # a and b are of one sex; the only errors are between b and c.
    accepted = [
        t.label or {t.enroll[0], t.test[0]} == {"b", "c"} for t in trials
    ]
    scores = np.array(accepted, float)
    sexes = {"a": {"sex": "f"}, "b": {"sex": "f"}, "c": {"sex": "m"}}
    results = evaluate_trials(trials, scores, sexes, replicates=10)
    same = results["same-sex trials"]
    assert (same["eer"], same["n_target"], same["n_nontarget"]) == (0, 9, 9)
    # 9 of 27 nontarget trials tie with the targets: the rates are equal on the
    # line between (0, 1/3) and (1, 0).
    assert results["all trials"]["eer"] == pytest.approx(0.25)
    assert list(evaluate_trials(trials, scores)) == ["all trials"]
    write_json(tmp_path / "r.json", results)
    assert read_results(tmp_path / "r.json") == results
    table = format_results(results)
    assert "| all trials      | 9 + 27 | 25.00 |" in table
    assert "Cllr" not in table
    assert interval_note(results) == "too few speakers for intervals"
