"""Scores of trial lists, against loops over single trials."""

import pathlib

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.dataio.trials import TrialList
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import normalization
from speechbrain_hyperbolic.evaluation.calibration import Calibration
from speechbrain_hyperbolic.evaluation.extraction import Embeddings
from speechbrain_hyperbolic.evaluation.normalization import NORMALIZATIONS
from speechbrain_hyperbolic.evaluation.scorer import (
    Cohort,
    Scorer,
    calibrate,
    check_held_out,
    features,
    read_cohort,
    warn_of_training_speakers,
)
from speechbrain_hyperbolic.evaluation.scores import make_score

COHORT = [f"c{n // 3}/{n}" for n in range(36)]
ENROLLMENT = {"m1": ["a/1", "a/2"], "m2": ["b/1"], "m3": ["c/1", "c/2", "a/3"]}
TESTS = ["a/4", "b/2", "c/3"]


def vector(utterance):
    """The embedding of an utterance, drawn by its name."""
    seed = sum(map(ord, utterance)) + 1000 * len(utterance)
    return torch.randn(8, generator=torch.Generator().manual_seed(seed))


def seconds(utterance):
    return float(1 + len(utterance) + ord(utterance[-1]))


def embed(paths):
    views = torch.stack([vector(u) for u in paths])[:, None]
    return Embeddings(list(paths), views, np.array([*map(seconds, paths)]))


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.norm()))


def mean_of_units(vectors):
    return torch.stack([v / v.norm() for v in vectors]).mean(0)


def list_of(enrollment=None):
    models = list(enrollment) if enrollment else ["a/1", "b/1", "a/4"]
    trials = [
        (int(model[-1] == "1"), model, test)
        for model in models
        for test in TESTS
        if model != test
    ]
    return TrialList.of(trials, enrollment)


def paths_of(utterances):
    return {u: pathlib.Path(u) for u in utterances}


def cohort_of(utterances):
    return Cohort(paths_of(utterances), [u.split("/")[0] for u in utterances])


@pytest.mark.parametrize("enrollment", [None, ENROLLMENT])
@pytest.mark.parametrize("kind", [None, *NORMALIZATIONS])
def test_against_a_loop(enrollment, kind, monkeypatch):
    # Three or so utterances at a time
    monkeypatch.setattr(normalization, "BLOCK_ELEMENTS", 40)
    cohort = cohort_of(COHORT)
    scorer = Scorer(
        embed,
        make_score("cosine"),
        normalization=kind,
        cohort=cohort,
        top_k=5,
    )
    trials = list_of(enrollment)
    found, sides = scorer(trials, paths_of(trials.utterances))

    means = [
        mean_of_units([vector(u) for u in COHORT if u.startswith(f"{s}/")])
        for s in sorted(set(cohort.speakers))
    ]
    expected = []
    for row, (_, model, test) in enumerate(trials):
        members = enrollment[model] if enrollment else [model]
        e, t = [vector(u) for u in members], vector(test)
        model_radius = np.mean([x.norm().item() for x in e])
        e = e[0] if len(e) == 1 else mean_of_units(e)
        score = cosine(e, t)
        normalized = []
        for side in (e, t):
            against = sorted((cosine(side, c) for c in means), reverse=True)
            if kind == "as-norm":
                against = against[:5]
            std = np.std(against, ddof=1)
            normalized.append((score - np.mean(against)) / std)
        expected.append(
            {None: score, "z-norm": normalized[0], "t-norm": normalized[1]}.get(
                kind, np.mean(normalized)
            )
        )
        duration = sum(map(seconds, members))
        assert sides["duration"][0][row] == pytest.approx(duration)
        assert sides["duration"][1][row] == seconds(test)
        assert sides["radius"][0][row] == pytest.approx(model_radius)
        assert sides["radius"][1][row] == pytest.approx(t.norm())
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_calibration_on_a_list():
    trials = list_of()
    paths = paths_of(trials.utterances)
    scorer = Scorer(embed, make_score("cosine"))
    quality = ["radius", "duration"]
    calibration = calibrate(scorer, trials, paths, quality)
    scores, sides = scorer(trials, paths)
    expected = Calibration.fit(
        features(scores, sides, quality), trials.labels, quality
    )
    assert calibration == expected
    # In the order of the names, whichever side is the enrollment
    sides = {"duration": ([1.0], [2.0]), "radius": ([8.0], [4.0])}
    found = features(np.array([0.5]), sides, quality)
    np.testing.assert_allclose(
        found, [[0.5, np.log(4), np.log(8), 0, np.log(2)]]
    )
    assert features(np.array([0.5]), sides, []).tolist() == [[0.5]]


