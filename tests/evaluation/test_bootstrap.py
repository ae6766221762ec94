"""Bootstrap and comparison against trials written out, and simulations."""

import runpy
import sys
from statistics import NormalDist

import numpy as np
import pytest

from speechbrain_hyperbolic.dataio.scores import read_score_table, write_scores
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.bootstrap import (
    bootstrap_intervals,
    compare_score_files,
    compare_systems,
    format_comparison,
)
from speechbrain_hyperbolic.evaluation.metrics import eer
from tests.evaluation.test_metrics import loop_eer, loop_min_dcf

PRIORS = (0.01, 0.3)


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


by_kind = pytest.mark.parametrize(
    "kind", ["usual", "mixed", "one target speaker"]
)


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
        classes = scores[target].tolist(), scores[nontarget].tolist()
        costs = [loop_min_dcf(*classes, p) for p in PRIORS]
        values.append([loop_eer(*classes), *costs])
    return np.transpose(values)


def loop_interval(values, level):
    values = sorted(values)
    ends = [
        (1 - level) / 2 * (len(values) - 1),
        (1 + level) / 2 * (len(values) - 1),
    ]
    return np.interp(ends, range(len(values)), values)


@by_kind
def test_bootstrap_is_that_of_trials_written_out(kind):
    scores, *trials = some_trials(kind)
    options = {"replicates": 40, "seed": 5}
    intervals = bootstrap_intervals(
        scores, *trials, p_targets=PRIORS, level=0.8, **options
    )
    draws = list(written_out(*trials, **options))
    assert (len(draws) < 40) == (kind == "one target speaker")
    assert list(intervals) == ["eer", "min_dcf_0.01", "min_dcf_0.3"]
    expected = [loop_interval(v, 0.8) for v in loop_values(scores, draws)]
    np.testing.assert_allclose(list(intervals.values()), expected, atol=1e-12)


@by_kind
def test_comparison_is_that_of_trials_written_out(kind):
    a, *trials = some_trials(kind)
    b = a + np.random.default_rng(1).integers(-1, 3, a.size) * trials[0]
    options = {"replicates": 40, "seed": 5}
    found = compare_systems(
        a, b, *trials, p_targets=PRIORS, level=0.8, **options
    )
    draws = list(written_out(*trials, **options))
    drawn = loop_values(b, draws) - loop_values(a, draws)
    everything = [[np.flatnonzero(trials[0] == label) for label in (1, 0)]]
    values = [loop_values(scores, everything)[:, 0] for scores in (a, b)]
    assert list(found) == ["eer", "min_dcf_0.01", "min_dcf_0.3"]
    for i, metric in enumerate(found.values()):
        assert metric["a"] == pytest.approx(values[0][i], abs=1e-12)
        assert metric["b"] == pytest.approx(values[1][i], abs=1e-12)
        assert metric["difference"] == metric["b"] - metric["a"]
        np.testing.assert_allclose(
            metric["interval"], loop_interval(drawn[i], 0.8), atol=1e-12
        )
        # Differences of 0 in exact arithmetic count to both sides.
        above = sum(d >= -1e-9 for d in drawn[i])
        below = sum(d <= 1e-9 for d in drawn[i])
        p_value = min(1, 2 * (1 + min(above, below)) / (1 + len(draws)))
        assert metric["p_value"] == pytest.approx(p_value)


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
    for _ in range(100):
        scores, labels, a, b = simulate(rng)
        values.append(eer(scores[labels], scores[~labels])[0])
        found = bootstrap_intervals(
            scores, labels, a, b, p_targets=(), replicates=200
        )
        intervals.append(found["eer"])
    low, high = np.transpose(intervals)
    coverage = np.mean((low <= truth) & (truth <= high))
    width = np.mean(high - low) / (2 * 1.96 * np.std(values))
    assert 0.88 <= coverage <= 0.99
    assert 0.8 <= width <= 1.25


def two_systems(rng, own=1.0, better=0.0):
    """What is hard for both, and some for each of them; B may be better."""
    shared, labels, a, b = simulate(rng)
    scores_a, scores_b = (shared + own * simulate(rng)[0] for _ in "ab")
    return scores_a, scores_b + better * labels, labels, a, b


def test_equal_systems_differ_at_the_nominal_rate():
    rng = np.random.default_rng(4)
    found = [
        compare_systems(*two_systems(rng), p_targets=(0.05,), replicates=99)
        for _ in range(120)
    ]
    for name in ("eer", "min_dcf_0.05"):
        p_values = np.array([metrics[name]["p_value"] for metrics in found])
        # At a rate of 5 % it is outside in 1 % of such simulations.
        assert 1 <= np.sum(p_values <= 0.05) <= 12
        assert 0.35 <= np.mean(p_values <= 0.5) <= 0.65


