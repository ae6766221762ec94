"""What is said of scores, counted by hand."""

import pathlib

import numpy as np
import pytest

from speechbrain_hyperbolic.dataio.trials import Trial, TrialList
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.verification import (
    check_both_classes,
    evaluate_trials,
    format_results,
    interval_note,
    locate,
    read_results,
    write_results,
)
from tests.dataio.test_corpus import add


@pytest.fixture
def trials():
    names = [f"{s}/{i}" for s in "abc" for i in range(3)]
    return TrialList.of(
        Trial(int(a[0] == b[0]), a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    )


def test_missing_audio_is_named(tmp_path):
    add(tmp_path, "a/1.wav", "b/1.flac")
    trials = TrialList.of([(0, "a/1", "b/1"), (1, "a/1", "a/2")])
    with pytest.raises(InputError, match="a/2 is not in .*1 of 3") as caught:
        locate(trials, tmp_path, "list.txt")
    assert "list.txt" in str(caught.value)
    found = locate(TrialList.of([(0, "a/1", "b/1")]), tmp_path, "list.txt")
    assert {u: pathlib.Path(path) for u, path in found.items()} == {
        "a/1": tmp_path / "a/1.wav",
        "b/1": tmp_path / "b/1.flac",
    }


def test_results(tmp_path, trials):
    """EER of all and of the same-sex trials, counted by hand."""
    # a and b are of one sex; the only errors are between b and c.
    scores = np.array(
        [1.0 if t.label or {t.enrol[0], t.test[0]} == {"b", "c"} else 0.0
         for t in trials]
    )  # fmt: skip
    sexes = {"a": {"sex": "f"}, "b": {"sex": "f"}, "c": {"sex": "m"}}
    results = evaluate_trials(trials, scores, sexes, replicates=10)
    assert results["same-sex trials"]["eer"] == 0
    assert results["same-sex trials"]["n_target"] == 9
    assert results["same-sex trials"]["n_nontarget"] == 9
    # 9 of 27 impostor trials tie with the targets: m = f on the line between
    # (0, 1/3) and (1, 0).
    assert results["all trials"]["eer"] == pytest.approx(0.25)
    assert list(evaluate_trials(trials, scores, {}, 10)) == ["all trials"]
    write_results(results, tmp_path / "r.json")
    assert read_results(tmp_path / "r.json") == results
    table = format_results(results)
    assert "| all trials      | 9 + 27 | 25.00 |" in table
    assert "Cllr" not in table
    assert interval_note(results) == "too few speakers for intervals"


def test_calibrated_scores(trials):
    """Ratios of 0 carry nothing: a cost of 1, and a Cllr of 1 bit."""
    scores = np.zeros(len(trials))
    results = evaluate_trials(trials, scores, replicates=10, calibrated=True)
    header, _, row = format_results(results).splitlines()
    names = [name.strip() for name in header.split("|")]
    values = dict(zip(names, map(str.strip, row.split("|")), strict=True))
    assert values["Cllr"] == "1.000" and values["actDCF(0.01)"] == "1.000"


def test_an_empty_sex_is_unknown(trials):
    scores = np.arange(len(trials), dtype=float)
    sexes = {speaker: {"sex": ""} for speaker in "abc"}
    assert list(evaluate_trials(trials, scores, sexes, 10)) == ["all trials"]


@pytest.mark.parametrize("label, kind", [(0, "nontarget"), (1, "target")])
def test_lists_of_one_class(label, kind):
    trials = TrialList.of([(label, "a/1", "a/2"), (label, "a/1", "a/3")])
    with pytest.raises(InputError, match=f"l.txt has 2 {kind} trials and no"):
        check_both_classes(trials, "l.txt")
    with pytest.raises(InputError, match="there are no .*target trials"):
        evaluate_trials(trials, np.array([0.0, 1.0]))


def test_scores_that_are_not_numbers(trials):
    scores = np.zeros(len(trials))
    scores[3] = np.nan
    with pytest.raises(InputError, match="1 of 36 are NaN.* at index 3"):
        evaluate_trials(trials, scores)
