"""The hyperbolic head: golden values, gradients, extremes."""

import json
import pathlib

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AngularMargin, LogSoftmaxWrapper

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.heads import (
    CentreClassifier,
    HyperbolicClassifier,
    JointClassifier,
    fuses,
)
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from tests.reference import published_distances

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "ham_official.json"
CASES = json.loads(GOLDEN.read_text())


def head_of(centres, c):
    head = HyperbolicClassifier(
        input_size=centres.shape[1], out_neurons=len(centres), c=c
    ).to(centres.dtype)
    head.weight.data.copy_(centres)
    return head


def relative(value, truth):
    """Largest error, relative to the largest true value of each row."""
    truth = torch.as_tensor(truth, dtype=torch.float64)
    error = (value.detach().double() - truth).abs()
    return (error / truth.abs().amax(-1, keepdim=True)).max().item()


def ours(margin=0.2, scale=30.0, chunk_size=None):
    return MarginSoftmax(AdditiveMargin(margin, scale), chunk_size)


# From a head and embeddings to the loss, in every way there is.
LOSSES = {
    "ours": lambda head, x, y, **kw: ours(**kw)(head(x), y),
    "fused": lambda head, x, y, **kw: head(x, y, ours(**kw)),
    "chunked": lambda head, x, y, **kw: head(x, y, ours(**kw, chunk_size=2)),
    "stock": lambda head, x, y, **kw: LogSoftmaxWrapper(AngularMargin(**kw))(
        head(x), y
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda k: f"c{k['c']:g}")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "dtype, tol, grad_tol",
    [(torch.float64, 1e-6, 1e-5), (torch.float32, 1e-4, 1e-4)],
    ids=["float64", "float32"],
)
def test_golden(case, loss, dtype, tol, grad_tol):
    """Distances, loss and gradients of the authors' formula."""
    x = torch.tensor(case["embeddings"], dtype=dtype, requires_grad=True)
    head = head_of(torch.tensor(case["centers"], dtype=dtype), case["c"])
    labels = torch.tensor(case["labels"]).unsqueeze(1)

    outputs = head(x.unsqueeze(1))
    truth = torch.tensor(case["distances"], dtype=torch.float64)
    error = (-outputs.squeeze(1).double() - truth).abs() / truth
    assert error.max() < tol

    value = LOSSES[loss](
        head,
        x.unsqueeze(1),
        labels,
        margin=case["margin"],
        scale=case["scale"],
    )
    assert abs(value.item() / case["loss"] - 1) < tol
    value.backward()
    assert relative(x.grad, case["grad_embeddings"]) < grad_tol
    assert relative(head.weight.grad, case["grad_centers"]) < grad_tol


