"""The command, as people and scripts use it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic import cli
from speechbrain_hyperbolic.inference import HyperbolicSpeakerRecognition
from speechbrain_hyperbolic.inference.model_folder import (
    ModelConfig,
    Thresholds,
    build_modules,
    save_model,
)
from tests.hub.server import LoopbackHub

TOKEN = "hf_aliceWrites"
MEASURED = Thresholds(0.5, {"0.01": 0.9})


def make_model(folder, seed=0, thresholds=MEASURED):
    """A small encoder with random weights."""
    torch.manual_seed(seed)
    arguments = {
        "input_size": 20,
        "channels": [8, 8, 8, 8, 24],
        "kernel_sizes": [5, 3, 3, 3, 1],
        "dilations": [1, 2, 3, 4, 1],
        "groups": [1, 1, 1, 1, 1],
        "attention_channels": 8,
        "lin_neurons": 16,
    }
    config = ModelConfig(16000, 20, "ecapa", arguments, thresholds=thresholds)
    state = build_modules(config)["embedding_model"].state_dict()
    save_model(folder, config, state)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A model and three recordings; the second repeats the first."""
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "model")
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        tone = np.sin(np.arange(16000) * (0.05 + seed / 3))
        noise = np.random.default_rng(seed).normal(size=16000)
        soundfile.write(f"{name}.wav", 0.1 * tone + 0.02 * noise, 16000)
    monkeypatch.setenv("SB_HYPERBOLIC_MODEL", "model")
    return tmp_path


def printed(capsys, *arguments):
    """The exit code, and what was printed, as JSON where it was asked for."""
    code = cli.main(list(arguments))
    lines = capsys.readouterr().out.splitlines()
    if "--json" in arguments:
        lines = [json.loads(line) for line in lines]
    return code, lines


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_verify(here, capsys):
    """Its score and decision are those of the class."""
    model = HyperbolicSpeakerRecognition.from_pretrained("model")
    for other in ("again.wav", "other.wav"):
        score, same = model.verify_files("a.wav", other)
        code, (found,) = printed(capsys, "verify", "a.wav", other, "--json")
        assert found["score"] == pytest.approx(score.item(), abs=1e-6)
        assert found["same"] == bool(same) and code == (not same)
        assert found["threshold"] == 0.5 and found["seconds"] == [1.0, 1.0]
    code, (line,) = printed(capsys, "verify", "a.wav", "again.wav")
    assert code == 0
    assert line == "same speaker: cosine score 1.000, threshold 0.500"


def test_thresholds(here, capsys):
    both = ["verify", "a.wav", "again.wav"]
    code, _ = printed(capsys, *both, "--threshold", "1.5")
    assert code == 1
    _, (found,) = printed(capsys, *both, "--false-accepts=0.01", "--json")
    assert found["threshold"] == 0.9
    assert "0.01" in refused(capsys, *both, "--false-accepts=0.2")
    make_model(here / "unmeasured", thresholds=None)
    line = refused(capsys, *both, "--model=unmeasured")
    assert line.startswith("error: ") and "threshold" in line
    code, _ = printed(capsys, *both, "--model=unmeasured", "--threshold=0")
    assert code == 0


