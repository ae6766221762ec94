"""What is measured: speed, memory, and error rates on real speech."""

import argparse
import importlib.util
import os
import platform
import random
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import torch

from speechbrain_hyperbolic.evaluation.metrics import markdown

STOCK_RECIPE = "recipes/VoxCeleb/SpeakerRec"


def commit():
    """The commit of the code, with a + if it was changed since."""
    git = ["git", "describe", "--always", "--abbrev=7", "--dirty=+"]
    run = subprocess.run(
        git, cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return run.stdout.strip() or "unknown"


def machine(device="cpu"):
    """Versions and hardware, in one line."""
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "speechbrain"))
    if torch.device(device).type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{packages}, Python {platform.python_version()}; {hardware}"


def make_parser(doc):
    """A parser whose help is a module's docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def read_options(doc, **defaults):
    """Options of the defaults' types, printed with commit and machine."""
    parser = make_parser(doc)
    for name, default in defaults.items():
        kind = type(default)
        parser.add_argument(f"--{name}", type=kind, default=default)
    options = parser.parse_args()
    print(f"Commit {commit()}; {machine()}; {options}\n", flush=True)
    return options


def in_turns(cases, rounds, warm_up=2, clock=time.perf_counter):
    """Seconds of each case in each round, in another order each round."""
    seconds = {name: [] for name in cases}
    for number in range(warm_up + rounds):
        for name in random.Random(number).sample(list(cases), len(cases)):
            began = clock()
            cases[name]()
            if number >= warm_up:
                seconds[name].append(clock() - began)
    return seconds


def median_ratio(ours, others):
    """Of the rounds, each a ratio of what was measured in turns."""
    pairs = zip(ours, others, strict=True)
    return statistics.median(a / b for a, b in pairs)


def table(rows):
    """Dicts with the same keys as a Markdown table."""
    cells = [
        [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
        for row in rows
    ]
    return markdown([list(rows[0]), *cells])


def stock_clone():
    """The clone of SpeechBrain that is given, or None."""
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    return Path(clone).resolve() if clone else None


def stock_module(name):
    """A file of the clone's recipe as a module, or None without a clone."""
    if not (clone := stock_clone()):
        return None
    path = clone / STOCK_RECIPE / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
