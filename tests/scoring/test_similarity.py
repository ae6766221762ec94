"""Scores and enrolment against loops over utterances and views."""

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import clip_to_ball, to_ball
from speechbrain_hyperbolic.scoring import similarity
from speechbrain_hyperbolic.scoring.similarity import (
    SCORES,
    enrol,
    make_score,
    take,
)
from tests.reference import published_distances

C = 1.5


def random_views(utterances, views, seed, dtype=torch.float64):
    """Some inside the cap, some beyond."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(
        utterances, views, 6, generator=generator, dtype=torch.float64
    )
    scales = torch.logspace(-2, 1, utterances, dtype=torch.float64)
    return (views * scales.view(-1, 1, 1)).to(dtype)


def naive_cosine(a, b):
    return float(a @ b) / float(a.norm() * b.norm())


def naive_hyperbolic(a, b):
    return -published_distances(a[None], b[None], C).item()


def naive_fused(a, b):
    # Opposite ends of the cap: the largest distance.
    end = torch.tensor([[5.0, 0.0]], dtype=torch.float64)
    rho = published_distances(end, -end, C).item() / 2
    return (naive_cosine(a, b) + 1 + naive_hyperbolic(a, b) / rho) / 2


NAIVE = {
    "cosine": naive_cosine,
    "hyperbolic": naive_hyperbolic,
    "fused": naive_fused,
}


def naive_score(name, a, b):
    """Of two utterances, [V, D] each."""
    whole = NAIVE[name](a[0], b[0])
    if len(a) == 1:
        return whole
    crops = [NAIVE[name](x, y) for x in a[1:] for y in b[1:]]
    return (whole + sum(crops) / len(crops)) / 2


@pytest.mark.parametrize("n_enrol, n_test", [(1, 1), (2, 2), (4, 3)])
@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_a_double_loop(name, n_enrol, n_test):
    a, b = random_views(7, n_enrol, 0), random_views(5, n_test, 1)
    expected = [[naive_score(name, x, y) for y in b] for x in a]
    score = make_score(name, C)
    enrol_table, test_table = score.prepare(a), score.prepare(b)
    matrix = score.matrix(enrol_table, test_table)
    np.testing.assert_allclose(matrix, expected, rtol=1e-8, atol=1e-12)
    pairs = score.pairs(take(enrol_table, slice(2, 7)), test_table)
    np.testing.assert_allclose(pairs, np.diag(expected, -2), rtol=1e-8)
    assert pairs.dtype is torch.float64


@pytest.mark.parametrize("name", SCORES)
def test_trials_in_blocks(name, monkeypatch):
    a, b = random_views(7, 3, 0), random_views(5, 3, 1)
    rng = np.random.default_rng(0)
    enrol_rows, test_rows = rng.integers(7, size=50), rng.integers(5, size=50)
    score = make_score(name, C)
    # Three or so trials at a time.
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", 100)
    scores = score.trials(
        score.prepare(a), score.prepare(b), enrol_rows, test_rows
    )
    expected = [
        naive_score(name, a[e], b[t])
        for e, t in zip(enrol_rows, test_rows, strict=True)
    ]
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-8)


@pytest.mark.parametrize("name", SCORES)
def test_float32_is_as_float64(name):
    score = make_score(name, C)
    rows = np.arange(40)
    expected, scores = (
        score.trials(
            score.prepare(random_views(40, 3, 0, dtype)),
            score.prepare(random_views(40, 3, 1, dtype)),
            rows,
            rows,
        )
        for dtype in (torch.float64, torch.float32)
    )
    np.testing.assert_allclose(scores, expected, atol=3e-6)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("name", SCORES)
def test_extreme_embeddings_have_finite_scores(name, views):
    one = torch.ones(views, 4) / 2
    extreme = torch.stack(
        [0 * one, 1e-8 * one, one, one, -one, 1e8 * one, -1e8 * one]
    )
    score = make_score(name)
    table = score.prepare(extreme)
    assert score.matrix(table, table).isfinite().all()
    rows = np.indices((7, 7)).reshape(2, -1)
    scores = score.trials(table, table, *rows).reshape(7, 7)
    assert np.isfinite(scores).all()
    # Of what coincides, after the clip, none is higher.
    assert scores[2, 3] == scores[2, 2] == pytest.approx(scores.max(), abs=1e-6)


@pytest.mark.parametrize("c", [1.0, 3.0, 5.0])
def test_fused_has_the_range_of_the_cosine(c):
    end = torch.tensor([[[2.0, 0.0]], [[-9.0, 0.0]], [[0.0, 0.0]]]).double()
    score = make_score("fused", c)
    table = score.prepare(end)
    scores = score.trials(table, table, [0, 0, 1, 0], [0, 1, 1, 2])
    # The origin has no cosine, and is at half the largest distance.
    np.testing.assert_allclose(scores, [1, -1, 1, 0], atol=1e-9)


def test_wrong_names_and_views():
    with pytest.raises(InputError, match="score is 'plda', expected one of"):
        make_score("plda")
    with pytest.raises(InputError, match="c is 0.5"):
        make_score("fused", c=0.5)
    for name in SCORES:
        score = make_score(name)
        whole = score.prepare(random_views(2, 1, 0))
        crops = score.prepare(random_views(2, 3, 0))
        for call in (score.pairs, score.matrix):
            with pytest.raises(InputError, match="one side .* has crops"):
                call(whole, crops)


def naive_midpoint(points):
    """The normalised sum in Lorentz coordinates, back in the ball."""
    time = space = 0
    for x in points:
        inside = 1 - x @ x
        time = time + (1 + x @ x) / inside
        space = space + 2 * x / inside
    length = np.sqrt(time**2 - space @ space)
    return space / length / (1 + time / length)


def naive_model(members, how):
    members = np.array(members)
    if len(members) == 1:
        return members[0]
    if how == "mean":
        return sum(x / np.linalg.norm(x) for x in members) / len(members)
    return naive_midpoint(
        to_ball(clip_to_ball(torch.from_numpy(members), C)).numpy()
    )


@pytest.mark.parametrize("block", [1, 2**24])
@pytest.mark.parametrize("how", ["mean", "midpoint"])
def test_enrolment(how, block, monkeypatch):
    """Models of different sizes, in any order, some sharing utterances."""
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", block)
    views = random_views(9, 2, 0)
    members = [[0, 8, 3], [4], np.array([5, 6]), [8], (1, 2), [7, 6, 5]]
    models = enrol(views, members, how, C)
    for model, rows in zip(models, members, strict=True):
        for view in range(2):
            expected = naive_model([views[r, view].numpy() for r in rows], how)
            np.testing.assert_allclose(model[view], expected, rtol=1e-10)
    torch.testing.assert_close(models[1], views[4], rtol=0, atol=0)


def test_the_clip_leaves_a_midpoint_where_it_is():
    """Also where all members are on the cap, in float32."""
    views = random_views(8, 1, 0, torch.float32) * 1e3
    views[1::2] = views[::2]
    models = enrol(views, [[0, 1], [2, 3], [0, 4, 6]], "midpoint", C)
    torch.testing.assert_close(
        to_ball(clip_to_ball(models, C)), models, rtol=1e-6, atol=0
    )


def test_wrong_enrolment():
    views = random_views(3, 1, 0)
    with pytest.raises(InputError, match="model 1 of 2 has no utterance"):
        enrol(views, [[0], []])
    with pytest.raises(InputError, match="enrolment is 'sum', expected one"):
        enrol(views, [[0]], how="sum")
