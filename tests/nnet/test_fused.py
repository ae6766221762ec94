"""The fused loss against naive loops, and its chunks against the whole."""

import math

import pytest
import torch

from benchmarks.measure import peak
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.similarity import (
    ClippedDistance,
    Cosine,
    Dot,
    ExactDistance,
    SmoothDistance,
)
from speechbrain_hyperbolic.nnet.fused import margin_softmax
from speechbrain_hyperbolic.nnet.margins import (
    AdditiveAngularMargin,
    AdditiveMargin,
    MarginSchedule,
    RealAdditiveMargin,
)
from tests.reference import naive_distance, naive_loss

BATCH, CLASSES, DIM = 6, 11, 5
SYSTEMS = {
    "softmax": (Dot(), AdditiveMargin, "additive"),
    "am": (Cosine(), AdditiveMargin, "additive"),
    "aam": (Cosine(), AdditiveAngularMargin, "angular"),
    "ram": (Cosine(), RealAdditiveMargin, "real"),
    "ham": (ClippedDistance(3.0), AdditiveMargin, "additive"),
    "exact": (ExactDistance(0.5), AdditiveMargin, "additive"),
    "smooth": (SmoothDistance(2.3), AdditiveMargin, "additive"),
}


def case(dtype=torch.float64, sub_centres=1, seed=0):
    """Embeddings and centres on both sides of the caps, and labels."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows):
        v = torch.randn(rows, DIM, generator=generator, dtype=torch.float64)
        length = 0.1 + torch.rand(rows, 1, generator=generator).double()
        return (v / v.norm(dim=1, keepdim=True) * length).to(dtype)

    x, w = draw(BATCH), draw(CLASSES * sub_centres)
    labels = torch.randint(CLASSES, (BATCH, 1), generator=generator)
    return x.requires_grad_(), w.requires_grad_(), labels


def naive_outputs(name, x, w, sub_centres):
    """By loops over pairs, in Python's floats."""

    def ball(v):
        """A point of the unit ball."""
        length = sum(a * a for a in v) ** 0.5
        if name == "ham":
            norm = min(length, (1 - 1e-5) / 3**0.5)
        elif name == "exact":
            norm = math.tanh(length * 0.5**0.5 / 2)
        else:
            norm = math.tanh(2.3 * math.tanh(length / 2.3) / 2)
        return [a * norm / length for a in v]

    def output(v, u):
        dot = sum(a * b for a, b in zip(v, u, strict=True))
        if name == "softmax":
            return dot
        if name in ("am", "aam", "ram"):
            norms = (sum(a * a for a in v) * sum(b * b for b in u)) ** 0.5
            return dot / norms
        unit = 0.5**-0.5 if name == "exact" else 1.0
        return -unit * naive_distance(ball(v), ball(u))

    rows = [[output(v, u) for u in w.tolist()] for v in x.tolist()]
    return [
        [max(row[i : i + sub_centres]) for i in range(0, len(row), sub_centres)]
        for row in rows
    ]


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)]
)
def test_against_loops(name, chunk_size, sub_centres, top_k, dtype, tolerance):
    similarity, loss_fn, kind = SYSTEMS[name]
    x, w, labels = case(dtype, sub_centres)
    truth = naive_loss(
        naive_outputs(name, x.double(), w.double(), sub_centres),
        labels.squeeze(1).tolist(),
        0.2,
        10.0,
        kind,
        top_k,
        0.1,
    )
    loss_fn = loss_fn(0.2, 10.0, top_k, 0.1)
    value = margin_softmax(
        x, w, labels, similarity, loss_fn, sub_centres, chunk_size
    )
    assert value.item() == pytest.approx(truth, rel=tolerance)
    assert value.dtype is dtype


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize("top_k", [0, 2])
def test_gradcheck(name, chunk_size, sub_centres, top_k):
    similarity, loss_fn, _ = SYSTEMS[name]
    x, w, labels = case(sub_centres=sub_centres)
    loss_fn = loss_fn(0.2, 5.0, top_k, 0.1)

    def loss(x, w):
        return margin_softmax(
            x, w, labels, similarity, loss_fn, sub_centres, chunk_size
        )

    assert torch.autograd.gradcheck(loss, (x, w))


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("sub_centres", [1, 3])
def test_gradient_by_curvature_and_scale(chunk_size, sub_centres):
    similarity = ExactDistance(0.5, learnable=True, learn_scale=True).double()
    x, w, labels = case(sub_centres=sub_centres)
    names = [name for name, _ in similarity.named_parameters()]
    assert len(names) == 2

    def loss(*thetas):
        with torch.no_grad():
            for theta, value in zip(
                similarity.parameters(), thetas, strict=True
            ):
                theta.copy_(value)
        return margin_softmax(
            x, w, labels, similarity, AdditiveMargin(), sub_centres, chunk_size
        )

    here = torch.full((2,), 0.2, dtype=torch.float64)
    loss(*here).backward()
    for i, theta in enumerate(similarity.parameters()):
        gradient = theta.grad.clone()
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = 1e-5
        with torch.no_grad():
            slope = (loss(*(here + step)) - loss(*(here - step))) / 2e-5
        torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("chunk_size", [1, 3, CLASSES - 1, CLASSES, 10**6])
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("top_k", [0, 3, 99])
def test_chunks_are_the_whole(chunk_size, name, top_k):
    similarity, loss_fn, _ = SYSTEMS[name]
    results = []
    for chunk in (None, chunk_size):
        x, w, labels = case(torch.float32)
        loss = margin_softmax(
            x,
            w,
            labels,
            similarity,
            loss_fn(0.2, 30.0, top_k, 0.1),
            chunk_size=chunk,
        )
        (2 * loss).backward()
        results.append((loss, x.grad, w.grad))
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("c", [1.0, 3.0])
def test_finite_at_extremes(c, chunk_size):
    """Origin, coincident and opposite points, norms from 1e-8 to 1e8."""
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(17, 192, generator=generator)
    v /= v.norm(dim=1, keepdim=True)
    w = torch.cat(
        [torch.zeros(1, 192), v * torch.logspace(-8, 8, 17).unsqueeze(1)]
    )
    for similarity in (
        Cosine(),
        ClippedDistance(c),
        ExactDistance(c),
        SmoothDistance(c),
    ):
        centres = w.clone().requires_grad_()
        x = torch.cat([w, -w]).requires_grad_()
        labels = torch.arange(18).repeat(2).unsqueeze(1)
        loss = margin_softmax(
            x, centres, labels, similarity, AdditiveMargin(), 1, chunk_size
        )
        loss.backward()
        for tensor in (loss, x.grad, centres.grad):
            assert tensor.isfinite().all(), similarity


