"""What both versions do: the loss, and the measures.

Only ``surface.py`` knows names that the second version changed.
"""

import fractions
import json
import math

import mpmath
import numpy as np
import pytest
import scipy.optimize
import soundfile
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kept import surface
from tests.kept.commands import run_python
from tests.scripts import ROOT

GOLDEN = json.loads(
    (ROOT / "tests" / "golden" / "ham_official.json").read_text()
)
RNG = np.random.default_rng(0)


def tensors(case, *names, dtype=torch.float64):
    return (torch.tensor(case[name], dtype=dtype) for name in names)


# ------------------------------------------------------------ the loss


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_loss_and_gradients_of_the_authors_code(case):
    embeddings, centers, of_embeddings, of_centers = tensors(
        case, "embeddings", "centers", "grad_embeddings", "grad_centers"
    )
    head = surface.head(embeddings.shape[1], len(centers), c=case["c"]).double()
    cost = surface.cost(case["margin"], case["scale"])
    with torch.no_grad():
        head.weight.copy_(centers)
    embeddings.requires_grad_()
    outputs = head(embeddings.unsqueeze(1))
    loss = cost(outputs, torch.tensor(case["labels"]).unsqueeze(1))
    loss.backward()
    (distances,) = tensors(case, "distances")
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(-outputs.squeeze(1), distances, **close)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
    torch.testing.assert_close(embeddings.grad, of_embeddings, **close)
    torch.testing.assert_close(head.weight.grad, of_centers, **close)


def test_the_head_stays_in_float32_under_autocast():
    head = surface.head(32, 50, c=3.0)
    embeddings = torch.randn(8, 1, 32)
    expected = head(embeddings)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(embeddings)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


