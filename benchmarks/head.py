"""Head and cost, forward and backward, against SpeechBrain's own.

> OMP_NUM_THREADS=2 python -m benchmarks.head
"""

import argparse
import random
import statistics
import time

import speechbrain
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet import losses as stock

from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin

DIM = 192
OURS = "HyperbolicClassifier + MarginSoftmax"
WRAPPED = "HyperbolicClassifier + LogSoftmaxWrapper"
STOCK = "stock Classifier + LogSoftmaxWrapper (AAM)"
# Batch and classes: the most that OURS may take of the time of STOCK
TARGETS = {(32, 1211): 1.0, (64, 5994): 0.75, (256, 5994): 0.55}


def step(head, cost, batch, classes):
    """Forward and backward of a head and its cost on random embeddings."""
    x = torch.randn(batch, 1, DIM, requires_grad=True)
    labels = torch.randint(classes, (batch, 1))

    def run():
        head.zero_grad()
        x.grad = None
        cost(head(x), labels).backward()

    return run


def systems(batch, classes):
    ours = MarginSoftmax(AdditiveMargin(margin=0.2, scale=30.0))
    am = stock.LogSoftmaxWrapper(stock.AngularMargin(margin=0.2, scale=30))
    aam = stock.AdditiveAngularMargin(margin=0.2, scale=30)
    head = HyperbolicClassifier(DIM, out_neurons=classes)
    stock_head = Classifier(DIM, out_neurons=classes)
    return {
        OURS: step(head, ours, batch, classes),
        WRAPPED: step(head, am, batch, classes),
        STOCK: step(stock_head, stock.LogSoftmaxWrapper(aam), batch, classes),
    }


def times(cases, rounds):
    """Seconds of each case in each round, in another order each round."""
    seconds = {name: [] for name in cases}
    order, shuffle = list(cases), random.Random(0).shuffle
    for number in range(3 + rounds):
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            cases[name]()
            if number >= 3:  # the first rounds warm up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    print(f"torch {torch.__version__}, speechbrain {speechbrain.__version__}")
    print(f"{torch.get_num_threads()} threads, medians of {rounds} rounds\n")
    print("| batch x classes | system | ms | ours / it | target |")
    print("|---|---|---|---|---|")
    for size, target in TARGETS.items():
        torch.manual_seed(0)
        seconds = times(systems(*size), rounds)
        targets = {OURS: "", WRAPPED: "≤ 1", STOCK: f"≤ {target}"}
        for name, its in seconds.items():
            pairs = zip(seconds[OURS], its, strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            milliseconds = 1e3 * statistics.median(its)
            print(
                f"| {size[0]} x {size[1]} | {name} | {milliseconds:.2f} ",
                end="",
            )
            print(f"| {ratio:.2f} | {targets[name]} |", flush=True)


if __name__ == "__main__":
    main()
