"""The comparison of training throughput, tried on a tiny corpus."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from benchmarks.throughput import SENTENCE


def test_both_scripts_train_the_same(tmp_path, root):
    if not os.environ.get("SPEECHBRAIN_CLONE"):
        pytest.skip("SPEECHBRAIN_CLONE is not set to a clone of SpeechBrain")
    noise = np.random.default_rng(0)
    for speaker in "abcd":
        (tmp_path / speaker).mkdir()
        for take in range(3):
            # Of one crop, so that both scripts train on the same
            samples = noise.normal(scale=0.1, size=int(16000 * SENTENCE) + 1)
            soundfile.write(tmp_path / speaker / f"{take}.wav", samples, 16000)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput"]
        + [f"--data_folder={tmp_path}", "--channels=8", "--batch_size=4"]
        + ["--rounds=1", "--batches=1"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[:4] == "| HA"]
    *_, stock, ours = (cell.strip() for cell in lines[0].strip("| ").split("|"))
    # Of other crops, but all centers start together; the margin alone is 6.
    assert float(ours) == pytest.approx(float(stock), abs=1e-2)
