"""Times, memory and tables."""

import importlib
import os
import platform
import random
import statistics
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path

import torch

PACKAGES = ("torch", "speechbrain", "geoopt", "hypll")


def machine():
    """The versions and the processor, a line."""
    cpus = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    model = cpus[0] if cpus else platform.machine()
    packages = ", ".join(filter(None, map(_installed, PACKAGES)))
    return (
        f"{packages}, Python {platform.python_version()}; {model}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )


def commit():
    """The commit of the code, with a + where it was changed since."""
    git = ["git", "describe", "--always", "--abbrev=7", "--dirty=+"]
    run = subprocess.run(
        git, cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return run.stdout.strip() or "unknown"


def _installed(name):
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:  # a peer that this part does not need
        return None


def fresh(function, *args):
    """Calls a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def run(part, quick):
    """Runs a part of the benchmarks, by the name of its module."""
    importlib.import_module(f"benchmarks.{part}").main(quick)


def times(cases, rounds, slow=()):
    """Median seconds of each case.

    All are run in turn, in another order each round, after a round to warm up;
    the slow ones only in the first tenth of the rounds.
    """
    seconds = {name: [] for name in cases}
    order, shuffle = list(cases), random.Random(0).shuffle
    for number in range(rounds + 1):
        shuffle(order)
        for name in order:
            if name in slow and number > max(1, rounds // 10):
                continue
            began = time.perf_counter()
            cases[name]()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(of) for name, of in seconds.items()}


def peak(function):
    """Bytes: the most that a call allocates and holds at one time.

    It is counted by torch's profiler, to which what is freed of the memory
    from before the call is not known.
    """
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True) as p:
        function()
    now = most = 0
    for event in p.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def title(text, *columns):
    """Starts a table."""
    print(f"\n### {text}\n")
    row(*columns)
    row(*("---" for _ in columns))


def row(*cells):
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def ratio(ours, its):
    """Our figure over another's."""
    value = ours / its
    return f"{value:.2f}" if value > 0.1 else f"1/{1 / value:.0f}"


def compare(label, ours, seconds, memory, targets):
    """Rows of a table, one for each system; targets: of time, of memory."""
    for name in seconds:
        of_time, of_memory = targets.get(name, ("", ""))
        row(
            label,
            name,
            f"{1e3 * seconds[name]:.2f}",
            ratio(seconds[ours], seconds[name]),
            of_time,
            f"{memory[name] / 1e6:.1f}",
            ratio(memory[ours], memory[name]),
            of_memory,
        )


COMPARED = ("system", "ms", "ours / it", "target", "MB", "ours / it", "target")