def test_two_backwards():
    x, w, labels = case()
    loss = margin_softmax(x, w, labels, ClippedDistance(), AdditiveMargin())
    loss.backward(retain_graph=True)
    first = x.grad.clone(), w.grad.clone()
    loss.backward()
    torch.testing.assert_close((x.grad, w.grad), tuple(2 * g for g in first))


def test_deterministic():
    """The same bits, twice, and under the flag that forbids others."""
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for _ in range(2):
            x, w, labels = case(torch.float32)
            loss = margin_softmax(
                x, w, labels, ClippedDistance(), AdditiveMargin(top_k=2)
            )
            loss.backward()
            results.append((loss, x.grad, w.grad))
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_second_derivative_is_refused(chunk_size):
    x, w, labels = case()
    loss = margin_softmax(
        x, w, labels, Cosine(), AdditiveMargin(), chunk_size=chunk_size
    )
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, x, create_graph=True)


def test_compiles():
    """torch.compile accepts it as one graph, backward included."""
    x, w, labels = case(torch.float32)

    def step(x, w):
        return margin_softmax(x, w, labels, ClippedDistance(), AdditiveMargin())

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    results = []
    for function in (step, compiled):
        x.grad = w.grad = None
        loss = function(x, w)
        loss.backward()
        results.append((loss.detach(), x.grad, w.grad))
    torch.testing.assert_close(*results)


def test_margin_schedule_steps():
    x, w, labels = case()
    schedule = MarginSchedule(last_step=10)
    for chunk_size in (None, 4):
        margin_softmax(
            x, w, labels, Cosine(), AdditiveMargin(schedule), 1, chunk_size
        )
    assert schedule.steps == 2
    with torch.no_grad():
        margin_softmax(x, w, labels, Cosine(), AdditiveMargin(schedule))
    assert schedule.steps == 2


@pytest.mark.parametrize("chunk_size, matrices", [(None, 2.2), (200, 0.2)])
def test_memory(chunk_size, matrices):
    """Two [batch, classes] matrices at most; in chunks, none."""
    x = torch.randn(512, 4, requires_grad=True)
    w = torch.randn(10000, 4, requires_grad=True)
    labels = torch.randint(10000, (512, 1))

    def step():
        margin_softmax(
            x,
            w,
            labels,
            ClippedDistance(),
            AdditiveMargin(),
            chunk_size=chunk_size,
        ).backward()

    step()
    assert peak(step) < matrices * 4 * 512 * 10000


@pytest.mark.parametrize("labels", [[[3]], [[0], [1]], [[-1]]])
def test_labels_are_checked(labels):
    with pytest.raises(InputError):
        margin_softmax(
            torch.randn(1, 4),
            torch.randn(3, 4),
            torch.tensor(labels),
            Cosine(),
            AdditiveMargin(),
        )
