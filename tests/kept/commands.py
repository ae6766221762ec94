"""Commands as a user runs them."""

import os
import subprocess
import sys

from tests.scripts import ROOT


def run_python(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_command(*arguments):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "speechbrain_hyperbolic.cli",
            *map(str, arguments),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr
