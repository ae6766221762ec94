"""Scores, enrollment and normalization against loops over single trials."""

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import normalization, scores
from speechbrain_hyperbolic.evaluation.normalization import (
    check_normalization,
    cohort_statistics,
    normalize,
)
from speechbrain_hyperbolic.evaluation.scores import (
    SCORES,
    enroll,
    make_score,
    take,
)

C = 1.5
by_score = pytest.mark.parametrize("name", SCORES)


def random_views(utterances, views, seed, dtype=torch.float64):
    """Some inside the cap, some beyond."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(
        utterances, views, 6, generator=generator, dtype=torch.float64
    )
    scales = torch.logspace(-2, 1, utterances, dtype=torch.float64)
    return (views * scales.view(-1, 1, 1)).to(dtype)


def clip(x):
    return x * min(1, (1 - 1e-5) / C**0.5 / np.linalg.norm(x))


def naive_cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def naive_hyperbolic(a, b):
    """Minus the distance in the Poincare ball."""
    a, b = clip(a), clip(b)
    apart = (a - b) @ (a - b) / (1 - a @ a) / (1 - b @ b)
    return -np.arccosh(1 + 2 * apart)


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
    a, b = random_views(7, n_enroll, 0), random_views(5, n_test, 1)
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


@by_score
def test_float32_is_as_float64(name):
    score = make_score(name, C)
    rows = np.arange(40)
    expected, found = (
        score.trials(
            score.prepare(random_views(40, 3, 0, dtype)),
            score.prepare(random_views(40, 3, 1, dtype)),
            rows,
            rows,
        )
        for dtype in (torch.float64, torch.float32)
    )
    np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.parametrize("views", [1, 3])
@by_score
def test_extreme_embeddings_have_finite_scores(name, views):
    one = torch.ones(views, 4) / 2
    extreme = torch.stack(
        [0 * one, 1e-8 * one, one, one, -one, 1e8 * one, -1e8 * one]
    )
    score = make_score(name)
    table = score.prepare(extreme)
    assert score.matrix(table, table).isfinite().all()
    rows = np.indices((7, 7)).reshape(2, -1)
    found = score.trials(table, table, *rows).reshape(7, 7)
    assert np.isfinite(found).all()
    # No pair scores higher than two utterances that coincide after the clip.
    assert found[2, 3] == found[2, 2] == pytest.approx(found.max(), abs=1e-6)


def test_on_the_cap_the_distance_ranks_as_the_cosine():
    views = random_views(40, 1, 0)
    inside = (views.norm(dim=-1) < C**-0.5).double().mean().item()
    hyperbolic = make_score("hyperbolic", C)
    table = hyperbolic.prepare(views)
    assert hyperbolic.share_on_cap(table) == pytest.approx(1 - inside)
    assert 0.1 < inside < 0.9
    views = 1e3 * views
    assert hyperbolic.share_on_cap(hyperbolic.prepare(views.float())) == 1
    rows = np.triu_indices(40, 1)
    orders = []
    for name in SCORES:
        score = make_score(name, C)
        table = score.prepare(views)
        orders.append(np.argsort(score.trials(table, table, *rows)))
    np.testing.assert_array_equal(*orders)


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
    views = random_views(9, 2, 0)
    members = [[0, 8, 3], [4], np.array([5, 6]), [8], (1, 2), [7, 6, 5]]
    models = enroll(views, members, how, C)
    for model, rows in zip(models, members, strict=True):
        for view in range(2):
            expected = naive_model([views[r, view].numpy() for r in rows], how)
            np.testing.assert_allclose(model[view], expected, rtol=1e-10)
    torch.testing.assert_close(models[1], views[4], rtol=0, atol=0)


MODELS, UTTERANCES, COHORT = 5, 7, 12
RNG = np.random.default_rng(0)
ROWS = RNG.integers(MODELS, size=30), RNG.integers(UTTERANCES, size=30)


def tables(views):
    return (
        random_views(MODELS, views, 0),
        random_views(UTTERANCES, views, 1),
        random_views(COHORT, views, 2),
    )


def normalized(kind, name, tables, top_k):
    score = make_score(name, C)
    enroll_table, test_table, cohort = map(score.prepare, tables)
    sides = (
        cohort_statistics(score, side, cohort, top_k)
        for side in (enroll_table, test_table)
    )
    raw = score.trials(enroll_table, test_table, *ROWS)
    return normalize(kind, raw, *ROWS, *sides)


def naive_side(name, score, side, cohort, top_k):
    against = sorted((naive_score(name, side, c) for c in cohort), reverse=True)
    against = against[:top_k]
    return (score - np.mean(against)) / np.std(against, ddof=1)


@pytest.mark.parametrize("views", [1, 3])
@by_score
@pytest.mark.parametrize(
    "kind, top_k",
    [("z-norm", None), ("t-norm", None), ("s-norm", None), ("as-norm", 4)],
)
def test_normalized_scores_are_those_of_a_loop(
    kind, top_k, name, views, monkeypatch
):
    enroll_views, test_views, cohort = tables(views)
    expected = []
    for e, t in zip(*ROWS, strict=True):
        score = naive_score(name, enroll_views[e], test_views[t])
        z = naive_side(name, score, enroll_views[e], cohort, top_k)
        t = naive_side(name, score, test_views[t], cohort, top_k)
        expected.append({"z-norm": z, "t-norm": t}.get(kind, (z + t) / 2))
    for block in (2**22, 2 * COHORT):
        monkeypatch.setattr(normalization, "BLOCK_ELEMENTS", block)
        found = normalized(kind, name, tables(views), top_k)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@by_score
def test_a_cohort_of_one_repeated_utterance_is_refused(name, dtype):
    score = make_score(name)
    table = score.prepare(random_views(33, 1, 0, dtype))
    one = random_views(1, 1, 2, dtype)
    with pytest.raises(InputError, match="row 0 .33 of 33. has the same score"):
        cohort_statistics(score, table, score.prepare(one.repeat(37, 1, 1)))


VIEWS = random_views(3, 1, 0)
BAD = {
    "score is 'plda', expected one of": lambda: make_score("plda"),
    "c is 0.5": lambda: make_score("hyperbolic", c=0.5),
    "model 1 of 2 has no utterance": lambda: enroll(VIEWS, [[0], []]),
    "enrollment is 'sum', expected one": lambda: enroll(VIEWS, [[0]], "sum"),
    "normalization is 'x-norm', expected": lambda: check_normalization(
        "x-norm"
    ),
    "top_k is None, but as-norm needs": lambda: normalized(
        "as-norm", "cosine", tables(1), None
    ),
    "the cohort has 12 speakers, expected at least 13": lambda: normalized(
        "as-norm", "cosine", tables(1), 13
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(InputError) as caught:
        BAD[message]()
    assert message in str(caught.value)