class CountProducts(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mm.default or "mm.out" in str(func):
            # Not the sums over rows or columns, which are thin products.
            self.products += min(*args[0].shape, *args[1].shape) > 2
        return func(*args, **(kwargs or {}))


def test_distances_take_one_product_and_two_more_backward():
    head = surface.head(16, 40, c=3.0)
    embeddings = torch.randn(10, 1, 16, requires_grad=True)
    with CountProducts() as forward:
        outputs = head(embeddings)
    with CountProducts() as backward:
        outputs.sum().backward()
    assert (forward.products, backward.products) == (1, 2)


def test_float32_distances_far_out_and_close_together():
    """At radius 14, where the formula of the ball is off by 14."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 12, 8, generator=generator, dtype=torch.float64)
    x, y = (v / v.norm(dim=1, keepdim=True) for v in (x, y))
    x, y = (14 * x).float(), torch.cat([14 * y[:6], 0.5 * y[6:]]).float()
    found = surface.exponential_distance(x, y)
    with mpmath.workdps(40):
        for i, a in enumerate(x.double().tolist()):
            for j, b in enumerate(y.double().tolist()):
                r, s = (mpmath.norm(v) for v in (a, b))
                cosine = mpmath.fdot(a, b) / (r * s)
                cosh = mpmath.cosh(r) * mpmath.cosh(s)
                cosh -= mpmath.sinh(r) * mpmath.sinh(s) * cosine
                assert abs(found[i, j] - float(mpmath.acosh(cosh))) < 2e-5


@pytest.mark.parametrize("exponent", [-8, 0, 8])
@pytest.mark.parametrize("c", [1.5, 3.0])
def test_gradients_are_finite_for_every_norm(exponent, c):
    head = surface.head(8, 6, c=c)
    embeddings = torch.randn(6, 1, 8) * 10.0**exponent
    embeddings[0] = 0
    with torch.no_grad():
        head.weight.copy_(embeddings.squeeze(1))  # points meet their centers
    embeddings.requires_grad_()
    loss = surface.cost(0.2, 30.0)(head(embeddings), torch.arange(6)[:, None])
    loss.backward()
    assert loss.isfinite()
    assert (
        embeddings.grad.isfinite().all() and head.weight.grad.isfinite().all()
    )


def test_a_million_classes_on_one_device():
    """In chunks: the gradient, and little beside it."""
    script = """
import resource, torch
from tests.kept import surface
from tests.kept.commands import run_python
torch.manual_seed(0)
head = surface.head(32, 1_000_000, c=3.0)
head.weight.grad = torch.zeros_like(head.weight)
labels = torch.randint(1_000_000, (16, 1))
embeddings = torch.randn(16, 1, 32, requires_grad=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loss = surface.chunked_loss(head, embeddings, labels, chunk_size=16384)
loss.backward()
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(loss.isfinite().item(), head.weight.grad[labels[0]].any().item())
print(grown / 1024)
"""
    done = run_python(script)
    (finite, learns), (grown,) = (x.split() for x in done.splitlines()[-2:])
    assert (finite, learns) == ("True", "True")
    # Weights and gradient are 122 MiB each; the outputs would be 61 MiB each.
    assert float(grown) < 300


# ------------------------------------------------------------ measures


def naive_rates(target, nontarget):
    """Every (miss, false alarm) rate, exactly, ties on one side together."""
    thresholds = sorted({*target, *nontarget, math.inf})
    return [
        (
            fractions.Fraction(sum(t < x for t in target), len(target)),
            fractions.Fraction(sum(n >= x for n in nontarget), len(nontarget)),
        )
        for x in thresholds
    ]


@pytest.mark.parametrize("seed", range(20))
def test_eer_and_min_dcf_are_exact_with_ties(seed):
    rng = np.random.default_rng(seed)
    target = rng.integers(3, 10, rng.integers(1, 30)).tolist()
    nontarget = rng.integers(0, 8, rng.integers(1, 30)).tolist()
    rates = naive_rates(target, nontarget)
    cost = min(
        (p * miss + (1 - p) * false) / min(p, 1 - p)
        for p in [fractions.Fraction(1, 20)]
        for miss, false in rates
    )
    assert surface.min_dcf(target, nontarget, 0.05) == pytest.approx(
        float(cost), abs=1e-12
    )
    # Where the segments between operating points cross the diagonal
    for (a, b), (c, d) in zip(rates, rates[1:], strict=False):
        if a <= b and c >= d:
            share = (b - a) / ((b - a) + (c - d)) if (b - a) + (c - d) else 0
            crossing = a + share * (c - a)
            break
    assert surface.eer(target, nontarget) == pytest.approx(
        float(crossing), abs=1e-12
    )


def test_intervals_are_of_speakers_and_not_of_trials():
    """Each trial ten times tells nothing new."""
    speakers = RNG.integers(20, size=(2, 400))
    labels = (speakers[0] == speakers[1]).astype(int)
    scores = RNG.standard_normal(400) + 2 * labels
    once = surface.bootstrap(scores, labels, *speakers)
    tenfold = surface.bootstrap(
        *(np.repeat(x, 10) for x in (scores, labels, *speakers))
    )
    assert once == pytest.approx(tenfold)
    low, high = once
    assert low < surface.eer(scores[labels == 1], scores[labels == 0]) < high


def test_adaptive_s_norm_is_that_of_a_loop():
    enroll, test, cohort = (RNG.standard_normal((n, 8)) for n in (5, 7, 30))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = np.zeros((5, 7))
    for i, a in enumerate(enroll):
        for j, b in enumerate(test):
            sides = []
            for side in (a, b):
                top = sorted(cosine(side, x) for x in cohort)[-10:]
                mean, spread = np.mean(top), np.std(top, ddof=1)
                sides.append((cosine(a, b) - mean) / spread)
            expected[i, j] = np.mean(sides)
    found = surface.as_norm(enroll, test, cohort, top_k=10)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_calibration_is_the_minimum_of_its_objective():
    labels = RNG.integers(2, size=300)
    scores = RNG.standard_normal(300) + labels
    prior = math.log(0.01 / 0.99)

    def objective(parameters):
        llr = parameters[0] * scores + parameters[1] + prior
        losses = np.where(
            labels == 1, np.logaddexp(0, -llr), np.logaddexp(0, llr)
        )
        weights = np.where(
            labels == 1, 0.01 / labels.sum(), 0.99 / (1 - labels).sum()
        )
        return (weights * losses).sum()

    slope, offset = scipy.optimize.minimize(objective, [1.0, 0.0], tol=1e-12).x
    found = surface.calibrate(scores, labels)
    np.testing.assert_allclose(found, slope * scores + offset, atol=2e-2)


def test_thresholds_are_those_of_the_trials():
    target = RNG.standard_normal(200) + 2
    nontarget = RNG.standard_normal(1000)
    at_eer, at_one_percent = surface.thresholds(target, nontarget)
    misses, accepts = (target <= at_eer).mean(), (nontarget > at_eer).mean()
    assert abs(misses - accepts) <= 1 / 200
    assert (nontarget > at_one_percent).mean() <= 0.01


def test_embeddings_are_kept_by_file(tmp_path):
    calls = []
    features, norm, model = surface.small_modules()
    model.register_forward_hook(lambda *_: calls.append(1))
    paths = {}
    for name in "abc":
        paths[name] = tmp_path / f"{name}.wav"
        soundfile.write(paths[name], RNG.standard_normal(16000) / 10, 16000)

    def embed():
        calls.clear()
        views = surface.extract((features, norm, model), paths, tmp_path / "c")
        return views, len(calls)

    first, count = embed()
    assert count
    again, count = embed()
    assert count == 0
    np.testing.assert_array_equal(first, again)
    soundfile.write(paths["b"], RNG.standard_normal(20000) / 10, 16000)
    changed, count = embed()
    assert count == 1
    same = (first == changed).all(axis=-1).ravel()
    assert same.tolist() == [True, False, True]
