"""Scores of trial lists, against loops over single trials."""

import pathlib

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.dataio.trials import TrialList
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.scoring.extraction import Embeddings
from speechbrain_hyperbolic.scoring.scorer import (
    Cohort,
    Scorer,
    check_held_out,
    features,
    read_cohort,
)
from speechbrain_hyperbolic.scoring.similarity import make_score

COHORT = [f"c{n // 3}/{n}" for n in range(36)]
ENROLMENT = {"m1": ["a/1", "a/2"], "m2": ["b/1"], "m3": ["c/1", "c/2", "a/3"]}
TESTS = ["a/4", "b/2", "c/3"]


def vector(utterance):
    """Its embedding: a table that the utterance's name draws."""
    seed = sum(map(ord, utterance)) + 1000 * len(utterance)
    return torch.randn(8, generator=torch.Generator().manual_seed(seed))


def embed(paths):
    return Embeddings(
        list(paths),
        torch.stack([vector(u) for u in paths])[:, None],
        np.array([float(1 + len(u) + ord(u[-1])) for u in paths]),
    )


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.norm()))


def unit(vectors):
    return [v / v.norm() for v in vectors]


def list_of(enrolment=None):
    models = list(enrolment) if enrolment else ["a/1", "b/1", "a/4"]
    trials = [
        (int(model[-1] == "1"), model, test)
        for model in models
        for test in TESTS
        if model != test
    ]
    return TrialList.of(trials, enrolment)


def paths_of(utterances):
    return {u: pathlib.Path(u) for u in utterances}


@pytest.mark.parametrize("enrolment", [None, ENROLMENT])
@pytest.mark.parametrize(
    "normalisation", [None, "z-norm", "t-norm", "s-norm", "as-norm"]
)
def test_against_a_loop(enrolment, normalisation):
    speakers = [u.split("/")[0] for u in COHORT]
    cohort = Cohort(paths_of(COHORT), speakers)
    scorer = Scorer(
        embed,
        make_score("cosine"),
        normalisation=normalisation,
        cohort=cohort,
        top_k=5,
    )
    trials = list_of(enrolment)
    found, sides = scorer(trials, paths_of(trials.utterances))

    means = [
        torch.stack(
            unit([vector(u) for u in COHORT if u.startswith(f"{s}/")])
        ).mean(0)
        for s in sorted(set(speakers))
    ]
    expected = []
    for _, model, test in trials:
        members = enrolment[model] if enrolment else [model]
        e, t = [vector(u) for u in members], vector(test)
        e = e[0] if len(e) == 1 else torch.stack(unit(e)).mean(0)
        score = cosine(e, t)
        normalised = []
        for side in (e, t):
            against = sorted((cosine(side, c) for c in means), reverse=True)
            if normalisation == "as-norm":
                against = against[:5]
            normalised.append(
                (score - np.mean(against)) / np.std(against, ddof=1)
            )
        of_models, of_tests = normalised
        expected.append(
            {
                None: score,
                "z-norm": of_models,
                "t-norm": of_tests,
                "s-norm": (of_models + of_tests) / 2,
                "as-norm": (of_models + of_tests) / 2,
            }[normalisation]
        )
    np.testing.assert_allclose(found, expected, atol=1e-4)

    for row, (_, model, test) in enumerate(trials):
        members = enrolment[model] if enrolment else [model]
        alone = [embed(paths_of([u])).durations[0] for u in members]
        assert sides["duration"][0][row] == pytest.approx(sum(alone))
        norms = [vector(u).norm().item() for u in members]
        assert sides["radius"][0][row] == pytest.approx(np.mean(norms))
        assert sides["radius"][1][row] == pytest.approx(vector(test).norm())


def test_features_are_in_the_order_asked():
    sides = {"duration": ([1.0], [2.0]), "radius": ([8.0], [4.0])}
    found = features(np.array([0.5]), sides, ["radius", "duration"])
    np.testing.assert_allclose(
        found, [[0.5, np.log(4), np.log(8), 0, np.log(2)]]
    )
    assert features(np.array([0.5]), sides, []).tolist() == [[0.5]]


@pytest.mark.parametrize("kind, top_k", [("as-norm", 13), ("s-norm", None)])
def test_a_small_cohort_is_refused_before_it_is_embedded(kind, top_k):
    utterances = COHORT if kind == "as-norm" else COHORT[:1]
    cohort = Cohort(paths_of(utterances), [u.split("/")[0] for u in utterances])

    def never(paths):
        raise AssertionError("embedded")

    with pytest.raises(InputError, match="the cohort has 1.* speakers"):
        Scorer(
            never,
            make_score("cosine"),
            normalisation=kind,
            cohort=cohort,
            top_k=top_k,
        )


def test_read_cohort(tmp_path):
    rows = [
        f"{s}/{u}_{k},/x/{s}/{u}.wav,{s}"
        for s in "ba"
        for u in range(9)
        for k in (0, 1)
    ]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["ID,wav,spk_id", *rows]))
    cohort = read_cohort(path, per_speaker=4)
    assert cohort.speakers == ["a"] * 4 + ["b"] * 4
    assert len(cohort.paths) == 8  # files, not their pieces
    for wav, speaker in zip(cohort.paths, cohort.speakers, strict=True):
        assert wav.startswith(f"/x/{speaker}/")
    assert read_cohort(path, 4) == cohort != read_cohort(path, 4, seed=1)
    assert len(read_cohort(path, 100).paths) == 18


def test_bad_cohort_file(tmp_path):
    with pytest.raises(InputError, match="is missing: pass the train.csv"):
        read_cohort(tmp_path / "none.csv", 1)
    (tmp_path / "a.csv").write_text("ID,path\n")
    with pytest.raises(InputError, match="no column wav"):
        read_cohort(tmp_path / "a.csv", 1)


def test_calibration_on_the_trials_speakers():
    trials = TrialList.of([(1, "a/1", "a/2"), (0, "a/1", "b/1")])
    check_held_out(TrialList.of([(0, "c/1", "d/1")]), trials)
    with pytest.raises(InputError, match="shares 1 speakers .* e.g. b"):
        check_held_out(TrialList.of([(0, "c/1", "b/9")]), trials)
