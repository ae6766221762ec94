"""The heads: golden values, extremes, drop-in for the stock classifier."""

import json
import pathlib

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AngularMargin, LogSoftmaxWrapper

from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.nnet.similarity import MAPS

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "ham_official.json"
CASES = json.loads(GOLDEN.read_text())


def head_of(centers, c=3.0, **options):
    head = HyperbolicClassifier(
        centers.shape[1], out_neurons=len(centers), c=c, **options
    ).to(centers.dtype)
    head.weight.data.copy_(centers)
    return head


def relative(value, truth):
    """Largest error, relative to the largest true value of each row."""
    truth = torch.as_tensor(truth, dtype=torch.float64)
    error = (value.detach().double() - truth).abs()
    return (error / truth.abs().amax(-1, keepdim=True)).max().item()


def ours(margin=0.2, scale=30.0, chunk_size=None):
    return MarginSoftmax(AdditiveMargin(margin, scale), chunk_size)


# From a head and embeddings to the loss, in every way there is
LOSSES = {
    "ours": lambda head, x, y, **kw: ours(**kw)(head(x), y),
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
    """Loss and gradients of the authors' formula."""
    x = torch.tensor(case["embeddings"], dtype=dtype, requires_grad=True)
    head = head_of(torch.tensor(case["centers"], dtype=dtype), case["c"])
    labels = torch.tensor(case["labels"]).unsqueeze(1)

    margin, scale = case["margin"], case["scale"]
    value = LOSSES[loss](
        head, x.unsqueeze(1), labels, margin=margin, scale=scale
    )
    assert abs(value.item() / case["loss"] - 1) < tol
    value.backward()
    assert relative(x.grad, case["grad_embeddings"]) < grad_tol
    assert relative(head.weight.grad, case["grad_centers"]) < grad_tol


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("map", MAPS)
@pytest.mark.parametrize("loss", LOSSES)
def test_finite_at_extremes(loss, map, dtype):
    """Origin, coincident points, norms from 1e-8 to 1e8: all finite."""
    directions = torch.nn.functional.normalize(torch.randn(17, 192))
    norms = torch.logspace(-8, 8, 17).unsqueeze(1)
    centers = torch.cat([torch.zeros(1, 192), norms * directions])
    head = head_of(centers, map=map)
    x = torch.cat([centers, -centers]).to(dtype).unsqueeze(1).requires_grad_()
    labels = torch.arange(18).repeat(2).unsqueeze(1)
    with torch.autocast("cpu", torch.bfloat16, dtype is torch.bfloat16):
        outputs = head(x)
        value = LOSSES[loss](head, x, labels, margin=0.2, scale=30.0)
        value.backward()
    assert outputs.dtype is value.dtype is torch.float32
    for tensor in (outputs, value, x.grad, head.weight.grad):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("where", ["forward", "backward", "both"])
@pytest.mark.parametrize("map", MAPS)
@pytest.mark.parametrize("loss", ["ours", "chunked"])
def test_autocast_changes_nothing(loss, map, where, dtype):
    """Neither the loss nor the gradients."""
    head = HyperbolicClassifier(64, out_neurons=50, map=map)
    x, labels = torch.randn(8, 1, 64), torch.randint(50, (8, 1))
    results = []
    for enabled in (False, True):
        leaf = x.clone().requires_grad_()
        head.zero_grad()
        with torch.autocast("cpu", dtype, enabled and where != "backward"):
            value = LOSSES[loss](head, leaf, labels, margin=0.2, scale=30.0)
        with torch.autocast("cpu", dtype, enabled and where != "forward"):
            value.backward()
        results.append((value, leaf.grad, head.weight.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_gradient_at_the_origin():
    """An embedding at the origin is pulled towards a center, not stuck.

    The ball's metric is 2 |dx| there, so the slope of the distance is 2.
    """
    x = torch.zeros(1, 2, requires_grad=True)
    head_of(torch.tensor([[0.3, 0.0]]))(x).sum().backward()
    torch.testing.assert_close(x.grad[0], torch.tensor([2.0, 0.0]))


def test_drop_in_for_the_stock_classifier():
    """Same arguments and parameter names; with cosines, the same outputs."""
    options = dict(input_size=8, lin_blocks=1, lin_neurons=6, out_neurons=5)
    head = HyperbolicClassifier(**options, map="cosine")
    stock = Classifier(**options)
    assert isinstance(head, Classifier)
    head.load_state_dict(stock.state_dict())
    x = torch.randn(3, 1, 8)
    torch.testing.assert_close(head(x), stock(x))


def test_compiles():
    """torch.compile takes head and cost as one graph, backward included."""
    head = HyperbolicClassifier(16, out_neurons=9)
    x, labels = torch.randn(4, 16, requires_grad=True), torch.randint(9, (4,))

    def step():
        return ours()(head(x), labels)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    results = []
    for function in (step, compiled):
        x.grad, head.weight.grad = None, None
        loss = function()
        loss.backward()
        results.append((loss.detach(), x.grad, head.weight.grad))
    torch.testing.assert_close(*results)
