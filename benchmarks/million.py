"""A step of a million classes: its time, and the memory of the process."""

import statistics
import time
from pathlib import Path

import torch

from benchmarks import head
from benchmarks.measure import fresh, row, title

BATCH = 64
CLASSES = 10**6
CHUNKS = (16384, 65536, None)


def resident(kind):
    """Bytes of the process in memory: VmRSS, or VmHWM, the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {kind} in /proc/self/status")


def measure(make, steps, *args):
    """Seconds of a step, and bytes beyond weights and gradient."""
    torch.manual_seed(0)
    step = make(BATCH, *args)
    for weight in step.head.parameters():
        weight.grad = torch.ones_like(weight)
    before = resident("VmRSS")
    seconds = []
    for _ in range(1 + steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]), resident("VmHWM") - before


def main(quick):
    classes, steps = (10**5, 1) if quick else (CLASSES, 3)
    title(
        f"{BATCH} x {classes}, median of {steps} steps",
        "system",
        "gradient before the step",
        "s",
        "MiB",
        "target",
    )
    for set_to_none in (False, True):
        gradient = "none" if set_to_none else "zeros"
        for chunk in CHUNKS:
            args = classes, chunk, set_to_none
            found = fresh(measure, head.ours, steps, *args)
            name = f"{head.OURS}, chunk_size {chunk}"
            show(name, gradient, found, "≤ 1024" if chunk else "")
        found = fresh(measure, head.floor, steps, classes, set_to_none)
        show(head.FLOOR, gradient, found, "")


def show(name, gradient, found, target):
    seconds, memory = found
    row(name, gradient, f"{seconds:.2f}", f"{memory / 2**20:.0f}", target)
