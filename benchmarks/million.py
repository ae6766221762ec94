"""A step over a million classes in chunks: its time and its memory.

> OMP_NUM_THREADS=2 python -m benchmarks.million
"""

import multiprocessing
import pathlib
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks import read_options, table
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin

BATCH, CLASSES, DIM, STEPS = 64, 10**6, 192, 3
CHUNKS = (16384, 65536, None)


def resident(kind):
    """Bytes of the process in memory: VmRSS, or VmHWM, the most so far."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{kind}:")[1].split()[0])


def measure(chunk_size):
    """Seconds of a step, and bytes beyond the centers and their gradient."""
    torch.manual_seed(0)
    head = HyperbolicClassifier(DIM, out_neurons=CLASSES)
    cost = MarginSoftmax(AdditiveMargin(margin=0.2, scale=30.0), chunk_size)
    x = torch.randn(BATCH, 1, DIM, requires_grad=True)
    labels = torch.randint(CLASSES, (BATCH, 1))
    before = resident("VmRSS") + 4 * head.weight.numel()
    seconds = []
    for _ in range(1 + STEPS):
        head.zero_grad()
        start = time.perf_counter()
        head(x, labels, cost).backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), resident("VmHWM") - before


def main():
    read_options(__doc__)
    rows = []
    for chunk_size in CHUNKS:
        # A process of its own: the most memory so far is not taken back.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            seconds, memory = pool.submit(measure, chunk_size).result()
        row = {"chunk_size": chunk_size, "s": seconds}
        rows.append(row | {"MiB beyond centers and gradient": memory / 2**20})
    print(table(rows))


if __name__ == "__main__":
    main()
