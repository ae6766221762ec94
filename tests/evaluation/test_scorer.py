"""Scores, enrollment and normalization, against loops over single trials."""

import itertools
import pathlib

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.dataio.trials import TrialList
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import normalization, scores
from speechbrain_hyperbolic.evaluation.calibration import (
    check_quality,
    features,
)
from speechbrain_hyperbolic.evaluation.extraction import Embeddings
from speechbrain_hyperbolic.evaluation.normalization import (
    NORMALIZATIONS,
    check_normalization,
)
from speechbrain_hyperbolic.evaluation.scorer import (
    Scorer,
    check_held_out,
    read_cohort,
    warn_of_training_speakers,
)
from speechbrain_hyperbolic.evaluation.scores import (
    SCORES,
    enroll,
    make_score,
    take,
)
from tests.nnet.reference import published_distances

C = 1.5
by_score = pytest.mark.parametrize("name", SCORES)


def random_views(utterances, views):
    """Some inside the cap, some beyond."""
    scales = torch.logspace(-2, 1, utterances, dtype=torch.float64)
    return torch.randn(utterances, views, 6) * scales.view(-1, 1, 1)


def clip(x):
    return x * min(1, (1 - 1e-5) / C**0.5 / np.linalg.norm(x))


def naive_cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def naive_hyperbolic(a, b):
    a, b = (torch.from_numpy(x)[None] for x in (a, b))
    return -published_distances(a, b, C).item()


NAIVE = {"cosine": naive_cosine, "hyperbolic": naive_hyperbolic}


def naive_score(name, a, b):
    """The score of two utterances, [V, D] each."""
    a, b = a.numpy(), b.numpy()
    whole = NAIVE[name](a[0], b[0])
    if len(a) == 1:
        return whole
    crops = [NAIVE[name](x, y) for x in a[1:] for y in b[1:]]
    return (whole + sum(crops) / len(crops)) / 2


@pytest.mark.parametrize("n_enroll, n_test", [(1, 1), (2, 2), (4, 3)])
@by_score
def test_scores_are_those_of_a_double_loop(name, n_enroll, n_test, monkeypatch):
    a, b = random_views(7, n_enroll), random_views(5, n_test)
    expected = [[naive_score(name, x, y) for y in b] for x in a]
    score = make_score(name, C)
    enroll_table, test_table = score.prepare(a), score.prepare(b)
    matrix = score.matrix(enroll_table, test_table)
    np.testing.assert_allclose(matrix, expected, rtol=1e-8, atol=1e-12)
    pairs = score.pairs(take(enroll_table, slice(2, 7)), test_table)
    np.testing.assert_allclose(pairs, np.diag(expected, -2), rtol=1e-8)
    assert pairs.dtype is torch.float64
    # Three or so trials at a time
    monkeypatch.setattr(scores, "BLOCK_ELEMENTS", 100)
    rows = np.random.default_rng(0).integers(5, size=(2, 50))
    trials = score.trials(enroll_table, test_table, *rows)
    np.testing.assert_allclose(
        trials, np.array(expected)[tuple(rows)], rtol=1e-8
    )


def naive_model(members, how):
    members = np.array(members)
    if len(members) == 1:
        return members[0]
    if how == "mean":
        return sum(x / np.linalg.norm(x) for x in members) / len(members)
    # The normalized sum in Lorentz coordinates, back in the ball
    time = space = 0
    for x in map(clip, members):
        time = time + (1 + x @ x) / (1 - x @ x)
        space = space + 2 * x / (1 - x @ x)
    length = np.sqrt(time**2 - space @ space)
    return space / length / (1 + time / length)


@pytest.mark.parametrize("how", ["mean", "midpoint"])
def test_enrollment(how):
    """Models of different sizes, some sharing utterances."""
    views = random_views(9, 2)
    members = [[0, 8, 3], [4], np.array([5, 6]), [8], (1, 2), [7, 6, 5]]
    models = enroll(views, members, how, C)
    for model, rows in zip(models, members, strict=True):
        for view in range(2):
            expected = naive_model([views[r, view].numpy() for r in rows], how)
            np.testing.assert_allclose(model[view], expected, rtol=1e-10)
    torch.testing.assert_close(models[1], views[4], rtol=0, atol=0)


COHORT = [f"c{n // 3}/{n}" for n in range(36)]
ENROLLMENT = {"m1": ["a/1", "a/2"], "m2": ["b/1"], "m3": ["c/1", "c/2", "a/3"]}
TESTS = ["a/4", "b/2", "c/3"]


def vector(utterance):
    """The embedding of an utterance, drawn by its name."""
    seed = sum(map(ord, utterance)) + 1000 * len(utterance)
    return np.random.default_rng(seed).normal(size=8).astype(np.float32)


def seconds(utterance):
    return float(1 + len(utterance) + ord(utterance[-1]))


def embed(paths):
    views = torch.from_numpy(np.stack([*map(vector, paths)]))[:, None]
    return Embeddings(views, np.array([*map(seconds, paths)]))


def scored(trials, embed=embed, score=("cosine",), **options):
    scorer = Scorer(embed, make_score(*score), **options)
    return scorer(trials, {u: pathlib.Path(u) for u in trials.utterances})


