"""Memory that is freed and asked for again."""

import platform
import subprocess
import sys

import pytest

# Page faults of rounds that allocate, fill and free 16 blocks of 8 MiB
ROUNDS = """
import resource, sys
import torch
from speechbrain_hyperbolic.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def round():
    blocks = [torch.zeros(2**21).add_(1) for _ in range(16)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
round()
before = faults()
for _ in range(10):
    round()
print(faults() - before)
"""


def faults(mode):
    command = [sys.executable, "-c", ROUNDS, mode]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is for glibc's malloc"
)
def test_freed_memory_is_not_asked_for_again():
    """A page has 4 KiB at least: 32768 faults a round, or next to none."""
    assert faults("keep") < 0.1 * faults("leave")
