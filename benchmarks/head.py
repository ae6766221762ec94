"""Head and cost, forward and backward, against SpeechBrain's own.

> OMP_NUM_THREADS=2 python -m benchmarks.head
"""

import gc
import statistics

import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet import losses as stock

from benchmarks import in_turns, median_ratio, read_options, table
from benchmarks.trainings import observe, wait
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin

DIM = 192
# Batch and classes: the most that ours may take of the time of the stock AAM
TARGETS = {(32, 1211): 1.0, (64, 5994): 0.75, (256, 5994): 0.55}


def cross_entropy(outputs, labels):
    outputs, labels = outputs.squeeze(1), labels.squeeze(1)
    return torch.nn.functional.cross_entropy(outputs, labels)


def systems(classes):
    """Name -> a maker of the head, and the cost."""

    def ham():
        return HyperbolicClassifier(DIM, out_neurons=classes)

    def aam():
        return Classifier(DIM, out_neurons=classes)

    def linear():
        return torch.nn.Linear(DIM, classes, bias=False)

    margin = AdditiveMargin(margin=0.2, scale=30.0)
    wrapped, stock_aam = (
        stock.LogSoftmaxWrapper(loss(margin=0.2, scale=30))
        for loss in (stock.AngularMargin, stock.AdditiveAngularMargin)
    )
    return {
        "ours": (ham, MarginSoftmax(margin)),
        "our head, stock wrapper": (ham, wrapped),
        "ours, chunk_size 16384": (ham, MarginSoftmax(margin, 16384)),
        "ours, chunk_size 65536": (ham, MarginSoftmax(margin, 65536)),
        "stock AAM": (aam, stock_aam),
        "linear + cross-entropy": (linear, cross_entropy),
    }


def compare(batch, classes, rounds, device="cpu"):
    """A row of what a step on random embeddings takes for each system."""
    torch.manual_seed(0)
    x = torch.randn(batch, 1, DIM, device=device, requires_grad=True)
    labels = torch.randint(classes, (batch, 1), device=device)

    def step(head, cost):
        x.grad = None
        head.zero_grad()
        if getattr(cost, "chunk_size", None):
            head(x, labels, cost).backward()
        else:
            cost(head(x), labels).backward()
        wait(device)

    steps, rows = {}, []
    for name, (make, cost) in systems(classes).items():
        head = make().to(device)
        run = steps[name] = lambda head=head, cost=cost: step(head, cost)
        run()
        row = {"batch x classes": f"{batch} x {classes}", "system": name}
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            most = torch.cuda.max_memory_allocated() - before
            row["MiB beyond the weights"] = most / 2**20
        row["kernels"], _, places = observe(device, run)
        rows.append(row | {"waits": sum(places.values())})
    seconds = in_turns(steps, rounds)
    for row in rows:
        times = seconds[row["system"]]
        row["ms"] = 1e3 * statistics.median(times)
        row["ours / it"] = median_ratio(seconds["ours"], times)
    steps.clear()  # before the next ones are made
    gc.collect()
    return rows


def main():
    rounds = read_options(__doc__, rounds=200).rounds
    for (batch, classes), target in TARGETS.items():
        print(table(compare(batch, classes, rounds)))
        print(f"Against the stock AAM, at most {target}\n", flush=True)


if __name__ == "__main__":
    main()
