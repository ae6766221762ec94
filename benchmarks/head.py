#!/usr/bin/env python3
"""Time and memory of head + loss, forward and backward, on the CPU.

> python benchmarks/head.py

Prints a markdown table. Each system is timed in turn, in one process, and the
rounds are repeated; a time is the median over rounds. The memory is the peak of
what the step allocates beyond weights, embeddings and their gradients, counted
by torch's profiler. float32, 192 dimensions.
"""

import argparse
import os
import platform
import statistics
import time

import speechbrain
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper

from speechbrain_hyperbolic.lobes.heads import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import AdditiveMarginSoftmax

DIM = 192
SIZES = ((32, 1211), (64, 5994), (256, 5994))
OURS = "HAM-Softmax, this package"
STOCK = "AAM-Softmax, stock Classifier + LogSoftmaxWrapper"
FLOOR = "linear + torch cross_entropy"
PUBLISHED = "HAM-Softmax as published (broadcast)"


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


class Linear(torch.nn.Module):
    """The least that a softmax needs."""

    def __init__(self, classes):
        super().__init__()
        self.linear = torch.nn.Linear(DIM, classes, bias=False)

    def forward(self, x):
        return self.linear(x.squeeze(1))


def cross_entropy(outputs, labels):
    return torch.nn.functional.cross_entropy(outputs, labels.squeeze(1))


def systems(classes):
    ham = AdditiveMarginSoftmax(margin=0.2, scale=30)
    aam = LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.2, scale=30))
    return {
        OURS: (HyperbolicClassifier(DIM, out_neurons=classes), ham),
        STOCK: (Classifier(DIM, out_neurons=classes), aam),
        FLOOR: (Linear(classes), cross_entropy),
        PUBLISHED: (Published(classes), ham),
    }


def step(head, loss, x, labels):
    head.zero_grad(set_to_none=False)
    x.grad = None
    loss(head(x), labels).backward()


def peak(function):
    """Bytes: the most that is allocated at one time in a call."""
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True) as p:
        function()
    now = most = 0
    for event in p.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def measure(batch, classes, rounds):
    torch.manual_seed(0)
    x = torch.randn(batch, 1, DIM, requires_grad=True)
    labels = torch.randint(classes, (batch, 1))
    cases = systems(classes)
    if batch * classes > 64 * 5994:  # 1.2 GB a temporary
        del cases[PUBLISHED]
    times = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, (head, loss) in cases.items():
            slow = name == PUBLISHED
            if slow and number > max(1, rounds // 10):
                continue
            began = time.perf_counter()
            step(head, loss, x, labels)
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - began)
    return {
        name: (
            statistics.median(times[name]),
            peak(lambda case=case: step(*case, x, labels)),
        )
        for name, case in cases.items()
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    print(
        f"torch {torch.__version__}, speechbrain {speechbrain.__version__}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, {rounds} rounds\n"
    )
    print("| batch x classes | system | ms | ours / it | MB | ours / it |")
    print("|---|---|---|---|---|---|")
    for batch, classes in SIZES:
        results = measure(batch, classes, rounds)
        ours = results[OURS]
        for name, (seconds, memory) in results.items():
            print(
                f"| {batch} x {classes} | {name} | {1e3 * seconds:.2f} "
                f"| {ours[0] / seconds:.3g} | {memory / 1e6:.1f} "
                f"| {ours[1] / memory:.3g} |"
            )


if __name__ == "__main__":
    main()
