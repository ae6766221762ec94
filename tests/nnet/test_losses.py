"""The losses against naive loops, SpeechBrain's, and in chunks."""

import pytest
import torch
from speechbrain.nnet.losses import AdditiveAngularMargin as StockAngularMargin
from speechbrain.nnet.losses import LogSoftmaxWrapper

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import (
    AdditiveAngularMargin,
    AdditiveMargin,
    RealAdditiveMargin,
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
    outputs = (2 * torch.rand(7, 1, 11) - 1).to(dtype)
    labels = torch.randint(11, (7, 1))
    lists = outputs.squeeze(1).tolist(), labels.squeeze(1).tolist()
    truth = naive_loss(*lists, margin, scale, kind, top_k, penalty=0.1)
    loss_fn = MARGINS[kind](margin, scale, top_k, penalty=0.1)
    value = wrapper(loss_fn)(outputs, labels, torch.ones(7))
    assert value.item() == pytest.approx(truth, rel=tolerance)
    assert value.dtype is dtype


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize("top_k", [0, 2])
def test_gradcheck(kind, top_k):
    outputs = (2 * torch.rand(5, 1, 6, dtype=torch.float64) - 1) * 0.9
    labels = torch.randint(6, (5, 1))
    loss = MarginSoftmax(MARGINS[kind](0.2, 5.0, top_k, 0.1))
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels), outputs.requires_grad_()
    )


def test_angles_of_zero_and_pi():
    """The stock loss, and gradients that are finite."""
    cosines = torch.tensor([1.0, -1.0, 0.0]).repeat(3, 1, 1).requires_grad_()
    labels = torch.arange(3).unsqueeze(1)
    value = MarginSoftmax(AdditiveAngularMargin(0.3, 20.0))(cosines, labels)
    stock = LogSoftmaxWrapper(StockAngularMargin(margin=0.3, scale=20.0))
    expected = stock(cosines, labels)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    value.backward()
    assert cosines.grad.isfinite().all()


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


@pytest.mark.parametrize("wrapper", [MarginSoftmax, LogSoftmaxWrapper])
def test_joint_loss_is_the_weighted_sum(wrapper):
    first, second = wrapper(AdditiveMargin()), wrapper(RealAdditiveMargin())
    outputs, labels = torch.randn(4, 2, 9), torch.randint(9, (4,))
    joint = JointLoss([first, second], [0.7, 0.3])(outputs, labels)
    apart = 0.7 * first(outputs[:, :1], labels.unsqueeze(1))
    apart = apart + 0.3 * second(outputs[:, 1:], labels.unsqueeze(1))
    torch.testing.assert_close(joint, apart)


SYSTEMS = {
    "softmax": ({"map": "inner_product"}, AdditiveMargin),
    "aam": ({"map": "cosine"}, AdditiveAngularMargin),
    "ram": ({"map": "cosine"}, RealAdditiveMargin),
    "ham": ({"map": "clip"}, AdditiveMargin),
    "exponential": (
        {"map": "exponential", "learn_curvature": True, "learn_scale": True},
        AdditiveMargin,
    ),
    "smooth_cap": ({"map": "smooth_cap"}, AdditiveMargin),
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("chunk_size", [1, 4, 11, 10**6])
@pytest.mark.parametrize("classes, sub_centers", [(11, 3), (1, 1)])
def test_chunks_are_the_whole(name, chunk_size, classes, sub_centers):
    options, margin = SYSTEMS[name]
    head = HyperbolicClassifier(
        5, out_neurons=classes, sub_centers=sub_centers, **options
    ).double()
    torch.nn.init.normal_(head.weight, std=0.3)
    x = 0.3 * torch.randn(6, 5, dtype=torch.float64)
    inputs = [x.requires_grad_(), *head.parameters()]
    labels = torch.randint(classes, (6,))
    results = []
    for size in (None, chunk_size):
        loss = head(x, labels, MarginSoftmax(margin(0.2, 10.0), size))
        results.append((loss, *torch.autograd.grad(2 * loss, inputs)))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize(
    "labels, message",
    [
        (torch.zeros(2, 2), "the targets have shape"),
        (torch.zeros(()), "the targets have shape"),
        (torch.tensor([[0], [-1]]), r"label -1 is outside \[0, 3\)"),
        (torch.tensor([[0], [3]]), r"label 3 is outside \[0, 3\)"),
    ],
)
def test_labels_out_of_range(labels, message, chunk_size):
    head = HyperbolicClassifier(3, out_neurons=3)
    cost = MarginSoftmax(AdditiveMargin(), chunk_size)
    with pytest.raises(InputError, match=message):
        head(torch.zeros(2, 3), labels, cost)
