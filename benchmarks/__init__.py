"""What is measured: speed, memory, and error rates on real speech."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


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
