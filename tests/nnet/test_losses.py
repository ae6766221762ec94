"""The losses against naive loops."""

import pytest
import torch

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.losses import AdditiveMarginSoftmax
from tests.reference import naive_additive_margin


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.5])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_additive_margin_against_loop(margin, scale, dtype):
    torch.manual_seed(0)
    outputs = -3 * torch.rand(7, 1, 11, dtype=dtype)
    labels = torch.randint(11, (7, 1))
    truth = naive_additive_margin(
        outputs.squeeze(1).double(), labels.squeeze(1).tolist(), margin, scale
    )
    value = AdditiveMarginSoftmax(margin, scale)(outputs, labels, torch.ones(7))
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    assert value.item() == pytest.approx(truth.item(), rel=tolerance)
    assert value.dtype is dtype


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (0, 1)])
def test_not_a_target_for_each_row(shape):
    labels = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(InputError, match="expected one target for each"):
        AdditiveMarginSoftmax()(torch.zeros(2, 1, 3), labels)


def test_no_rows():
    with pytest.raises(InputError, match="at least one row"):
        AdditiveMarginSoftmax()(torch.zeros(0, 1, 3), torch.zeros(0, 1))


def test_second_derivative_is_refused():
    outputs = torch.randn(2, 1, 3, requires_grad=True)
    loss = AdditiveMarginSoftmax()(outputs, torch.tensor([[0], [2]]))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, outputs, create_graph=True)


def test_half_precision_outputs_are_lifted():
    outputs = torch.randn(2, 1, 3, dtype=torch.bfloat16)
    loss = AdditiveMarginSoftmax()(outputs, torch.tensor([[0], [2]]))
    assert loss.dtype is torch.float32


@pytest.mark.parametrize("margin", [-0.1, float("nan"), "0.2", None])
def test_margin_out_of_range(margin):
    with pytest.raises(InputError, match="margin is .* expected"):
        AdditiveMarginSoftmax(margin=margin)


@pytest.mark.parametrize("scale", [0, -1, float("inf"), "x", None])
def test_scale_out_of_range(scale):
    with pytest.raises(InputError, match="scale is .* expected"):
        AdditiveMarginSoftmax(scale=scale)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_classes(label):
    labels = torch.tensor([[0], [label]])
    with pytest.raises(InputError, match=rf"label {label} is outside \[0, 3\)"):
        AdditiveMarginSoftmax()(torch.zeros(2, 1, 3), labels)
