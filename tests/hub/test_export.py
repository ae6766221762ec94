"""From a real training run to a folder for the Hub, and what loads it."""

import csv
import re
import shutil

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard

from speechbrain_hyperbolic import HyperbolicSpeakerRecognition
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.results import (
    format_results,
    read_results,
)
from speechbrain_hyperbolic.hub import push
from speechbrain_hyperbolic.hub.export import export_model, export_run
from speechbrain_hyperbolic.inference.model import read_config
from tests.conftest import ROOT, SPEAKERS
from tests.inference.models import OWN
from tests.processes import run_python

TEXT = "Synthetic tones: no person speaks."


@pytest.fixture(scope="module")
def clips(demo):
    return sorted((demo.corpus / "spk013").glob("*.wav"))[:2]


@pytest.fixture(scope="module")
def exported(demo, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "my-model"
    return export_run(
        demo.run, folder, clips=clips, training_data=TEXT, language=["en"]
    )


@pytest.fixture
def run(demo, tmp_path):
    return shutil.copytree(demo.run, tmp_path / "run")


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def test_an_encoder_of_the_users_own(run, clips, tmp_path):
    path = run / "hyperparams.yaml"
    (name,) = OWN
    text = path.read_text()
    start, end = text.index("embedding_model: &"), text.index("classifier: &")
    anchor = text[start:].split()[1]
    own = f"embedding_model: {anchor} !new:{name}\n  size: 5\n  bands: 80\n\n"
    path.write_text(text[:start] + own + text[end:])
    export_model(run, untrained=True)
    folder = export_run(run, tmp_path / "out", clips=clips)
    load = HyperbolicSpeakerRecognition.from_pretrained
    with pytest.raises(InputError, match="trusted"):
        load(folder)
    model = load(folder, trusted=[name])
    assert model.embed(str(clips[0])).vector.shape == (5,)
    text = (folder / "README.md").read_text()
    assert f"trusted=['{name}']" in text
    assert "OwnEncoder with 405 parameters" in text


def test_files(exported, demo):
    wanted = {"README.md", "config.json", "model.safetensors", "results.json"}
    wanted |= {"hyperparams.yaml", "embedding_model.ckpt", "det.png"}
    wanted |= {"examples/clip1.wav", "examples/clip2.wav"}
    assert files(exported) == wanted
    # All of them are pushed.
    names = {re.sub(r"clip\d", "*", name) for name in wanted}
    assert names | {"model.onnx"} == set(push.FILES)
    assert not list(exported.parent.glob(".*"))
    # Nothing tells of the machine, nor of the training's speakers.
    for name in wanted:
        content = (exported / name).read_bytes()
        for hint in (demo.run.parent, ROOT, exported, "spk0"):
            assert str(hint).encode() not in content, name


def test_what_config_and_card_say(exported, demo):
    """The same as results.json, the run's table and its log."""
    results = read_results(demo.run / "trained" / "results.json")
    result = results["all trials"]
    config = read_config(exported)
    assert (config.score, config.clip_c) == ("cosine", 3)
    assert config.mean_var_norm["norm_type"] == "sentence"  # no masks
    assert config.thresholds.eer == result["eer_threshold"]
    measured = {key: result[key] for key in ("n_target", "n_nontarget", "eer")}
    assert config.trials == {"list": "trials.txt"} | measured
    text = " ".join(ModelCard.load(exported / "README.md").text.split())
    with open(demo.run / "save" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = sum(float(row["duration"]) for row in rows) / 60
    for said in (
        " ".join(format_results(results).split()),
        f"{len(rows)} utterances of {SPEAKERS} speakers, {minutes:.1f} ",
        "None of the 6 speakers in the trials was in the training",
        "2 epochs",
        "margin: 0.2",
        "1/sqrt(3) = 0.577",
        "Augmentation: reverberation, noise, music or babble.",
        TEXT,
        "192 numbers",
    ):
        assert said in text, said


def test_the_code_on_the_card_runs(copy):
    """The stock class without this package, to the same score and answer."""
    before = files(copy)
    text = (copy / "README.md").read_text()
    ours, stock = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    # Which the stock class does not have
    ours = ours.replace("score,", "model.vad = False\nscore,", 1)
    stock = "import sys\nsys.modules['speechbrain_hyperbolic'] = None\n" + stock
    answers = []
    for code in (ours, stock):
        done = run_python("-c", code, cwd=copy)
        found = re.search(r"cosine ([\d.-]+)\D*(True|False)", done.stdout)
        answers.append(found.groups())
    assert answers[0] == answers[1]
    assert files(copy) == before


def test_the_verification_is_found(run, tmp_path):
    """Or none; beside those of other weights, one that ended early, and two."""
    folder = export_run(run, tmp_path / "a")
    assert read_config(folder).thresholds is not None
    with pytest.raises(InputError, match="untrained has no verification of"):
        export_run(run, tmp_path / "b", run / "untrained")
    second = shutil.copytree(run / "trained", run / "second")
    with pytest.raises(InputError, match=r"several .*\(second, trained\): c"):
        export_run(run, tmp_path / "b")
    export_run(run, tmp_path / "b", second)
    shutil.rmtree(second)
    (run / "trained" / "results.json").unlink()
    folder = export_run(run, tmp_path / "c")
    assert files(folder).isdisjoint({"det.png", "results.json"})


def test_other_scores_give_no_threshold(run, tmp_path):
    path = run / "trained" / "hyperparams.yaml"
    text = path.read_text()
    for key, value in (("n_crops", 5), ("normalization", "as-norm")):
        text = re.sub(rf"(?m)^{key}:.*\n", f"{key}: {value}\n", text)
    path.write_text(text)
    folder = export_run(run, tmp_path / "out")
    assert read_config(folder).thresholds is None
    text = (folder / "README.md").read_text()
    protocol = "the cosine score of whole utterances, 5 crops of 3 s, as-norm"
    assert protocol in text and "Not measured: the trials" in text


def test_only_an_earlier_export_is_replaced(copy, run, tmp_path):
    """And not by one that fails."""
    (copy / "README.md").write_text("old")
    (copy / "model.onnx").write_text("of the old one")
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    with pytest.raises(InputError, match="exists: name another folder"):
        export_run(run, copy)
    with pytest.raises(InputError, match="bad.wav"):
        export_run(run, copy, clips=[bad, bad], overwrite=True)
    assert not list(copy.parent.glob(".copy*"))
    assert (copy / "README.md").read_text() == "old"
    assert export_run(run, copy, overwrite=True) == copy
    assert (copy / "README.md").read_text().startswith("---\n")
    assert files(copy).isdisjoint({"model.onnx", "examples/clip1.wav"})
    (copy / "notes.txt").write_text("mine")
    for other in (copy, run, run / "model", copy / "notes.txt"):
        with pytest.raises(InputError, match="no other files|own model"):
            export_run(run, other, overwrite=True)
    assert (copy / "notes.txt").read_text() == "mine"


def test_clips_and_names_of_speakers(run, tmp_path):
    """Clips of any format; the names of speakers only if asked for."""
    clip = tmp_path / "a secret.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    soundfile.write(clip, noise, 44100)
    folder = tmp_path / "empty"
    folder.mkdir()
    export_run(run, folder, clips=[clip, clip], speaker_names=True)
    labels = (folder / "label_encoder.txt").read_text()
    assert labels == (run / "save" / "label_encoder.txt").read_text()
    info = soundfile.info(folder / "examples" / "clip2.wav")
    assert (info.samplerate, info.channels, info.frames) == (16000, 1, 16000)


def test_a_runs_yaml_is_not_executed_nor_passed_on(run, tmp_path):
    trace = tmp_path / "trace"
    for path in (run / "hyperparams.yaml", run / "trained/hyperparams.yaml"):
        with open(path, "a") as file:
            file.write(f'\nevil: !apply:os.system ["touch {trace}"]\n')
    export_model(run)
    folder = export_run(run, tmp_path / "out")
    assert not trace.exists()
    assert all(b"touch" not in p.read_bytes() for p in folder.rglob("*.*"))
