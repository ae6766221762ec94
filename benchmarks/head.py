"""Head and loss, forward and backward, against the stock one and others."""

import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper

from benchmarks.measure import COMPARED, compare, peak, times, title
from speechbrain_hyperbolic.lobes.heads import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin

DIM = 192
SIZES = ((32, 1211), (64, 5994), (256, 5994))
WITH_PUBLISHED = (64, 5994)  # at 256 its temporaries are of 1.2 GB each
OURS = "HAM-Softmax, this package"
UNFUSED = "the same, first the distances, then the loss"
STOCK = "AAM-Softmax, stock Classifier + LogSoftmaxWrapper"
FLOOR = "linear + torch cross_entropy"
PUBLISHED = "HAM-Softmax as published (broadcast)"
TARGETS = {
    STOCK: ("≤ 0.8", ""),
    FLOOR: ("≤ 1.5", ""),
    PUBLISHED: ("≤ 1/150", "≤ 1/15"),
}


class Published(torch.nn.Module):
    """The authors' steps: all pairs by a [batch, classes, dim] broadcast."""

    def __init__(self, classes, c=3.0, eps=1e-5):
        super().__init__()
        self.weight = torch.nn.Parameter(1e-3 * torch.randn(classes, DIM))
        self.cap, self.eps = (1 - eps) / c**0.5, eps

    def forward(self, x):
        x, w = (
            v * (self.cap / v.norm(dim=-1, keepdim=True)).clamp(max=1)
            for v in (x.squeeze(1), self.weight)
        )
        apart = (x.unsqueeze(1) - w.unsqueeze(0)).square().sum(-1)
        inside = (1 - x.square().sum(1)).outer(1 - w.square().sum(1))
        return -torch.acosh(1 + 2 * apart / inside.clamp(min=self.eps))


def cross_entropy(outputs, labels):
    labels = labels.squeeze(1)
    return torch.nn.functional.cross_entropy(outputs.squeeze(1), labels)


class Step:
    """Forward and backward of a head and its loss, of random embeddings."""

    def __init__(self, head, loss, batch, classes, set_to_none=False):
        self.head, self.loss, self.set_to_none = head, loss, set_to_none
        self.x = torch.randn(batch, 1, DIM, requires_grad=True)
        self.labels = torch.randint(classes, (batch, 1))

    def __call__(self):
        self.head.zero_grad(set_to_none=self.set_to_none)
        self.x.grad = None
        self.forward().backward()

    def forward(self):
        return self.loss(self.head(self.x), self.labels)


class FusedStep(Step):
    """The same of this package's head, which takes the loss."""

    def forward(self):
        return self.head(self.x, self.labels, self.loss)


def ours(batch, classes, chunk_size=None, set_to_none=False, step=FusedStep):
    head = HyperbolicClassifier(DIM, out_neurons=classes)
    cost = MarginSoftmax(AdditiveMargin(margin=0.2, scale=30.0), chunk_size)
    return step(head, cost, batch, classes, set_to_none)


def floor(batch, classes, set_to_none=False):
    head = torch.nn.Linear(DIM, classes, bias=False)
    return Step(head, cross_entropy, batch, classes, set_to_none)


def systems(batch, classes):
    size = batch, classes
    aam = LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.2, scale=30))
    cases = {
        OURS: ours(*size),
        UNFUSED: ours(*size, step=Step),
        STOCK: Step(Classifier(DIM, out_neurons=classes), aam, *size),
        FLOOR: floor(*size),
    }
    if size == WITH_PUBLISHED:
        loss = cases[UNFUSED].loss
        cases[PUBLISHED] = Step(Published(classes), loss, *size)
    return cases


def main(quick):
    rounds = 1 if quick else 100
    torch.manual_seed(0)
    title(f"Head and loss, {rounds} rounds", "batch x classes", *COMPARED)
    for batch, classes in SIZES:
        cases = systems(batch, classes)
        seconds = times(cases, rounds, slow=(PUBLISHED,))
        memory = {name: peak(case) for name, case in cases.items()}
        compare(f"{batch} x {classes}", OURS, seconds, memory, TARGETS)
