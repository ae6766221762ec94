"""The benchmarks that train by the real scripts, in small and on a CPU."""

import json
import os

import pytest

from tests.processes import run_python


def run(root, *arguments):
    return run_python("-m", *arguments, cwd=root).stdout


def cells(line):
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_gpu(tmp_path, root):
    """All parts but the resumption, which is tested on its own."""
    path = tmp_path / "gpu.json"
    options = ["--tiny", "--device=cpu", "--num_workers=1", f"--out={path}"]
    options += ["--parts", "correctness", "head", "training", "scoring"]
    printed = run(root, "benchmarks.gpu", *options)
    tables = json.loads(path.read_text())["tables"]
    assert all(title in printed for title in tables)
    for row in tables["Head and cost against float64, relative"]:
        good, _, count = row["within tolerance"].split()
        assert good == count and row["of a gradient"] > 0
    assert len(tables["Head and cost, 16 x 20000"]) == 6
    (training,) = (rows for t, rows in tables.items() if "Training" in t)
    assert training[0]["run"] == "bf16"  # then the stock's, given a clone
    assert training[0]["steps/s"] > 0
    assert len(tables["Where a step goes"]) == 5 * len(training)
    (embeddings,) = tables["Embeddings against the CPU's"]
    assert embeddings["relative error"] < 1e-5


def test_processes(root):
    options = ["--channels=8", "--batch_size=2", "--steps=1", "--rounds=1"]
    printed = run(root, "benchmarks.processes", *options)
    processes, speed, _ = cells(printed.splitlines()[-1])
    assert processes == "2 separate" and float(speed) > 0


def test_both_scripts_train_the_same(root):
    if not os.environ.get("SPEECHBRAIN_CLONE"):
        pytest.skip("SPEECHBRAIN_CLONE is not set to a clone of SpeechBrain")
    options = ["--channels=8", "--batch_size=4", "--rounds=1", "--batches=1"]
    printed = run(root, "benchmarks.throughput", *options)
    (line,) = (line for line in printed.splitlines() if line[:4] == "| HA")
    stock, ours = map(float, cells(line)[-2:])
    # Of other crops, but all centers start together; the margin alone is 6.
    assert ours == pytest.approx(stock, abs=0.5)
