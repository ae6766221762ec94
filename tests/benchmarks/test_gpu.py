"""The check for a machine with a GPU, tried in small on a CPU."""

import json
import subprocess
import sys


def run(root, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_in_small(tmp_path, root):
    """All parts but the resumption, which is tested on its own."""
    options = ["--tiny", "--device=cpu", "--num_workers=1", f"--out={tmp_path}"]
    options += ["--parts", "correctness", "head", "training", "scoring"]
    printed = run(root, "benchmarks.gpu", *options)
    tables = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert all(title in printed for title in tables)
    for row in tables["Head and cost against float64, relative"]:
        good, _, cases = row["within tolerance"].split()
        assert good == cases and row["of a gradient"] > 0
    head = tables["Head and cost, forward and backward"]
    assert {row["batch x classes"] for row in head} == {
        "16 x 300",
        "16 x 20000",
    }
    assert len({row["system"] for row in head}) == 5
    (training,) = (rows for t, rows in tables.items() if "Training" in t)
    assert training[0]["run"] == "bf16"  # then the stock's, given a clone
    assert training[0]["steps/s"] > 0
    assert len(tables["Where a step goes"]) == 5 * len(training)
    assert tables["Scoring"][-1]["utterances/s"] < 1e-5  # of one device


def test_processes(root):
    options = ["--channels=8", "--batch_size=2", "--steps=1", "--rounds=1"]
    printed = run(root, "benchmarks.processes", *options)
    assert printed.splitlines()[-1].startswith("| 2 | ")
