"""The command, as people and scripts use it."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic import HyperbolicSpeakerRecognition, cli
from speechbrain_hyperbolic.inference.config import Thresholds
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from tests.inference.models import MEASURED, RATE, make_model, same, voice


@pytest.fixture
def here(tmp_path, monkeypatch, no_vad):
    """A model and three recordings; the second repeats the first."""
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "model", thresholds=MEASURED)
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        soundfile.write(f"{name}.wav", voice(seed), RATE)
    monkeypatch.setenv("SB_HYPERBOLIC_MODEL", "model")
    return tmp_path


def printed(capsys, *arguments):
    """The exit code and the lines printed, parsed if they are JSON."""
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
    """Score and decision are those of the class."""
    model = HyperbolicSpeakerRecognition.from_pretrained("model")
    for other in ("again.wav", "other.wav"):
        score, accepted = model.verify_files("a.wav", other)
        code, (found,) = printed(capsys, "verify", "a.wav", other, "--json")
        assert found["score"] == pytest.approx(score.item(), abs=1e-6)
        assert found["same"] == bool(accepted) == (not code)
        assert found["threshold"] == 0.5
    code, (line,) = printed(capsys, "verify", "a.wav", "again.wav")
    assert code == 0
    assert line == "same speaker: cosine score 1.000, threshold 0.500"


def test_thresholds(here, capsys):
    """By a number, or by a rate that is a number or a percentage."""
    both = ["verify", "a.wav", "again.wav"]
    code, _ = printed(capsys, *both, "--threshold", "1.5")
    assert code == 1
    both += ["--json", "--false-accepts"]
    for rate, threshold in (("1%", 0.7), ("10 %", 0.4), ("0.1", 0.4)):
        assert printed(capsys, *both, rate)[1][0]["threshold"] == threshold
    _, (found,) = printed(capsys, *both, "3%")
    assert 0.4 < found["threshold"] < 0.7
    assert "0.01 or 1%" in refused(capsys, *both, "150%")
    assert "expected 0.01 to 0.1" in refused(capsys, *both, "0.001")


def test_enroll_and_identify(here, capsys):
    store = ["--store", "voices"]
    _, (line,) = printed(capsys, "enroll", "Ada", "a.wav", "again.wav", *store)
    assert line == "Ada enrolled in voices, which has 1 speaker(s)"
    _, (line,) = printed(capsys, "enroll", "Ada", "a.wav", *store)
    assert line.startswith("Ada replaced")
    code, (found,) = printed(capsys, "identify", "again.wav", *store, "--json")
    assert code == 0 and found["name"] == "Ada"
    assert found["ranking"] == [["Ada", pytest.approx(1, abs=1e-5)]]
    arguments = ["identify", "a.wav", "other.wav", *store, "--threshold=0.9999"]
    code, lines = printed(capsys, *arguments)
    assert code == 1  # one of them is unknown
    assert lines[0].startswith("a.wav: Ada (threshold 1.000; Ada 1.000")
    assert lines[1].startswith("other.wav: unknown (threshold")
    make_model(here / "other_model", seed=1)
    line = refused(capsys, *arguments, "--model=other_model")
    assert "voices was made by another model" in line


def test_several_files_of_which_some_are_bad(here, capsys):
    (here / "more" / "deep").mkdir(parents=True)
    for name in ("a.wav", "other.wav"):
        shutil.copy(name, f"more/deep/{name}")
    (here / "more" / "bad.wav").write_bytes(b"RIFF")
    code = cli.main(["verify", "a.wav", "again.wav", "more", "--threshold=2"])
    lines, warned = capsys.readouterr()
    files = ["again.wav", "more/deep/a.wav", "more/deep/other.wav"]
    assert code == 1
    assert [line.split(": ")[0] for line in lines.splitlines()] == files
    assert "more/bad.wav" in warned and "1 of 4 files were passed" in warned
    assert "more/bad.wav" in refused(capsys, "verify", "a.wav", "more/bad.wav")
    (here / "empty").mkdir()
    assert "without audio" in refused(capsys, "verify", "a.wav", "empty")


def test_speakers_are_extended_listed_and_removed(here, capsys):
    store = ["--store", "voices"]
    printed(capsys, "enroll", "Bob", "other.wav", *store)
    printed(capsys, "enroll", "Ada", "a.wav", *store)
    arguments = ["enroll", "Ada", "other.wav", "--add", *store]
    _, (line,) = printed(capsys, *arguments)
    assert line.startswith("Ada extended in voices, which has 2")
    model = HyperbolicSpeakerRecognition.from_pretrained("model")
    voices = VoiceprintStore.load("voices")
    found = voices.vectors[voices.names.index("Ada")]
    same(found, model.enroll(["other.wav", "a.wav"]), 1e-5)
    _, lines = printed(capsys, "speakers", *store)
    assert sorted(lines) == ["Ada: 2 file(s)", "Bob: 1 file(s)"]
    _, lines = printed(capsys, "speakers", "--remove", "Bob", *store, "--json")
    assert lines == [{"name": "Ada", "files": 2}]
    line = refused(capsys, "speakers", "--remove", "Bob", *store)
    assert "Bob is not among the 1 enrolled" in line


def test_files_that_do_not_agree_are_named(here, capsys):
    make_model(here / "strict", thresholds=Thresholds(0.9999, {}))
    arguments = ["enroll", "Ada", "a.wav", "again.wav", "other.wav"]
    cli.main([*arguments, "--store=voices", "--model=strict"])
    warned = capsys.readouterr().err
    assert "other.wav does not agree with Ada's other files" in warned


def test_embed(here, capsys):
    arguments = ["embed", ".", "-o", "out", "--scores", "--json"]
    _, (found,) = printed(capsys, *arguments)
    assert found == {"output": "out.npz", "files": 3}
    model = HyperbolicSpeakerRecognition.from_pretrained("model")
    files = ["./a.wav", "./again.wav", "./other.wav"]
    with np.load("out.npz") as file:
        assert file["files"].tolist() == files
        assert file["seconds"].tolist() == [1, 1, 1]
        for path, vector in zip(files, file["embeddings"], strict=True):
            same(vector, model.embed(path).vector, 1e-5)
        score = model.score(file["embeddings"][0], file["embeddings"][2])
        assert file["scores"][0, 2] == pytest.approx(score, abs=1e-6)
        assert file["scores"].shape == (3, 3)


def test_a_calibrated_model_tells_its_ratio(here, capsys):
    fields = {"weights": [10.0, 1.0, -2.0], "quality": ["duration"]}
    fields["offset"] = -5.0
    make_model(here / "model", thresholds=MEASURED, calibration=fields)
    _, (line,) = printed(capsys, "verify", "a.wav", "again.wav")
    assert line.endswith("threshold 0.500, log likelihood ratio 5.00")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("verify none.wav a.wav", "none.wav is missing"),
        ("verify a.wav a.wav --device=meta", "device is meta, which PyTorch"),
        ("verify a.wav a.wav --model=nothing/at/all", "nothing/at/all is not"),
        ("verify a.wav a.wav --model=", "pass --model, or set SB_HYPERBOLIC"),
        ("enroll a.wav again.wav --store=s", "a.wav is a file: enroll NAME"),
        ("enroll Ada a.wav --store=a.wav/s", "a.wav: File exists: choose"),
        ("identify a.wav --store=none", "none is missing"),
        ("identify a.wav --store=text.wav", "text.wav is not a complete saf"),
        ("verify a.wav a.wav --model=.", "config.json is missing: expected a"),
        ("export . out", "hyperparams.yaml is missing: no such file of a trai"),
        ("push . alice/m", "has no config.json: export the model first"),
        ("recipes model", "model exists: name a new folder"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, words, here, capsys):
    (here / "text.wav").write_text("no audio")
    line = refused(capsys, *arguments.split())
    assert line.startswith("error: ") and words in line
    assert not (here / "s").exists() and not (here / "out").exists()


def test_a_fault_is_no_answer(here, capsys, monkeypatch):
    """Its code is not that of different speakers."""
    monkeypatch.setattr(HyperbolicSpeakerRecognition, "score", None)
    assert cli.main(["verify", "a.wav", "again.wav"]) == 3
    assert "TypeError" in capsys.readouterr().err
