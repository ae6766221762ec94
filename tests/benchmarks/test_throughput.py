"""The comparison of training throughput, tried on a tiny corpus."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hyperpyyaml import load_hyperpyyaml

from benchmarks.throughput.runs import STOCK_AAM
from speechbrain_hyperbolic.hparams import load_hparams

RECIPE = "recipes/VoxCeleb/SpeakerRec"


@pytest.fixture
def clone():
    path = pathlib.Path(os.environ.get("SPEECHBRAIN_CLONE", "")) / RECIPE
    if not path.is_dir():
        pytest.skip("SPEECHBRAIN_CLONE is not set to a clone of SpeechBrain")
    return path


def make_corpus(folder, crop=2.015):
    """Noise of four speakers, and an utterance that is too short."""
    noise = np.random.default_rng(0)
    for speaker in "abcd":
        (folder / speaker).mkdir(parents=True)
        for take in range(3):
            seconds = 1 if (speaker, take) == ("a", 0) else crop + 0.5 + take
            samples = noise.normal(scale=0.1, size=int(16000 * seconds))
            soundfile.write(folder / speaker / f"{take}.wav", samples, 16000)


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_both_scripts_train_the_same(clone, tmp_path, root):
    """Tables of rates and parts; the losses of a file's first batch agree."""
    make_corpus(tmp_path / "corpus")
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "benchmarks.throughput", "--quick", "--rows", "2"),
            f"--data_folder={tmp_path / 'corpus'}",
            f"--work_folder={tmp_path / 'work'}",
        ],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    table = (tmp_path / "work" / "train.csv").read_text()
    assert "a/0.wav" not in table and len(table.splitlines()) == 1 + 3 * 4
    rows = [
        cells(line)
        for line in done.stdout.splitlines()
        if line.startswith("| HAM")
    ]
    assert len(rows) == 1
    stock, ours, ratio = rows[0][2:5]
    assert float(stock) > 0 and float(ours) > 0
    assert re.fullmatch(r"\*\*\d+\.\d\d\*\* \(.* to .*\)", ratio)
    # The same loss of as many speakers. Of crops, of which each script draws
    # its own, and of labels it hardly depends: centres start together.
    stock, ours = map(float, rows[0][-2:])
    assert ours == pytest.approx(stock, abs=1e-2)
    for part in ("waiting for data", "encoder, backward", "optimizer"):
        assert f"| {part} |" in done.stdout


def test_stock_head_and_loss(clone, tmp_path):
    """Those of the stock file, of as many outputs."""
    few = {"data_folder": str(tmp_path), "out_n_neurons": 3}
    folder = {"output_folder": str(tmp_path / "out")}
    with open(clone / "hparams" / "train_ecapa_tdnn.yaml") as file:
        stock = load_hyperpyyaml(file, few | folder)
    ours = load_hparams(STOCK_AAM, few | folder | {"channels": 8})
    for key in ("classifier", "compute_cost"):
        assert type(ours[key]) is type(stock[key])
    assert ours["opt_class"].func is stock["opt_class"].func
    weights = (of["classifier"].weight.shape for of in (ours, stock))
    assert len(set(weights)) == 1
    ours, stock = (of["compute_cost"].loss_fn for of in (ours, stock))
    assert type(ours) is type(stock)
    assert (ours.margin, ours.scale) == (stock.margin, stock.scale)
