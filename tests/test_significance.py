"""Bootstrap and comparison against trials written out, and simulations."""

import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest

from speechbrain_hyperbolic.dataio.scores import read_score_table, write_scores
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.metrics import eer, min_dcf
from speechbrain_hyperbolic.significance import (
    bootstrap_intervals,
    compare_score_files,
    compare_systems,
    format_comparison,
    main,
)
from tests.test_metrics import loop_eer, loop_min_dcf

PRIORS = (0.01, 0.3)


def some_trials(kind):
    """Columns scores, labels, enrolment and test speakers."""
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


def written_out(labels, enrol, test, replicates, seed):
    """Of every draw the indices of its target and its nontarget trials."""
    speakers = sorted({*enrol.tolist(), *test.tolist()})
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        counts = rng.multinomial(
            len(speakers), [1 / len(speakers)] * len(speakers)
        )
        drawn = np.repeat(speakers, counts).tolist()
        trials = {0: [], 1: []}
        rows = zip(labels, enrol, test, strict=True)
        for i, (label, a, b) in enumerate(rows):
            if a == b:
                copies = [1 for x in drawn if x == a]
            else:
                copies = [1 for x in drawn for y in drawn if (x, y) == (a, b)]
            trials[label] += [i] * len(copies)
        if trials[0] and trials[1]:
            yield trials[1], trials[0]


def loop_values(scores, draws):
    """The metrics of each draw, shape (metrics, draws)."""
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
    assert (len(draws) < 40) == (kind == "one target speaker")
    drawn = loop_values(b, draws) - loop_values(a, draws)
    everything = [[np.flatnonzero(trials[0] == label) for label in (1, 0)]]
    values = [loop_values(scores, everything)[:, 0] for scores in (a, b)]
    assert list(found) == ["eer", "min_dcf_0.01", "min_dcf_0.3"]
    for i, of in enumerate(found.values()):
        assert of["a"] == pytest.approx(values[0][i], abs=1e-12)
        assert of["b"] == pytest.approx(values[1][i], abs=1e-12)
        assert of["difference"] == of["b"] - of["a"]
        np.testing.assert_allclose(
            of["interval"], loop_interval(drawn[i], 0.8), atol=1e-12
        )
        # Differences of 0 in exact arithmetic count to both sides.
        above = sum(d >= -1e-9 for d in drawn[i])
        below = sum(d <= 1e-9 for d in drawn[i])
        p_value = min(1, 2 * (1 + min(above, below)) / (1 + len(draws)))
        assert of["p_value"] == pytest.approx(p_value)
    assert any(0.05 < of["p_value"] < 1 for of in found.values())


def test_bootstrap_depends_on_the_seed_and_not_on_the_order():
    scores, labels, enrol, test = some_trials("usual")
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


def two_systems(rng, own=1.0, better=0.0):
    """What is hard for both, and some for each of them; B may be better."""
    shared, labels, a, b = simulate(rng)
    scores_a, scores_b = (shared + own * simulate(rng)[0] for _ in "ab")
    return scores_a, scores_b + better * labels, labels, a, b


def test_equal_systems_differ_at_the_nominal_rate():
    rng = np.random.default_rng(4)
    found = [
        compare_systems(*two_systems(rng), p_targets=(0.05,), replicates=199)
        for _ in range(200)
    ]
    for name in ("eer", "min_dcf_0.05"):
        p_values = np.array([of[name]["p_value"] for of in found])
        # At a rate of 5 % it is outside in under 1 % of such simulations.
        assert 3 <= np.sum(p_values <= 0.05) <= 18
        assert 0.35 <= np.mean(p_values <= 0.5) <= 0.65


def test_what_both_find_hard_cancels():
    scores_a, scores_b, *trials = two_systems(
        np.random.default_rng(0), 0.1, 0.5
    )
    found = compare_systems(scores_a, scores_b, *trials)["eer"]
    low, high = found["interval"]
    assert low <= found["difference"] <= high < 0
    assert found["p_value"] < 0.01
    # Their own intervals overlap: unpaired, nothing could be said.
    a, b = (
        bootstrap_intervals(scores, *trials)["eer"]
        for scores in (scores_a, scores_b)
    )
    assert a[0] < b[1]