def test_the_same_ranks_do_not_differ():
    scores, *trials = simulate(np.random.default_rng(0))
    found = compare_systems(scores, np.exp(scores), *trials, replicates=50)
    for metric in found.values():
        assert metric["a"] == metric["b"] > 0
        assert (metric["difference"], metric["interval"]) == (0, (0, 0))
        assert metric["p_value"] == 1


def few(n_speakers):
    """A target and a nontarget trial of each speaker."""
    a = np.tile(np.arange(n_speakers), 2)
    b = a.copy()
    b[n_speakers:] = np.roll(b[n_speakers:], 1)
    return np.random.default_rng(0).normal(size=a.size), a == b, a, b


def test_nine_speakers_are_too_few():
    assert bootstrap_intervals(*few(9), replicates=20) is None
    assert bootstrap_intervals(*few(10), replicates=20) is not None
    with pytest.raises(InputError, match="have 9 speakers: .* takes 10"):
        compare_systems(few(9)[0], *few(9))


def test_bad_input_is_named():
    scores, labels, a, b = few(10)
    with pytest.raises(InputError, match=r"shape \(1,\), expected \(20,\)"):
        bootstrap_intervals(scores, labels, ["a"], b)
    wrong = np.where(a == 3, np.nan, scores)
    with pytest.raises(InputError, match="scores_b: 2 of 20 are NaN"):
        compare_systems(scores, wrong, labels, a, b)
    with pytest.raises(InputError, match=r"scores_b has shape \(19,\)"):
        compare_systems(scores, scores[1:], labels, a, b)
    scores, *trials = some_trials("one target speaker")
    seed = next(s for s in range(99) if not list(written_out(*trials, 1, s)))
    with pytest.raises(InputError, match="none of 1 bootstrap replicates"):
        bootstrap_intervals(scores, *trials, replicates=1, seed=seed)


@pytest.fixture
def files(tmp_path):
    """Score files of two systems, B's lines in another order."""
    rng = np.random.default_rng(0)
    scores_a, scores_b, labels, a, b = two_systems(rng, 0.2, 0.5)
    enroll = np.array([f"id{s}/x/{i}" for i, s in enumerate(a)])
    test = np.array([f"id{s}/y/{i}" for i, s in enumerate(b)])
    paths = tmp_path / "a.txt", tmp_path / "b.txt"
    write_scores(paths[0], enroll, test, labels, scores_a)
    order = rng.permutation(len(a))
    columns = (enroll, test, labels, scores_b)
    write_scores(paths[1], *(column[order] for column in columns))
    expected = compare_systems(
        *(scores_a, scores_b, labels),
        *([f"id{s}" for s in side] for side in (a, b)),
        replicates=50,
        seed=3,
    )
    return *paths, expected


def test_score_files_are_aligned(files):
    a, b, expected = files
    assert compare_score_files(a, b, replicates=50, seed=3) == expected


def test_models_have_the_speakers_of_their_targets(files):
    """Also the models of an enrollment file, whose names say nothing."""
    *paths, expected = files
    for path in paths:
        table = read_score_table(path)
        names = {
            model: model.replace("/", "_")
            for model, label in zip(table.enroll, table.labels, strict=True)
            if label
        }
        models = [names.get(model, model) for model in table.enroll]
        write_scores(path, models, *table[1:])
    assert compare_score_files(*paths, replicates=50, seed=3) == expected


@pytest.mark.parametrize("change", ["missing", "label", "repeated"])
def test_a_trial_of_one_file_only_is_named(files, change):
    a, b, _ = files
    first, *others = b.read_text().splitlines()
    enroll, test, label, score = first.split()
    changed = {
        "missing": others,
        "label": [f"{enroll} {test} {1 - int(label)} {score}", *others],
        "repeated": [first, first, *others],
    }[change]
    b.write_text("\n".join(changed))
    n_different = 2 if change == "label" else 1
    match = f"{a} and {b} differ in {n_different} trials, such as '{enroll} "
    with pytest.raises(InputError, match=match):
        compare_score_files(a, b)


def test_command_line(files, monkeypatch, capsys):
    a, b, expected = files
    module = "speechbrain_hyperbolic.evaluation.bootstrap"
    command = [module, str(a), str(b), "--replicates=50", "--seed=3"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.delitem(sys.modules, module)  # or runpy warns
    runpy.run_module(module, run_name="__main__")
    table, note = capsys.readouterr().out.split("\n\n")
    assert table == format_comparison(expected)
    metric = expected["eer"]
    low, high = (f"{100 * bound:+.2f}" for bound in metric["interval"])
    assert f"{100 * metric['difference']:+.2f} [{low}, {high}]" in table
    assert f"A is {a}, B is {b}" in note

    b.write_text("id1/1 id1/2 1 0.5\nid1/1 id2/2 0 nan\n")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(module, run_name="__main__")
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith(f"error: {b}, line 2: the score is nan")
    assert err.count("\n") == 1
