"""The losses against naive loops, and against SpeechBrain's."""

import pytest
import torch
from speechbrain.nnet.losses import (
    AdditiveAngularMargin as StockAngularMargin,
)
from speechbrain.nnet.losses import AngularMargin, LogSoftmaxWrapper

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import (
    AdditiveAngularMargin,
    AdditiveMargin,
    RealAdditiveMargin,
)
from tests.reference import naive_loss

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


def test_joint_loss_is_the_weighted_sum():
    outputs = torch.randn(4, 2, 9, requires_grad=True)
    labels = torch.randint(9, (4, 1))
    ham, ram = (
        MarginSoftmax(AdditiveMargin()),
        MarginSoftmax(RealAdditiveMargin()),
    )
    joint = JointLoss([ham, ram], [0.7, 0.3])(outputs, labels)
    apart = 0.7 * ham(outputs[:, :1], labels)
    apart = apart + 0.3 * ram(outputs[:, 1:], labels)
    torch.testing.assert_close(joint, apart)


def test_joint_loss_of_stock_losses():
    stock = LogSoftmaxWrapper(AngularMargin(margin=0.2, scale=30))
    outputs, labels = torch.randn(4, 2, 9), torch.randint(9, (4, 1))
    joint = JointLoss([stock, stock], [1.0, 1.0])(outputs, labels)
    apart = stock(outputs[:, :1], labels) + stock(outputs[:, 1:], labels)
    torch.testing.assert_close(joint, apart)


def test_joint_loss_needs_a_head_for_each_loss():
    ham = MarginSoftmax(AdditiveMargin())
    with pytest.raises(InputError, match="1 heads for 2 losses"):
        JointLoss([ham, ham], [0.7, 0.3])(
            torch.zeros(1, 1, 3), torch.zeros(1, 1)
        )


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, "x"]])
def test_weights_out_of_range(weights):
    ham = MarginSoftmax(AdditiveMargin())
    with pytest.raises(InputError, match="weights are"):
        JointLoss([ham, ham], weights)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (0, 1)])
def test_not_a_target_for_each_row(shape):
    labels = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(InputError, match="expected one target for each"):
        MarginSoftmax(AdditiveMargin())(torch.zeros(2, 1, 3), labels)


def test_no_rows():
    with pytest.raises(InputError, match="at least one row"):
        MarginSoftmax(AdditiveMargin())(torch.zeros(0, 1, 3), torch.zeros(0, 1))


def test_second_derivative_is_refused():
    outputs = torch.randn(2, 1, 3, requires_grad=True)
    loss = MarginSoftmax(AdditiveMargin())(outputs, torch.tensor([[0], [2]]))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, outputs, create_graph=True)


def test_outputs_are_not_overwritten():
    outputs = torch.randn(2, 1, 3)
    before = outputs.clone()
    MarginSoftmax(AdditiveMargin())(outputs, torch.tensor([[0], [2]]))
    assert torch.equal(outputs, before)


def test_half_precision_outputs_are_lifted():
    outputs = torch.randn(2, 1, 3, dtype=torch.bfloat16)
    loss = MarginSoftmax(AdditiveMargin())(outputs, torch.tensor([[0], [2]]))
    assert loss.dtype is torch.float32


def test_a_stock_margin_is_refused():
    with pytest.raises(InputError, match="expected a margin of nnet.margins"):
        MarginSoftmax(AngularMargin(margin=0.2, scale=30))


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5, "all"])
def test_chunk_size_out_of_range(chunk_size):
    with pytest.raises(InputError, match="chunk_size is"):
        MarginSoftmax(AdditiveMargin(), chunk_size)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_classes(label):
    labels = torch.tensor([[0], [label]])
    with pytest.raises(InputError, match=rf"label {label} is outside \[0, 3\)"):
        MarginSoftmax(AdditiveMargin())(torch.zeros(2, 1, 3), labels)
