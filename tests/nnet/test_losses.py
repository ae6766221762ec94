"""The losses against naive loops, SpeechBrain's, and in chunks."""

import pytest
import torch
from speechbrain.nnet.losses import AdditiveAngularMargin as StockAngularMargin
from speechbrain.nnet.losses import AngularMargin, LogSoftmaxWrapper

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.losses import (
    JointLoss,
    MarginSoftmax,
    best_of,
    chunked_margin_softmax,
)
from speechbrain_hyperbolic.nnet.margins import (
    AdditiveAngularMargin,
    AdditiveMargin,
    RealAdditiveMargin,
)
from speechbrain_hyperbolic.nnet.similarity import (
    ClippedDistance,
    Cosine,
    ExponentialDistance,
    InnerProduct,
    SmoothCapDistance,
)
from tests.nnet.reference import naive_loss

MARGINS = {
    "additive": AdditiveMargin,
    "real": RealAdditiveMargin,
    "angular": AdditiveAngularMargin,
}
WRAPPERS = {"ours": MarginSoftmax, "stock": LogSoftmaxWrapper}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize("top_k", [0, 3, 50])
@pytest.mark.parametrize("margin, scale", [(0, 1), (0.2, 30), (0.7, 8)])
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-5)]
)
def test_against_loops(wrapper, kind, top_k, margin, scale, dtype, tolerance):
    torch.manual_seed(0)
    outputs = (2 * torch.rand(7, 1, 11) - 1).to(dtype)
    labels = torch.randint(11, (7, 1))
    truth = naive_loss(
        outputs.squeeze(1).tolist(),
        labels.squeeze(1).tolist(),
        margin,
        scale,
        kind,
        top_k,
        penalty=0.1,
    )
    loss_fn = MARGINS[kind](margin, scale, top_k, penalty=0.1)
    value = WRAPPERS[wrapper](loss_fn)(outputs, labels, torch.ones(7))
    assert value.item() == pytest.approx(truth, rel=tolerance)
    assert value.dtype is dtype


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize("top_k", [0, 2])
def test_gradcheck(kind, top_k):
    torch.manual_seed(1)
    outputs = (2 * torch.rand(5, 1, 6, dtype=torch.float64) - 1) * 0.9
    labels = torch.randint(6, (5, 1))
    loss = MarginSoftmax(MARGINS[kind](0.2, 5.0, top_k, 0.1))
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels), outputs.requires_grad_()
    )


@pytest.mark.parametrize(
    "ours, stock",
    [
        (AdditiveMargin, AngularMargin),
        (AdditiveAngularMargin, StockAngularMargin),
    ],
)
def test_against_the_stock_margins(ours, stock):
    """Loss and gradient, cosines of 1 and -1 included."""
    torch.manual_seed(2)
    cosines = 2 * torch.rand(9, 1, 12) - 1
    cosines[0, 0, :3] = torch.tensor([1.0, -1.0, 0.0])
    labels = torch.arange(9).unsqueeze(1) // 3
    values, gradients = [], []
    for loss in (
        MarginSoftmax(ours(0.3, 20.0)),
        LogSoftmaxWrapper(stock(margin=0.3, scale=20.0)),
    ):
        x = cosines.clone().requires_grad_()
        loss(x, labels).backward()
        values.append(loss(x, labels).detach())
        gradients.append(x.grad)
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-5)
    # A non-target cosine of 1 is clamped by the stock loss alone.
    gradients[1][cosines.abs() == 1] = gradients[0][cosines.abs() == 1]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)
    assert gradients[0].isfinite().all()


def test_shapes():
    """Outputs with and without the dimension of one frame, and targets."""
    loss = MarginSoftmax(AdditiveMargin())
    outputs, labels = torch.randn(5, 7), torch.randint(7, (5,))
    expected = loss(outputs, labels)
    for x in (outputs, outputs.unsqueeze(1)):
        for y in (labels, labels.unsqueeze(1), labels.float()):
            assert torch.equal(loss(x, y), expected)
    one_class = loss(torch.randn(5, 1), torch.zeros(5))
    assert one_class == 0


def test_half_precision_and_backward_twice():
    outputs = torch.randn(2, 1, 3, dtype=torch.bfloat16, requires_grad=True)
    before = outputs.detach().clone()
    with torch.autocast("cpu", torch.bfloat16):
        loss = MarginSoftmax(AdditiveMargin())(outputs, torch.tensor([0, 2]))
    assert loss.dtype is torch.float32
    loss.backward(retain_graph=True)
    first = outputs.grad.clone()
    loss.backward()
    assert torch.equal(outputs.grad, 2 * first)
    assert torch.equal(outputs, before)  # not overwritten


def test_second_derivative_is_refused():
    outputs = torch.randn(2, 1, 3, requires_grad=True)
    loss = MarginSoftmax(AdditiveMargin())(outputs, torch.tensor([[0], [2]]))
    (gradient,) = torch.autograd.grad(loss.square(), outputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# Joint losses


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_joint_loss_is_the_weighted_sum(kind):
    first = WRAPPERS[kind](AdditiveMargin())
    second = WRAPPERS[kind](RealAdditiveMargin())
    outputs, labels = torch.randn(4, 2, 9), torch.randint(9, (4,))
    joint = JointLoss([first, second], [0.7, 0.3])(outputs, labels)
    apart = 0.7 * first(outputs[:, :1], labels.unsqueeze(1))
    apart = apart + 0.3 * second(outputs[:, 1:], labels.unsqueeze(1))
    torch.testing.assert_close(joint, apart)


def test_joint_loss_needs_a_head_for_each_loss():
    ham = MarginSoftmax(AdditiveMargin())
    joint = JointLoss([ham, ham], [0.7, 0.3])
    for shape in ((1, 1, 3), (1, 3)):
        with pytest.raises(InputError, match=r"expected \[batch, 2, classes\]"):
            joint(torch.zeros(shape), torch.zeros(1, 1))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, "x"]])