@pytest.mark.parametrize("c", [1.5, 3.0, 5.0])
def test_against_broadcast_formula(c):
    """More points than the golden file, on both sides of the cap."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 192, generator=generator, dtype=torch.float64)
    w = torch.randn(30, 192, generator=generator, dtype=torch.float64)
    x *= torch.logspace(-5, 2, 20, dtype=torch.float64).unsqueeze(1)
    w *= torch.logspace(-5, 2, 30, dtype=torch.float64).unsqueeze(1)
    ours = -head_of(w, c)(x.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(
        ours, published_distances(x, w, c), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("norm", [1e-3, 0.2, 0.5, 3.0])
def test_gradcheck(norm):
    """Closed form against finite differences, inside and beyond the cap."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    w = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    x = (norm * x / x.norm(dim=1, keepdim=True)).requires_grad_()
    head = head_of(norm * w / w.norm(dim=1, keepdim=True), 3.0)

    def outputs(x, weight):
        return torch.func.functional_call(
            head, {"weight": weight}, x.unsqueeze(1)
        )

    assert torch.autograd.gradcheck(
        outputs,
        (x, head.weight.detach().requires_grad_()),
        eps=1e-7 * norm,
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("c", [1.0, 3.0])
@pytest.mark.parametrize("loss", ["ours", "fused", "chunked"])
def test_finite_at_extremes(loss, c, dtype):
    """Origin, coincident points, norms from 1e-8 to 1e8: all finite."""
    generator = torch.Generator().manual_seed(2)
    directions = torch.nn.functional.normalize(
        torch.randn(17, 192, generator=generator)
    )
    norms = torch.logspace(-8, 8, 17).unsqueeze(1)
    centres = torch.cat([torch.zeros(1, 192), norms * directions])
    head = head_of(centres, c)
    x = torch.cat([centres, -centres]).to(dtype).requires_grad_()
    labels = torch.arange(18).repeat(2).unsqueeze(1)

    with torch.autocast("cpu", torch.bfloat16, dtype is torch.bfloat16):
        outputs = head(x.unsqueeze(1))
        value = LOSSES[loss](head, x.unsqueeze(1), labels)
    value.backward()
    assert outputs.dtype is value.dtype is torch.float32
    for tensor in (outputs, value, x.grad, head.weight.grad):
        assert tensor.isfinite().all()


def test_coincident_point_and_centre():
    """Distance and gradient vanish, up to float32's resolution."""
    x = torch.full((1, 4), 0.1, requires_grad=True)
    outputs = head_of(x.detach(), 3.0)(x.unsqueeze(1))
    outputs.sum().backward()
    assert -1e-3 < outputs.item() <= 0
    assert x.grad.abs().max() == 0


def test_gradient_at_the_origin():
    """An embedding at the origin is pulled towards a centre, not stuck.

    The ball's metric is 2 |dx| there, so the slope of the distance is 2.
    """
    x = torch.zeros(1, 1, 2, requires_grad=True)
    head_of(torch.tensor([[0.3, 0.0]]), 3.0)(x).sum().backward()
    torch.testing.assert_close(x.grad[0, 0], torch.tensor([2.0, 0.0]))


def test_autocast_keeps_float32_distances():
    """The bf16 product is not taken: same distances as without autocast."""
    head = HyperbolicClassifier(input_size=64, out_neurons=50)
    x = torch.randn(8, 1, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(x)
    torch.testing.assert_close(inside, head(x), rtol=0, atol=0)


def test_beyond_the_cap_is_a_reshaped_cosine():
    """d = arcosh(1 + k (1 - cos)), k = 3 at c = 3 (both on the cap)."""
    x = 10 * torch.randn(6, 1, 32, dtype=torch.float64)
    w = 10 * torch.randn(7, 32, dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity(x, w.unsqueeze(0), dim=-1)
    distance = -head_of(w, 3.0)(x).squeeze(1)
    torch.testing.assert_close(
        distance, torch.acosh(1 + 3 * (1 - cosine)), rtol=1e-4, atol=0
    )


def test_drop_in_for_the_stock_classifier():
    """Same arguments, same parameter names, same output shape."""
    options = dict(input_size=8, lin_blocks=1, lin_neurons=6, out_neurons=5)
    ours, stock = HyperbolicClassifier(**options), Classifier(**options)
    shapes = [
        {k: v.shape for k, v in m.state_dict().items()} for m in (ours, stock)
    ]
    assert shapes[0] == shapes[1]
    x = torch.randn(3, 1, 8)
    assert ours(x).shape == stock(x).shape == (3, 1, 5)


def test_initial_centres():
    """N(0, 1e-3^2), as published."""
    torch.manual_seed(0)
    head = HyperbolicClassifier(input_size=192, out_neurons=1000)
    assert head.weight.std().item() == pytest.approx(1e-3, rel=0.01)
    assert abs(head.weight.mean().item()) < 1e-5


@pytest.mark.parametrize("c", [0, 0.5, -3, float("nan"), float("inf")])
def test_c_out_of_range(c):
    with pytest.raises(InputError, match="c is .* expected"):
        HyperbolicClassifier(input_size=4, out_neurons=2, c=c)


def test_compiles():
    """torch.compile accepts head and loss as one graph."""
    head = HyperbolicClassifier(input_size=16, out_neurons=9)
    x, labels = torch.randn(4, 1, 16), torch.randint(9, (4, 1))

    def step(x):
        return ours()(head(x), labels)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), step(x))


def test_sub_centres_take_the_nearest():
    head = CentreClassifier(8, out_neurons=5, sub_centres=3, init_std=1.0)
    x = torch.randn(4, 1, 8)
    every = torch.nn.functional.cosine_similarity(x, head.weight, dim=-1)
    nearest = every.view(4, 5, 3).amax(2)
    torch.testing.assert_close(head(x).squeeze(1), nearest)


@pytest.mark.parametrize("sub_centres", [0, -1, 1.5, "3"])
def test_sub_centres_out_of_range(sub_centres):
    with pytest.raises(InputError, match="sub_centres is .* expected"):
        CentreClassifier(8, out_neurons=5, sub_centres=sub_centres)


def test_joint_head():
    """Both ways to the joint loss: by outputs, and fused."""
    heads = [
        HyperbolicClassifier(8, out_neurons=5),
        CentreClassifier(8, out_neurons=5),
    ]
    joint = JointClassifier(heads)
    cost = JointLoss([ours(), ours(0.1, 10.0)], [0.7, 0.3])
    x, labels = torch.randn(4, 1, 8), torch.randint(5, (4, 1))
    outputs = joint(x)
    assert outputs.shape == (4, 2, 5)
    torch.testing.assert_close(outputs[:, 1:], heads[1](x))
    torch.testing.assert_close(joint(x, labels, cost), cost(outputs, labels))


def test_what_fuses():
    head = HyperbolicClassifier(8, out_neurons=5)
    stock = LogSoftmaxWrapper(AngularMargin(margin=0.2, scale=30))
    joint = JointClassifier([head, head])
    assert fuses(head, ours())
    assert fuses(joint, JointLoss([ours(), ours()], [1.0, 1.0]))
    assert not fuses(head, stock)
    assert not fuses(Classifier(8, out_neurons=5), ours())
    assert not fuses(joint, JointLoss([ours(), stock], [1.0, 1.0]))
    assert not fuses(joint, JointLoss([ours()], [1.0]))