def list_of(enrollment=None):
    models = list(enrollment) if enrollment else ["a/1", "b/1", "a/4"]
    pairs = itertools.product(models, TESTS)
    trials = [(int(a[-1] == "1"), a, b) for a, b in pairs if a != b]
    return TrialList.of(trials, enrollment)


def cohort_of(utterances):
    return {u: u.split("/")[0] for u in utterances}


@pytest.mark.parametrize("enrollment", [None, ENROLLMENT])
@pytest.mark.parametrize("kind", [None, *NORMALIZATIONS])
def test_against_a_loop(enrollment, kind, monkeypatch):
    # Three or so utterances at a time
    monkeypatch.setattr(normalization, "BLOCK_ELEMENTS", 40)
    trials, cohort = list_of(enrollment), cohort_of(COHORT)
    found, sides = scored(trials, normalization=kind, cohort=cohort, top_k=5)

    by_speaker = np.split(np.array([*map(vector, COHORT)]), len(COHORT) // 3)
    means = [naive_model(vectors, "mean") for vectors in by_speaker]
    expected = []
    for row, (_, model, test) in enumerate(trials):
        members = enrollment[model] if enrollment else [model]
        e, t = [vector(u) for u in members], vector(test)
        model_radius = np.mean([np.linalg.norm(x) for x in e])
        e = naive_model(e, "mean")
        score = naive_cosine(e, t)
        normalized = []
        for side in (e, t):
            against = sorted(naive_cosine(side, c) for c in means)
            if kind == "as-norm":
                against = against[-5:]
            std = np.std(against, ddof=1)
            normalized.append((score - np.mean(against)) / std)
        one_sided = dict(zip(("z-norm", "t-norm"), normalized, strict=True))
        one_sided[None] = score
        expected.append(one_sided.get(kind, np.mean(normalized)))
        duration = sum(map(seconds, members))
        assert sides["duration"][0][row] == pytest.approx(duration)
        assert sides["duration"][1][row] == seconds(test)
        assert sides["radius"][0][row] == pytest.approx(model_radius)
        assert sides["radius"][1][row] == pytest.approx(np.linalg.norm(t))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_features_are_in_the_order_of_the_measures():
    """Whichever side is the enrollment."""
    quality = ["radius", "duration"]
    sides = {"duration": ([1.0], [2.0]), "radius": ([8.0], [4.0])}
    found = features(np.array([0.5]), sides, quality)
    np.testing.assert_allclose(
        found, [[0.5, np.log(4), np.log(8), 0, np.log(2)]]
    )
    assert features(np.array([0.5]), sides, []).tolist() == [[0.5]]


def test_bad_settings_are_refused_before_anything_is_embedded():
    """Others: tests/recipes/test_recipes.py."""
    options = {"normalization": "s-norm", "cohort": cohort_of(COHORT[:1])}
    with pytest.raises(InputError, match="the cohort has 1 speakers"):
        scored(list_of(), embed=None, **options)
    with pytest.raises(InputError, match="top_k is None, but as-norm needs"):
        check_normalization("as-norm")
    with pytest.raises(InputError, match="are 'radius', expected a list"):
        check_quality("radius")


def test_as_norm_takes_the_speakers_that_there_are(caplog):
    first, *others = (
        scored(
            list_of(), normalization=k, top_k=top_k, cohort=cohort_of(COHORT)
        )[0]
        for k, top_k in (("as-norm", 300), ("as-norm", 12), ("s-norm", 2))
    )
    for other in others:
        np.testing.assert_allclose(first, other, rtol=1e-5)
    assert "fewer than top_k = 300: as-norm uses all" in caplog.text


@pytest.mark.parametrize("clip_c, share", [(1e6, "100"), (1.0, "0")])
def test_why_hyperbolic_scores_may_equal_the_cosine(caplog, clip_c, share):
    def small(paths):
        found = embed(paths)
        longest = found.views.norm(dim=-1).max()
        return found._replace(views=found.views / longest / 2)

    caplog.set_level("INFO")
    scored(list_of(), small, ("hyperbolic", clip_c))
    assert f"{share} % of the embeddings lie on the cap" in caplog.text
    assert "those of --score=cosine" in caplog.text


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
    assert list(cohort.values()) == ["a"] * 4 + ["b"] * 4
    assert all(wav.startswith(f"/x/{s}/") for wav, s in cohort.items())
    assert read_cohort(train_csv, 4) == cohort
    assert len(read_cohort(train_csv, 100)) == 18  # files, not their pieces
    with pytest.raises(InputError, match="is missing: no such cohort_file"):
        read_cohort(train_csv.with_name("none.csv"), 1)


def test_speakers_of_the_trials_elsewhere(train_csv, caplog):
    trials = TrialList.of([(1, "a/1", "a/2"), (0, "a/1", "c/1")])
    check_held_out(TrialList.of([(0, "b/1", "d/1")]), trials)
    with pytest.raises(InputError, match="shares 1 speakers .* such as c"):
        check_held_out(TrialList.of([(0, "b/1", "c/9")]), trials)
    warn_of_training_speakers(train_csv, verification_file=trials)
    assert "1 speakers of verification_file, such as a, are" in caplog.text
    warn_of_training_speakers("none.csv", verification_file=trials)