def test_the_same_system_does_not_differ():
    scores, *trials = simulate(np.random.default_rng(0))
    # The same ranks are the same system.
    found = compare_systems(scores, np.exp(scores), *trials, replicates=50)
    for of in found.values():
        assert of["a"] == of["b"] > 0
        assert (of["difference"], of["interval"]) == (0, (0, 0))
        assert of["p_value"] == 1


def test_systems_can_be_swapped():
    scores_a, scores_b, *trials = two_systems(np.random.default_rng(2))
    found = compare_systems(scores_a, scores_b, *trials, replicates=50)
    again = compare_systems(scores_b, scores_a, *trials, replicates=50)
    for name, of in found.items():
        other = again[name]
        assert (of["a"], of["b"]) == (other["b"], other["a"])
        assert of["difference"] == -other["difference"]
        assert of["p_value"] == other["p_value"] < 1
        low, high = other["interval"]
        assert of["interval"] == pytest.approx((-high, -low), abs=1e-12)


def few(n_speakers):
    """A target and a nontarget trial of each speaker."""
    a = np.tile(np.arange(n_speakers), 2)
    b = a.copy()
    b[n_speakers:] = np.roll(b[n_speakers:], 1)
    return np.random.default_rng(0).normal(size=a.size), a == b, a, b


def test_nine_speakers_are_too_few():
    assert bootstrap_intervals(*few(9), replicates=20) is None
    assert bootstrap_intervals(*few(10), replicates=20) is not None
    with pytest.raises(InputError, match="of 9 speakers: it takes 10"):
        compare_systems(few(9)[0], *few(9))
    assert compare_systems(few(10)[0], *few(10), replicates=20)


S, LABELS, A, B = few(10)
WITH_NAN = np.where(A == 3, np.nan, S)
BAD = {
    "enrol_speakers has 1 entries": lambda: bootstrap_intervals(
        S, LABELS, ["a"], B
    ),
    "test_speakers has 21 entries": lambda: compare_systems(
        S, S, LABELS, A, np.append(B, 1)
    ),
    "enrol_speakers has shape (20, 1)": lambda: bootstrap_intervals(
        S, LABELS, A[:, None], B
    ),
    "p_target is 1": lambda: bootstrap_intervals(
        S, LABELS, A, B, p_targets=(0.5, 1)
    ),
    "p_target is 0": lambda: compare_systems(S, S, LABELS, A, B, p_targets=[0]),
    "level is 95": lambda: bootstrap_intervals(S, LABELS, A, B, level=95),
    "level is 0": lambda: compare_systems(S, S, LABELS, A, B, level=0),
    "replicates is 0": lambda: bootstrap_intervals(
        S, LABELS, A, B, replicates=0
    ),
    "replicates is -1": lambda: compare_systems(
        S, S, LABELS, A, B, replicates=-1
    ),
    "scores_a: 2 of 20 are NaN": lambda: compare_systems(
        WITH_NAN, S, LABELS, A, B
    ),
    "scores_b: 2 of 20 are NaN": lambda: compare_systems(
        S, WITH_NAN, LABELS, A, B
    ),
    "scores_b has 19 entries but there are 20": lambda: compare_systems(
        S, S[1:], LABELS, A, B
    ),
    "labels has 19 entries but there are 20": lambda: compare_systems(
        S, S, LABELS[1:], A, B
    ),
    "there are no target trials": lambda: compare_systems(S, S, 0 * S, A, B),
    "there are no nontarget trials": lambda: bootstrap_intervals(
        S, 0 * S + 1, A, B
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


@pytest.fixture
def files(tmp_path):
    """Score files of two systems, B's lines in another order."""
    rng = np.random.default_rng(0)
    scores_a, scores_b, labels, a, b = two_systems(rng, 0.2, 0.5)
    enrol = np.array([f"id{s}/x/{i}" for i, s in enumerate(a)])
    test = np.array([f"id{s}/y/{i}" for i, s in enumerate(b)])
    paths = tmp_path / "a.txt", tmp_path / "b.txt"
    write_scores(paths[0], enrol, test, labels, scores_a)
    order = rng.permutation(len(a))
    write_scores(paths[1], *(x[order] for x in (enrol, test, labels, scores_b)))
    expected = compare_systems(
        *(scores_a, scores_b, labels),
        *([f"id{s}" for s in side] for side in (a, b)),
        replicates=50,
        seed=3,
    )
    return *paths, expected


def test_models_are_of_the_speakers_of_their_targets(files):
    """Of an enrolment map, whose names say nothing."""
    *paths, expected = files
    for path in paths:
        table = read_score_table(path)
        names = {m: f"model{n}" for n, m in enumerate(sorted(set(table.enrol)))}
        has_target = {
            model
            for model, label in zip(table.enrol, table.labels, strict=True)
            if label
        }
        models = [names[m] if m in has_target else m for m in table.enrol]
        write_scores(path, models, *table[1:])
    assert compare_score_files(*paths, replicates=50, seed=3) == expected


def test_score_files_are_aligned(files):
    a, b, expected = files
    assert compare_score_files(a, b, replicates=50, seed=3) == expected
    # A list with a repeated trial is compared in its own order.
    a.write_text(a.read_text() + a.read_text())
    b.write_text(a.read_text())
    assert compare_score_files(a, b, replicates=2)["eer"]["p_value"] == 1


def remove(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]))
    return lines[0].rsplit(" ", 1)[0]