def test_enrol_and_identify(here, capsys):
    store = ["--store", "voices"]
    _, (line,) = printed(capsys, "enrol", "Ada", "a.wav", "again.wav", *store)
    assert line == "Ada enrolled from 2 file(s): 1 speaker(s) in voices"
    _, (line,) = printed(capsys, "enrol", "Ada", "a.wav", *store)
    assert line.startswith("Ada replaced")
    code, (found,) = printed(capsys, "identify", "again.wav", *store, "--json")
    assert code == 0 and found["name"] == "Ada"
    assert found["ranking"] == [["Ada", pytest.approx(1, abs=1e-5)]]
    arguments = ["identify", "a.wav", "other.wav", *store, "--threshold=0.9999"]
    code, lines = printed(capsys, *arguments)
    assert code == 1  # one of them is unknown
    assert lines[0].startswith("a.wav: Ada (threshold 1.000; Ada 1.000")
    assert lines[1].startswith("other.wav: unknown (threshold")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["verify", "none.wav", "a.wav"], "none.wav is missing"),
        (["verify", ".", "a.wav"], ". is a folder, expected an audio file"),
        (["verify", "a.wav", "a.wav", "--threshold=nan"], "is nan: no number"),
        (["verify", "a.wav", "a.wav", "--device=foo"], "device is foo, exp"),
        (["verify", "a.wav", "a.wav", "--revision=x"], "has no revision x"),
        (["enrol", "a.wav", "again.wav", "--store=s"], "a.wav is a file, exp"),
        (["verify", "text.wav", "a.wav"], "text.wav"),
        (["verify", "silent.wav", "a.wav"], "silent"),
        (["verify", "a.wav", "a.wav", "--model=nothing"], "nothing"),
        (["enrol", "", "a.wav", "--store=s"], "name is ''"),
        (["identify", "a.wav", "--store=none"], "none is missing: enrol a sp"),
        (["identify", "a.wav", "--store=text.wav"], "text.wav is no whole"),
        (["export", "nothing", "out"], "nothing"),
        (["push", "model", "noslash"], "noslash"),
    ],
)
def test_bad_input(arguments, message, here, capsys):
    (here / "text.wav").write_text("no audio")
    soundfile.write("silent.wav", np.zeros(16000), 16000)
    line = refused(capsys, *arguments)
    assert line.startswith("error: ") and message in line
    assert not (here / "s").exists() and not (here / "out").exists()


def test_a_fault_is_no_answer(here, capsys, monkeypatch):
    """Its code is not that of different speakers."""
    monkeypatch.setattr(HyperbolicSpeakerRecognition, "score", None)
    assert cli.main(["verify", "a.wav", "again.wav"]) == 3
    assert "TypeError" in capsys.readouterr().err


def test_a_store_of_another_model(here, capsys):
    printed(capsys, "enrol", "Ada", "a.wav", "--store=voices")
    make_model(here / "other_model", seed=1)
    line = refused(
        capsys, "identify", "a.wav", "--store=voices", "--model=other_model"
    )
    assert "made by another model" in line


def test_no_model(here, capsys, monkeypatch):
    monkeypatch.delenv("SB_HYPERBOLIC_MODEL")
    line = refused(capsys, "verify", "a.wav", "a.wav")
    assert "pass --model, or set SB_HYPERBOLIC_MODEL" in line


def test_as_a_command(here):
    """JSON alone on stdout; help without waiting for SpeechBrain."""
    command = [sys.executable, "-m", "speechbrain_hyperbolic.cli"]
    done = subprocess.run(
        [*command, "verify", "a.wav", "other.wav", "--threshold=2", "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["same"] is False
    imported = "import sys; from speechbrain_hyperbolic import cli; "
    imported += "cli.make_parser(); print('speechbrain' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", imported], capture_output=True, text=True
    )
    assert done.stdout == "False\n"


def test_push_and_use_from_the_hub(here):
    """The command of one user, then that of another."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("HF_")
    }
    command = [sys.executable, "-m", "speechbrain_hyperbolic.cli"]
    (here / "model" / "README.md").write_text("---\nlicense: mit\n---\n")
    with LoopbackHub({TOKEN: "alice"}, {}) as hub:
        environment |= {"HF_ENDPOINT": hub.url(), "HF_HUB_DISABLE_XET": "1"}

        def run(home, *arguments, **more):
            return subprocess.run(
                [*command, *arguments],
                capture_output=True,
                text=True,
                env=environment | {"HF_HOME": str(here / home)} | more,
            )

        done = run("of_alice", "push", "model", "alice/m", HF_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{hub.url()}/alice/m"
        done = run("of_bob", "verify", "a.wav", "again.wav", "--model=alice/m")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("same speaker: cosine score 1.000")
        done = run("of_bob", "push", "model", "alice/m")
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("error: ")
