"""Scores and enrollment against loops over single trials."""

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import scores
from speechbrain_hyperbolic.evaluation.normalization import check_normalization
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


VIEWS = random_views(3, 1, 0)
BAD = {
    "score is 'plda', expected one of": lambda: make_score("plda"),
    "c is 0.5": lambda: make_score("hyperbolic", c=0.5),
    "enrollment is 'sum', expected one": lambda: enroll(VIEWS, [[0]], "sum"),
    "normalization is 'x-norm', expected": lambda: check_normalization(
        "x-norm"
    ),
    "top_k is None, but as-norm needs": lambda: check_normalization("as-norm"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(InputError) as caught:
        BAD[message]()
    assert message in str(caught.value)
