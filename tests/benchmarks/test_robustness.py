"""Degraded recordings, and the table of a trained model."""

import numpy as np
import pytest
import soundfile
from scipy.signal import welch

from benchmarks.robustness import CONDITIONS, RATE, degrade
from tests.inference.models import make_model
from tests.processes import run_python


@pytest.fixture
def speech():
    """Two seconds and a half with a falling spectrum."""
    noise = np.random.default_rng(0).normal(size=(4, 40000))
    return list(0.1 * np.apply_along_axis(np.convolve, 1, noise, [1, 0.9]))


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_the_same_again(speech, name):
    first, *others = speech
    found = degrade(name, first, "a/1", others)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    lengths = {"first1s": RATE, "first2s": 2 * RATE}
    assert len(found) == lengths.get(name, len(first))
    np.testing.assert_array_equal(degrade(name, first, "a/1", others), found)
    if name in ("mp3", "opus"):  # without a delay
        lag = np.correlate(found[4000:8000], first[3600:8400], "valid").argmax()
        assert abs(lag - 400) <= 2


def test_levels_and_bands(speech):
    first, *others = speech
    for name, snr in (("noise15", 15), ("noise5", 5), ("babble10", 10)):
        noise = degrade(name, first, "a/1", others) - first
        ratio = np.mean(first**2) / np.mean(noise**2)
        assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.01)
    frequency, power = welch(degrade("telephone", first, "a/1", []), RATE)
    inside = (frequency > 500) & (frequency < 3000)
    outside = (frequency < 100) | (frequency > 4500)
    assert power[outside].max() < power[inside].min() / 100


def test_command(tmp_path, root, speech):
    for speaker in "abc":
        (tmp_path / "corpus" / speaker).mkdir(parents=True)
        for take, samples in enumerate(speech[:2]):
            path = tmp_path / "corpus" / speaker / f"{take}.wav"
            soundfile.write(path, samples * (1 + ord(speaker) % 3), RATE)
    runs = [tmp_path / name for name in ("am.1", "ham.1")]
    for number, run in enumerate(runs):
        make_model(run / "model", seed=number)
        (run / "save").mkdir()
        (run / "save" / "train.csv").write_text("ID,spk_id\nx/0,x\na/0,a\n")
    options = [f"--data_folder={tmp_path / 'corpus'}"]
    options += ["--conditions", "clean", "first1s"]
    done = run_python("-m", "benchmarks.robustness", *runs, *options, cwd=root)
    assert "4 utterances of 2 speakers" in done.stdout
    assert done.stdout.count("| ham  |") == 2
