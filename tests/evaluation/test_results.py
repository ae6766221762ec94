"""Error rates of trial lists, counted by hand or by the metrics."""

import numpy as np
import pytest

from speechbrain_hyperbolic.dataio.trials import TrialList
from speechbrain_hyperbolic.evaluation import metrics
from speechbrain_hyperbolic.evaluation.bootstrap import bootstrap_intervals
from speechbrain_hyperbolic.evaluation.results import (
    evaluate,
    evaluate_trials,
    format_results,
    interval_note,
    read_results,
    write_results,
)
from tests.evaluation.test_bootstrap import some_trials


@pytest.fixture
def trials():
    names = [f"{s}/{i}" for s in "abc" for i in range(3)]
    return TrialList.of(
        (int(a[0] == b[0]), a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    )


def test_evaluate_sums_up():
    scores, labels, enroll, test = some_trials("usual")
    scores = scores - 3.0
    classes = scores[labels == 1], scores[labels == 0]
    found = evaluate(scores, labels == 1, enroll, test, 30, calibrated=True)
    value, threshold = metrics.eer(*classes)
    expected = {
        "n_target": len(classes[0]),
        "n_nontarget": len(classes[1]),
        "n_speakers": 11,
        "eer": value,
        "eer_threshold": threshold,
        "cllr": metrics.cllr(*classes),
        "intervals": bootstrap_intervals(scores, labels, enroll, test, 30),
    }
    for p in (0.01, 0.05):
        expected[f"min_dcf_{p}"] = metrics.min_dcf(*classes, p)[0]
        expected[f"act_dcf_{p}"] = metrics.act_dcf(*classes, p)
    assert found == expected
    note = interval_note({"all": found})
    assert note.startswith("in brackets 95 %")
    assert "too narrow for as few as 11 speakers" in note
    header, _, row = format_results({"all": found}).splitlines()
    assert header.endswith("| Cllr  |") and f"{found['cllr']:.3f}" in row
    plain = evaluate(scores, labels, enroll, test, 30)
    left_out = {"act_dcf_0.01", "act_dcf_0.05", "cllr"}
    assert expected.keys() - plain.keys() == left_out
    other = evaluate(scores, labels, enroll, test, 30, p_targets=[0.5])
    assert other["min_dcf_0.5"] == metrics.min_dcf(*classes, 0.5)[0]
    assert list(other["intervals"]) == ["eer", "min_dcf_0.5"]
    assert "minDCF(0.5)" in format_results({"all": other})
    few = other | {"n_speakers": 99, "intervals": {"eer": None}}
    assert "none where fewer than 5 speakers" in interval_note({"all": few})


def test_subsets_by_hand(tmp_path, trials):
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
    write_results(results, tmp_path / "r.json")
    assert read_results(tmp_path / "r.json") == results
    table = format_results(results)
    assert "| all trials      | 9 + 27 | 25.00 |" in table
    assert "Cllr" not in table
    assert interval_note(results) == "too few speakers for intervals"
