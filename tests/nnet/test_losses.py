"""The losses against naive loops, SpeechBrain's, and in chunks."""

import pytest
import torch
from speechbrain.nnet.losses import AdditiveAngularMargin as StockAngularMargin
from speechbrain.nnet.losses import AngularMargin, LogSoftmaxWrapper

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.chunks import chunked_margin_softmax
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
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
    compare,
)
from tests.nnet.reference import naive_loss

MARGINS = {
    "additive": AdditiveMargin,
    "real": RealAdditiveMargin,
    "angular": AdditiveAngularMargin,
}


@pytest.mark.parametrize("wrapper", [MarginSoftmax, LogSoftmaxWrapper])
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
    value = wrapper(loss_fn)(outputs, labels, torch.ones(7))
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


def test_half_precision_and_backward_twice():
    outputs = torch.randn(2, 1, 3, dtype=torch.bfloat16, requires_grad=True)
    before = outputs.detach().clone()
    loss = MarginSoftmax(AdditiveMargin())(outputs, torch.tensor([0, 2]))
    assert loss.dtype is torch.float32
    loss.backward(retain_graph=True)
    first = outputs.grad.clone()
    loss.backward()
    assert torch.equal(outputs.grad, 2 * first)
    assert torch.equal(outputs, before)  # not overwritten


def test_one_class():
    loss = MarginSoftmax(AdditiveMargin(top_k=2))
    assert loss(torch.randn(5, 1), torch.zeros(5)) == 0


@pytest.mark.parametrize("wrapper", [MarginSoftmax, LogSoftmaxWrapper])
def test_joint_loss_is_the_weighted_sum(wrapper):
    first, second = wrapper(AdditiveMargin()), wrapper(RealAdditiveMargin())
    outputs, labels = torch.randn(4, 2, 9), torch.randint(9, (4,))
    joint = JointLoss([first, second], [0.7, 0.3])(outputs, labels)
    apart = 0.7 * first(outputs[:, :1], labels.unsqueeze(1))
    apart = apart + 0.3 * second(outputs[:, 1:], labels.unsqueeze(1))
    torch.testing.assert_close(joint, apart)


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


def case(classes=CLASSES, sub_centers=1):
    """Embeddings and centers on both sides of the caps, and labels."""
    torch.manual_seed(0)
    x, w = (
        torch.nn.functional.normalize(torch.randn(rows, DIM).double())
        * (0.1 + torch.rand(rows, 1))
        for rows in (BATCH, classes * sub_centers)
    )
    w = w.unflatten(0, (classes, sub_centers))
    labels = torch.randint(classes, (BATCH,))
    return x.requires_grad_(), w.requires_grad_(), labels


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("chunk_size", [1, 4, CLASSES, 10**6])
@pytest.mark.parametrize("classes, sub_centers", [(CLASSES, 3), (1, 1)])
def test_chunks_are_the_whole(name, chunk_size, classes, sub_centers):
    """Loss and gradients."""
    similarity, margin = SYSTEMS[name]
    similarity, loss_fn = similarity.double(), margin(0.2, 10.0)
    x, w, labels = case(classes, sub_centers)
    whole = MarginSoftmax(loss_fn)(compare(similarity, x, w), labels)
    chunks = chunked_margin_softmax(
        x, w, labels, similarity, loss_fn, chunk_size
    )
    inputs = [x, w, *similarity.parameters()]
    for expected, found in zip(
        (whole, *torch.autograd.grad(2 * whole, inputs)),
        (chunks, *torch.autograd.grad(2 * chunks, inputs)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# Mistakes


HAM = MarginSoftmax(AdditiveMargin())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: JointLoss([HAM], ["x"]), "weights are"),
        (lambda: JointLoss([HAM, HAM], [1.0]), "weights are"),
        (lambda: JointLoss([HAM, HAM], [1.0, -1.0]), "weights are"),
        (
            lambda: JointLoss([HAM, HAM], [1, 1])(torch.zeros(1, 1, 3), None),
            r"expected \[batch, 2, classes\]",
        ),
        (
            lambda: MarginSoftmax(AngularMargin(margin=0.2, scale=30)),
            "expected a margin of nnet.margins",
        ),
        (lambda: MarginSoftmax(AdditiveMargin(), 0), "chunk_size is 0"),
        (lambda: MarginSoftmax(AdditiveMargin(), "all"), "chunk_size is all"),
        (
            lambda: chunked_margin_softmax(
                *case(), Cosine(), AdditiveMargin(top_k=2), 4
            ),
            "top_k is 2, expected 0",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize(
    "labels, message",
    [
        (torch.zeros(1, 1), "the targets have shape"),
        (torch.zeros(3), "the targets have shape"),
        (torch.zeros(2, 2), "the targets have shape"),
        (torch.zeros(()), "the targets have shape"),
        (torch.tensor([[0], [-1]]), r"label -1 is outside \[0, 3\)"),
        (torch.tensor([[0], [3]]), r"label 3 is outside \[0, 3\)"),
    ],
)
def test_labels_out_of_range(labels, message, chunk_size):
    x, w = torch.zeros(2, 3), torch.zeros(3, 1, 3)
    with pytest.raises(InputError, match=message):
        if chunk_size is None:
            HAM(x, labels)
        else:
            chunked_margin_softmax(
                x, w, labels, Cosine(), AdditiveMargin(), chunk_size
            )


def test_no_rows():
    with pytest.raises(InputError, match="at least one row"):
        HAM(torch.zeros(0, 1, 3), torch.zeros(0, 1))