def test_a_missing_trial_is_named(files):
    a, b, _ = files
    gone = remove(b)
    with pytest.raises(InputError) as caught:
        compare_score_files(a, b)
    assert f"{b} has no trial '{gone}', which {a} has (1 of" in str(
        caught.value
    )
    with pytest.raises(InputError) as caught:
        compare_score_files(b, a)
    assert f"{b} has no trial '{gone}'" in str(caught.value)


def test_another_label_is_another_trial(files):
    a, b, _ = files
    table = read_score_table(b)
    table.labels[5] = 1 - table.labels[5]
    write_scores(b, *table)
    with pytest.raises(InputError, match="b.txt has no trial.*1 of"):
        compare_score_files(a, b)


def test_a_repeated_trial_is_named(files):
    a, b, _ = files
    line = b.read_text().splitlines()[3]
    b.write_text(f"{b.read_text()}{line}\n")
    with pytest.raises(InputError) as caught:
        compare_score_files(a, b)
    trial = line.rsplit(" ", 1)[0]
    assert f"{b} has the trial '{trial}' twice" in str(caught.value)


def test_command_line(files):
    a, b, expected = files
    module = [sys.executable, "-m", "speechbrain_hyperbolic.significance"]
    done = subprocess.run(
        [*module, a, b, "--replicates=50", "--seed=3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    table, note = done.stdout.split("\n\n")
    assert table == format_comparison(expected)
    assert f"A is {a}, B is {b}" in note


def test_command_line_ends_with_a_line(files, monkeypatch, capsys):
    a, b, _ = files
    b.write_text("id1/1 id1/2 1 0.5\nid1/1 id2/2 0 nan\n")
    monkeypatch.setattr(sys, "argv", ["significance", str(a), str(b)])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and not out
    assert f"{b}, line 2: the score is nan" in err.splitlines()[-1]


def test_the_table_has_per_cent_and_signs():
    found = compare_systems(*two_systems(np.random.default_rng(0), 0.2, 0.5))
    table = format_comparison(found)
    header, _, *rows = table.splitlines()
    assert header == "|  | A | B | B - A | p |"
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[0] for row in cells] == [
        "EER %",
        "minDCF(0.01)",
        "minDCF(0.05)",
    ]
    of = found["eer"]
    low, high = (100 * bound for bound in of["interval"])
    assert cells[0][1:] == [
        f"{100 * of['a']:.2f}",
        f"{100 * of['b']:.2f}",
        f"{100 * of['difference']:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{of['p_value']:.2g}",
    ]


def test_values_are_the_metrics():
    scores_a, scores_b, labels, a, b = two_systems(np.random.default_rng(1))
    found = compare_systems(scores_a, scores_b, labels, a, b, replicates=2)
    for key, scores in (("a", scores_a), ("b", scores_b)):
        classes = scores[labels], scores[~labels]
        assert found["eer"][key] == eer(*classes)[0]
        for p_target in (0.01, 0.05):
            cost, _ = min_dcf(*classes, p_target)
            assert found[f"min_dcf_{p_target}"][key] == cost
