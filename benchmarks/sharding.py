"""Heads of very many speakers on one process and on two.

> python -m benchmarks.sharding [--quick]

A step is forward, backward and Adam of the head with HAM-Softmax, on random
embeddings; each process has one thread.
"""

import os
import statistics
import sys
import tempfile
import time

import torch
from torch import distributed

from benchmarks.head import DIM
from benchmarks.measure import commit, machine, row, title
from benchmarks.million import resident
from speechbrain_hyperbolic.lobes.sharded import ShardedCentreClassifier
from speechbrain_hyperbolic.lobes.similarity import ClippedDistance
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin

BATCH = 64  # of all processes
CHUNK = 16384
SIZES = (10**4, 10**5, 10**6)
# Processes, and the share of the other speakers that counts in a step
CASES = ((1, None), (2, None), (1, 0.1), (2, 0.1))


def train(classes, sampled, rank, processes, steps):
    """Bytes of a head with its gradient and Adam, and seconds of each step."""
    torch.manual_seed(0)
    head = ShardedCentreClassifier(
        DIM,
        out_neurons=classes,
        similarity=ClippedDistance(c=3.0),
        sampled=sampled,
    )
    cost = MarginSoftmax(AdditiveMargin(margin=0.2, scale=30.0), CHUNK)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    torch.manual_seed(rank)
    seconds = []
    for _ in range(steps):
        x = torch.randn(BATCH // processes, 1, DIM, requires_grad=True)
        labels = torch.randint(classes, (len(x), 1))
        if processes > 1:
            distributed.barrier()
        began = time.perf_counter()
        head(x, labels, cost).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return 4 * head.weight.numel() * head.weight.element_size(), seconds


def measure(rank, processes, classes, sampled, steps, folder):
    """Seconds of a step, bytes of the process, and of its head."""
    os.environ["RANK"] = str(rank)
    torch.set_num_threads(1)
    if processes > 1:
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/group",
            rank=rank,
            world_size=processes,
        )
    train(100, sampled, rank, processes, 1)  # loads what torch loads late
    before = resident("VmRSS")
    held, seconds = train(classes, sampled, rank, processes, 1 + steps)
    found = statistics.median(seconds[1:]), before, resident("VmHWM"), held
    torch.save(found, f"{folder}/{rank}")
    if processes > 1:
        distributed.destroy_process_group()


def spread(processes, classes, sampled, steps):
    """What each process measured: of times the longest, of bytes the most."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            measure,
            (processes, classes, sampled, steps, folder),
            nprocs=processes,
        )
        found = [torch.load(f"{folder}/{rank}") for rank in range(processes)]
    return [max(values) for values in zip(*found, strict=True)]


def main(quick):
    sizes, steps = (SIZES[:1], 1) if quick else (SIZES, 5)
    title(
        f"HAM-Softmax, {BATCH} rows in all, D = {DIM}, chunks of {CHUNK}, "
        f"median of {steps} steps",
        "classes",
        "processes",
        "sampled",
        "s a step",
        "MiB of a process before the head",
        "MiB at its peak",
        "MiB of weights, gradients and Adam",
    )
    for classes in sizes:
        for processes, sampled in CASES:
            seconds, *memory = spread(processes, classes, sampled, steps)
            row(
                classes,
                processes,
                sampled or "all",
                f"{seconds:.3f}",
                *(f"{size / 2**20:.0f}" for size in memory),
            )


if __name__ == "__main__":
    print(f"{machine()}; commit {commit()}", flush=True)
    main("--quick" in sys.argv[1:])
