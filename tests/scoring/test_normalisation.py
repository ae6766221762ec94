"""Normalised scores against a loop over trials, and the stock arithmetic."""

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.scoring.normalisation import (
    NORMALISATIONS,
    Statistics,
    check_normalisation,
    cohort_statistics,
    normalise,
    speaker_means,
)
from speechbrain_hyperbolic.scoring.similarity import SCORES, make_score
from tests.scoring.test_similarity import C, naive_score, random_views

MODELS, UTTERANCES, COHORT = 5, 7, 12
RNG = np.random.default_rng(0)
ENROL_ROWS = RNG.integers(MODELS, size=30)
TEST_ROWS = RNG.integers(UTTERANCES, size=30)


def tables(views):
    return (
        random_views(MODELS, views, 0),
        random_views(UTTERANCES, views, 1),
        random_views(COHORT, views, 2),
    )


def ours(kind, name, enrol, test, cohort, top_k, block=None):
    score = make_score(name, C)
    enrol, test, cohort = map(score.prepare, (enrol, test, cohort))
    statistics = (
        cohort_statistics(score, side, cohort, top_k, block)
        for side in (enrol, test)
    )
    scores = score.trials(enrol, test, ENROL_ROWS, TEST_ROWS)
    return normalise(kind, scores, ENROL_ROWS, TEST_ROWS, *statistics)


def naive_side(name, score, side, cohort, top_k):
    against = sorted((naive_score(name, side, c) for c in cohort), reverse=True)
    against = against[:top_k]
    mean = sum(against) / len(against)
    spread = sum((s - mean) ** 2 for s in against) / (len(against) - 1)
    return (score - mean) / spread**0.5


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(
    "kind, top_k",
    [("z-norm", None), ("t-norm", None), ("s-norm", None), ("as-norm", 4)],
)
def test_normalised_scores_are_those_of_a_loop(kind, top_k, name, views):
    enrol, test, cohort = tables(views)
    expected = []
    for e, t in zip(ENROL_ROWS, TEST_ROWS, strict=True):
        score = naive_score(name, enrol[e], test[t])
        by_enrol = naive_side(name, score, enrol[e], cohort, top_k)
        by_test = naive_side(name, score, test[t], cohort, top_k)
        both = (by_enrol + by_test) / 2
        expected.append({"z-norm": by_enrol, "t-norm": by_test}.get(kind, both))
    for block in (None, 2):
        found = ours(kind, name, enrol, test, cohort, top_k, block)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("kind", NORMALISATIONS[:3])
def test_cosine_is_normalised_as_by_the_stock_script(kind, top_k):
    """What it does in each trial, in float32."""
    similarity = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    enrol, test, cohort = (table.float() for table in tables(1))

    def statistics(side):
        scores = similarity(side.repeat(len(cohort), 1, 1), cohort)
        if top_k is not None:
            scores = torch.topk(scores, k=top_k, dim=0)[0]
        return torch.mean(scores, dim=0), torch.std(scores, dim=0)

    expected = []
    for e, t in zip(ENROL_ROWS, TEST_ROWS, strict=True):
        score = similarity(enrol[e], test[t])[0]
        z, t = (
            (score - mean) / std
            for mean, std in (statistics(enrol[e]), statistics(test[t]))
        )
        expected.append({"z-norm": z, "t-norm": t}.get(kind, (z + t) / 2))
    expected = torch.cat(expected)
    found = ours(kind, "cosine", enrol, test, cohort, top_k)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    if top_k is not None and kind == "s-norm":
        adaptive = ours("as-norm", "cosine", enrol, test, cohort, top_k)
        np.testing.assert_array_equal(adaptive, found)


def test_a_side_that_is_not_used_may_be_absent():
    side = Statistics(np.array([1.0, 2.0]), np.array([0.5, 4.0]), None)
    scores, rows = np.array([0.0, 3.0]), [1, 0]
    expected = [-0.5, 4.0]
    z = normalise("z-norm", scores, rows, None, side, None)
    t = normalise("t-norm", scores, None, rows, None, side)
    assert z.tolist() == t.tolist() == expected


def test_speaker_means():
    views = random_views(6, 2, 0)
    speakers = ["b", "a", "b", "c", "b", "a"]
    for mean, name in zip(speaker_means(views, speakers), "abc", strict=True):
        own = [v for v, s in zip(views, speakers, strict=True) if s == name]
        for view in range(2):
            expected = sum(v[view] / v[view].norm() for v in own) / len(own)
            torch.testing.assert_close(mean[view], expected)


def test_wrong_names():
    with pytest.raises(InputError, match="normalisation is 'x-norm', expected"):
        check_normalisation("x-norm")
    with pytest.raises(InputError, match="top_k is None, but as-norm needs"):
        ours("as-norm", "cosine", *tables(1), top_k=None)


@pytest.mark.parametrize(
    "size, top_k, message",
    [
        (4, 5, "the cohort has 4 rows, expected at least 5"),
        (1, None, "the cohort has 1 rows, expected at least 2"),
        (4, 1, "top_k is 1, expected 2 or more"),
    ],
)
def test_small_cohort(size, top_k, message):
    score = make_score("cosine")
    table = score.prepare(random_views(3, 1, 0))
    cohort = score.prepare(random_views(size, 1, 2))
    with pytest.raises(InputError, match=message):
        cohort_statistics(score, table, cohort, top_k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCORES)
def test_a_cohort_of_one_repeated_utterance_is_refused(name, dtype):
    score = make_score(name)
    table = score.prepare(random_views(33, 1, 0, dtype))
    one = random_views(1, 1, 2, dtype)
    with pytest.raises(InputError, match="row 0 .33 of 33. has the same score"):
        cohort_statistics(score, table, score.prepare(one.repeat(37, 1, 1)))
