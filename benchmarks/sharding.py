"""Heads of very many speakers on one process and on two.

> python -m benchmarks.sharding [--quick]

A step is forward, backward and Adam of the head with HAM-Softmax, on random
embeddings; each process has one thread. Beside the time of the clock there is
that of the processor, which tells what a step costs where others use it too.
"""

import argparse
import gc
import os
import pathlib
import statistics
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
SHARES = (None, 0.1)  # of the other speakers, that count in a step


def train(classes, sampled, rank, processes, steps):
    """Bytes of a head with its gradient and Adam, seconds of each step by the
    clock and of the processor.
    """
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
    clock, processor = [], []
    for _ in range(steps):
        x = torch.randn(BATCH // processes, 1, DIM, requires_grad=True)
        labels = torch.randint(classes, (len(x), 1))
        if processes > 1:
            distributed.barrier()
        began = time.perf_counter(), time.process_time()
        head(x, labels, cost).backward()
        optimizer.step()
        optimizer.zero_grad()
        clock.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
    held = 4 * head.weight.numel() * head.weight.element_size()
    return held, clock, processor


def measure(rank, processes, cases, steps, folder):
    """What a process measures of each case, in a file of its rank."""
    os.environ["RANK"] = str(rank)
    torch.set_num_threads(1)
    if processes > 1:
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/group",
            rank=rank,
            world_size=processes,
        )
    train(100, 0.5, rank, processes, 1)  # loads what torch loads late
    found = []
    for classes, sampled in cases:
        gc.collect()
        # Forgets the most that was resident so far.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        held, *times = train(classes, sampled, rank, processes, 1 + steps)
        times = [statistics.median(seconds[1:]) for seconds in times]
        found.append((*times, before, resident("VmHWM"), held))
    torch.save(found, f"{folder}/{rank}")
    if processes > 1:
        distributed.destroy_process_group()


def main(quick):
    sizes, steps = (SIZES[:1], 1) if quick else (SIZES, 3)
    cases = [(classes, sampled) for classes in sizes for sampled in SHARES]
    title(
        f"HAM-Softmax, {BATCH} rows in all, D = {DIM}, chunks of {CHUNK}, "
        f"median of {steps} steps; of two processes the larger figure",
        "classes",
        "processes",
        "sampled",
        "s a step, clock",
        "s a step, processor",
        "MiB of a process before the head",
        "MiB at its peak",
        "MiB of weights, gradients and Adam",
    )
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(
                measure,
                (processes, cases, steps, folder),
                nprocs=processes,
            )
            ranks = [torch.load(f"{folder}/{r}") for r in range(processes)]
        for (classes, sampled), *found in zip(cases, *ranks, strict=True):
            clock, processor, *memory = map(max, zip(*found, strict=True))
            row(
                classes,
                processes,
                sampled or "all",
                f"{clock:.3f}",
                f"{processor:.3f}",
                *(f"{size / 2**20:.0f}" for size in memory),
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    print(f"{machine()}; commit {commit()}", flush=True)
    main(options.quick)