def test_a_cohort_of_one_is_refused_before_it_is_embedded():
    def never(paths):
        raise AssertionError("embedded")

    options = {"normalization": "s-norm", "cohort": cohort_of(COHORT[:1])}
    with pytest.raises(InputError, match="the cohort has 1 speakers"):
        Scorer(never, make_score("cosine"), **options)


def test_as_norm_takes_the_speakers_that_there_are(caplog):
    trials, scores = list_of(), []
    for kind, top_k in (("as-norm", 300), ("as-norm", 12), ("s-norm", 2)):
        scorer = Scorer(
            embed,
            make_score("cosine"),
            normalization=kind,
            top_k=top_k,
            cohort=cohort_of(COHORT),
        )
        scores.append(scorer(trials, paths_of(trials.utterances))[0])
    for other in scores[1:]:
        np.testing.assert_allclose(scores[0], other, rtol=1e-5)
    assert "fewer than top_k = 300: as-norm uses all" in caplog.text


@pytest.mark.parametrize("clip_c, share", [(1e6, "100"), (1.0, "0")])
def test_why_hyperbolic_scores_may_equal_the_cosine(caplog, clip_c, share):
    trials = list_of()

    def small(paths):
        found = embed(paths)
        longest = found.views.norm(dim=-1).max()
        return found._replace(views=found.views / longest / 2)

    caplog.set_level("INFO")
    Scorer(small, make_score("hyperbolic", clip_c))(
        trials, paths_of(trials.utterances)
    )
    assert f"{share} % of the embeddings lie on the cap" in caplog.text
    assert ("those of --score=cosine" in caplog.text) == (share == "100")


@pytest.fixture
def train_csv(tmp_path):
    rows = [
        f"{s}/{u}_{k},/x/{s}/{u}.wav,{s}"
        for s in "ba"
        for u in range(9)
        for k in (0, 1)
    ]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["ID,wav,spk_id", *rows]))
    return path


def test_read_cohort(train_csv):
    cohort = read_cohort(train_csv, per_speaker=4)
    assert cohort.speakers == ["a"] * 4 + ["b"] * 4
    assert len(cohort.paths) == 8  # files, not their pieces
    for wav, speaker in zip(cohort.paths, cohort.speakers, strict=True):
        assert wav.startswith(f"/x/{speaker}/")
    assert read_cohort(train_csv, 4) == cohort
    assert read_cohort(train_csv, 4, seed=1) != cohort
    assert len(read_cohort(train_csv, 100).paths) == 18
    with pytest.raises(InputError, match="is missing: pass the train.csv"):
        read_cohort(train_csv.with_name("none.csv"), 1)


def test_speakers_of_the_trials_elsewhere(train_csv, caplog):
    trials = TrialList.of([(1, "a/1", "a/2"), (0, "a/1", "c/1")])
    check_held_out(TrialList.of([(0, "b/1", "d/1")]), trials)
    with pytest.raises(InputError, match="shares 1 speakers .* such as c"):
        check_held_out(TrialList.of([(0, "b/1", "c/9")]), trials)
    warn_of_training_speakers(train_csv, verification_file=trials)
    assert "1 speakers of verification_file, such as a, trained" in caplog.text
    warn_of_training_speakers("none.csv", verification_file=trials)