def test_weights_out_of_range(weights):
    ham = MarginSoftmax(AdditiveMargin())
    with pytest.raises(InputError, match="weights are"):
        JointLoss([ham, ham], weights)


# Mistakes


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (0, 1), (2, 2), ()])
def test_not_a_target_for_each_row(shape):
    labels = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(InputError, match="the targets have shape"):
        MarginSoftmax(AdditiveMargin())(torch.zeros(2, 1, 3), labels)


def test_no_rows():
    with pytest.raises(InputError, match="at least one row"):
        MarginSoftmax(AdditiveMargin())(torch.zeros(0, 1, 3), torch.zeros(0, 1))


@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_classes(label):
    labels = torch.tensor([[0], [label]])
    with pytest.raises(InputError, match=rf"label {label} is outside \[0, 3\)"):
        MarginSoftmax(AdditiveMargin())(torch.zeros(2, 1, 3), labels)


def test_a_stock_margin_is_refused():
    with pytest.raises(InputError, match="expected a margin of nnet.margins"):
        MarginSoftmax(AngularMargin(margin=0.2, scale=30))


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5, "all"])
def test_chunk_size_out_of_range(chunk_size):
    with pytest.raises(InputError, match="chunk_size is"):
        MarginSoftmax(AdditiveMargin(), chunk_size)


# Very many classes

BATCH, CLASSES, DIM = 6, 11, 5
SYSTEMS = {
    "softmax": (InnerProduct(), AdditiveMargin),
    "aam": (Cosine(), AdditiveAngularMargin),
    "ram": (Cosine(), RealAdditiveMargin),
    "ham": (ClippedDistance(3.0), AdditiveMargin),
    "exponential": (
        ExponentialDistance(0.5, learn_curvature=True, learn_scale=True),
        AdditiveMargin,
    ),
    "smooth_cap": (SmoothCapDistance(2.3), AdditiveMargin),
}


def case(sub_centers=1, batch=BATCH, classes=CLASSES, dim=DIM):
    """Embeddings and centers on both sides of the caps, and labels."""
    torch.manual_seed(0)
    x, w = (
        torch.nn.functional.normalize(torch.randn(rows, dim).double())
        * (0.1 + torch.rand(rows, 1))
        for rows in (batch, classes * sub_centers)
    )
    labels = torch.randint(classes, (batch,))
    return x.requires_grad_(), w.requires_grad_(), labels


def both_ways(x, w, labels, similarity, loss_fn, chunk_size, sub_centers=1):
    """Loss and gradients, from the whole matrix and in chunks."""
    inputs = [x, w, *similarity.parameters()]
    outputs = best_of(similarity(x, w), sub_centers)
    for loss in (
        MarginSoftmax(loss_fn)(outputs, labels),
        chunked_margin_softmax(
            x, w, labels, similarity, loss_fn, chunk_size, sub_centers
        ),
    ):
        yield loss, *torch.autograd.grad(2 * loss, inputs)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("chunk_size", [1, 4, CLASSES, 10**6])
@pytest.mark.parametrize("sub_centers", [1, 3])
def test_chunks_are_the_whole(name, chunk_size, sub_centers):
    similarity, margin = SYSTEMS[name]
    loss_fn = margin(0.2, 10.0)
    whole, chunks = both_ways(
        *case(sub_centers),
        similarity.double(),
        loss_fn,
        chunk_size,
        sub_centers,
    )
    for expected, found in zip(whole, chunks, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_chunks_have_no_top_k():
    x, w, labels = case()
    with pytest.raises(InputError, match="top_k is 2, expected 0"):
        chunked_margin_softmax(
            x, w, labels, Cosine(), AdditiveMargin(top_k=2), 4
        )


def test_chunks_under_autocast():
    """The same in float32, where forward and backward are under autocast."""
    x, w, labels = (v.detach().float() for v in case())
    results = []
    for enabled in (False, True):
        pair = [v.clone().requires_grad_() for v in (x, w)]
        with torch.autocast("cpu", torch.bfloat16, enabled):
            loss = chunked_margin_softmax(
                *pair, labels, ClippedDistance(), AdditiveMargin(), 4
            )
            results.append((loss, *torch.autograd.grad(loss, pair)))
    assert all(map(torch.equal, *results))


def peak(function):
    """Bytes: the most that a call holds at one time, by torch's profiler."""
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True) as p:
        function()
    now = most = 0
    for event in p.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_a_million_classes():
    """The loss of the whole matrix, in less than half its memory."""
    batch, classes = 16, 10**6
    x, w, labels = case(batch=batch, classes=classes, dim=4)
    x, w = (v.detach().float().requires_grad_() for v in (x, w))
    cost = ClippedDistance(), AdditiveMargin()

    def step():
        chunked_margin_softmax(x, w, labels, *cost, 20000).backward()

    assert peak(step) < batch * classes * 4 / 2
    whole, chunks = both_ways(x, w, labels, *cost, 20000)
    for expected, found in zip(whole, chunks, strict=True):
        largest = expected.abs().max()
        assert (found - expected).abs().max() < 1e-3 * largest
