"""From a real training run to a folder for the Hub, and what loads it."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
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
from tests.corpora import make_corpus
from tests.scripts import ROOT, TRAIN, VOXCELEB, run_script

SPEAKERS, EPOCHS = 6, 2
TEXT = "Synthetic tones: no person speaks."


class OwnEncoder(torch.nn.Module):
    """A user's own encoder."""

    def __init__(self, size):
        super().__init__()
        self.linear = torch.nn.Linear(80, size)

    def forward(self, features, lengths=None):
        return self.linear(features).mean(1, keepdim=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A corpus, a run on it in "run", its verification in "run/verified"."""
    work = tmp_path_factory.mktemp("work")
    make_corpus(work, SPEAKERS)
    utterances = [f"s{s + SPEAKERS}/{n}" for s in range(2) for n in range(8)]
    pairs = [(a, b) for a in utterances for b in utterances if a < b]
    lines = [f"{int(a[:2] == b[:2])} {a} {b}\n" for a, b in pairs]
    (work / "trials.txt").write_text("".join(lines))
    options = [f"--data_folder={work / 'corpus'}"]
    options += [f"--verification_file={work / 'trials.txt'}", "--device=cpu"]
    code, printed = run_script(
        TRAIN,
        ROOT / "hparams" / "ham_ecapa.yaml",
        *options,
        f"--output_folder={work / 'run'}",
        f"--noise_source={work / 'sounds'}",
        f"--rir_source={work / 'sounds' / 'rir'}",
        f"--out_n_neurons={SPEAKERS}",
        f"--number_of_epochs={EPOCHS}",
        "--channels=16",
        "--clip_c=2.0",
        "--batch_size=16",
        "--num_workers=0",
        "--sentence_len=0.6",
        "--split_ratio=[80, 20]",
    )
    assert code == 0, printed
    code, printed = run_script(
        VOXCELEB / "speaker_verification.py",
        ROOT / "hparams" / "verification.yaml",
        *options,
        f"--model_folder={work / 'run' / 'model'}",
        f"--output_folder={work / 'run' / 'verified'}",
        f"--cache_folder={work / 'cache'}",
        "--n_crops=0",
    )
    assert code == 0, printed
    return work


@pytest.fixture(scope="module")
def clips(work):
    return [work / "corpus" / "s6" / f"{number}.wav" for number in (0, 1)]


@pytest.fixture(scope="module")
def exported(work, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "my-model"
    return export_run(
        work / "run", folder, clips=clips, training_data=TEXT, language="en"
    )


@pytest.fixture
def run(work, tmp_path):
    """A copy of the run, to be changed."""
    return shutil.copytree(work / "run", tmp_path / "run")


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def test_an_encoder_of_the_users_own(run, clips, tmp_path):
    path = run / "hyperparams.yaml"
    name = f"{OwnEncoder.__module__}.OwnEncoder"
    text = path.read_text()
    start, end = text.index("embedding_model: &"), text.index("classifier: &")
    anchor = text[start:].split()[1]
    own = f"embedding_model: {anchor} !new:{name}\n  size: 5\n\n"
    path.write_text(text[:start] + own + text[end:])
    export_model(run, untrained=True)
    folder = export_run(run, tmp_path / "out", clips=clips)
    load = HyperbolicSpeakerRecognition.from_pretrained
    with pytest.raises(InputError, match="trusted"):
        load(folder)
    model = load(folder, trusted=[name])
    model.vad = False  # the clips are tones
    assert model.embed(str(clips[0])).vector.shape == (5,)
    text = (folder / "README.md").read_text()
    assert f"trusted=['{name}']" in text
    assert "OwnEncoder with 405 parameters" in text


def test_files(exported, work):
    wanted = {"README.md", "config.json", "model.safetensors", "results.json"}
    wanted |= {"hyperparams.yaml", "embedding_model.ckpt", "det.png"}
    wanted |= {"examples/clip1.wav", "examples/clip2.wav"}
    assert files(exported) == wanted
    # All of them are pushed.
    names = {re.sub(r"clip\d", "*", name) for name in wanted}
    assert names | {"model.onnx"} == set(push.FILES)
    assert not list(exported.parent.glob(".*"))
    # Nothing tells of the machine, nor of the speakers s0, s1, ...
    for name in wanted:
        content = (exported / name).read_bytes()
        for root in (work, ROOT, exported):
            assert str(root).encode() not in content, name
        assert name.endswith((".png", ".wav", ".ckpt", ".safetensors")) or (
            not re.search(rb"\bs\d\b", content)
        )


def test_what_the_config_says(exported, work):
    result = read_results(work / "run/verified/results.json")["all trials"]
    config = read_config(exported)
    assert (config.score, config.clip_c) == ("cosine", 2)
    assert config.mean_var_norm["norm_type"] == "sentence"  # no masks
    assert config.thresholds.eer == result["eer_threshold"]
    measured = {key: result[key] for key in ("n_target", "n_nontarget", "eer")}
    assert config.trials == {"list": "trials.txt"} | measured


def test_what_the_card_says(exported, work):
    """The same as results.json, the run's table and its log."""
    run = work / "run"
    results = read_results(run / "verified" / "results.json")
    text = " ".join(ModelCard.load(exported / "README.md").text.split())
    with open(run / "save" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = sum(float(row["duration"]) for row in rows) / 60
    for said in (
        " ".join(format_results(results).split()),
        f"{len(rows)} utterances of {SPEAKERS} speakers, {minutes:.1f} ",
        "None of the 2 speakers in the trials was in the training",
        f"{EPOCHS} epochs",
        "margin: 0.2",
        "1/sqrt(2) = 0.707",
        "Augmentation: reverberation, noise, music or babble.",
        TEXT,
        "192 numbers",
    ):
        assert said in text, said


def execute(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_on_the_card_runs(copy):
    """The stock class without this package, to the same score and answer."""
    before = files(copy)
    text = (copy / "README.md").read_text()
    ours, stock = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ours = ours.replace("score,", "model.vad = False  # tones\nscore,", 1)
    stock = "import sys\nsys.modules['speechbrain_hyperbolic'] = None\n" + stock
    first = re.fullmatch(r"cosine (.*)\n(True|False)\n", execute(stock, copy))
    second = re.fullmatch(
        r"cosine (.*), same speaker: (True|False)\n", execute(ours, copy)
    )
    assert first.groups() == second.groups()
    assert files(copy) == before


def test_the_verification_is_found(run, tmp_path):
    """Or none; among one of other weights, one that ended early, and two."""
    other = shutil.copytree(run / "verified", run / "untrained")
    results = read_results(other / "results.json")
    results["all trials"]["encoder"] = "of others"
    (other / "results.json").write_text(json.dumps(results))
    folder = export_run(run, tmp_path / "a")
    assert read_config(folder).thresholds is not None
    with pytest.raises(InputError, match="untrained has no verification of"):
        export_run(run, tmp_path / "b", other)
    (shutil.copytree(other, run / "early") / "results.json").unlink()
    shutil.copytree(run / "verified", run / "second")
    with pytest.raises(InputError, match=r"several .*\(second, verified\): c"):
        export_run(run, tmp_path / "b")
    export_run(run, tmp_path / "b", run / "second")
    shutil.rmtree(run / "verified")
    shutil.rmtree(run / "second")
    folder = export_run(run, tmp_path / "c")
    assert files(folder).isdisjoint({"det.png", "results.json"})


def test_other_scores_give_no_threshold(run, tmp_path):
    path = run / "verified" / "hyperparams.yaml"
    text = path.read_text()
    for key, value in (("n_crops", 5), ("normalization", "as-norm")):
        text = re.sub(rf"(?m)^{key}:.*\n", f"{key}: {value}\n", text)
    path.write_text(text)
    folder = export_run(run, tmp_path / "out")
    assert read_config(folder).thresholds is None
    text = (folder / "README.md").read_text()
    protocol = "the cosine score of whole utterances, 5 crops of 3 s, as-norm"
    assert protocol in text and "Not measured: the trials" in text


def test_only_an_earlier_export_is_replaced(copy, run, clips, tmp_path):
    (copy / "README.md").write_text("old")
    (copy / "model.onnx").write_text("of the old one")
    with pytest.raises(InputError, match="exists: name another folder"):
        export_run(run, copy)
    assert (copy / "README.md").read_text() == "old"
    assert export_run(run, copy, overwrite=True) == copy
    assert (copy / "README.md").read_text().startswith("---\n")
    assert files(copy).isdisjoint({"model.onnx", "examples/clip1.wav"})
    (copy / "notes.txt").write_text("mine")
    for other in (copy, run, copy / "notes.txt"):
        with pytest.raises(InputError, match="if it has no other files"):
            export_run(run, other, overwrite=True)
    assert (copy / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export_run(run, tmp_path / "empty")


def test_a_failure_leaves_the_old_one(copy, run, tmp_path):
    before = {path: path.read_bytes() for path in copy.rglob("*.*")}
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    with pytest.raises(InputError, match="bad.wav"):
        export_run(run, copy, clips=[bad, bad], overwrite=True)
    assert {path: path.read_bytes() for path in copy.rglob("*.*")} == before
    assert not list(copy.parent.glob(".copy*"))


def test_clips_and_names_of_speakers(run, tmp_path):
    """Clips of any format; the names of speakers only if asked for."""
    clip = tmp_path / "a secret.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    soundfile.write(clip, noise, 44100)
    clips = [clip, clip]
    folder = export_run(run, tmp_path / "o", clips=clips, speaker_names=True)
    labels = (folder / "label_encoder.txt").read_text()
    assert labels == (run / "save" / "label_encoder.txt").read_text()
    info = soundfile.info(folder / "examples" / "clip2.wav")
    assert (info.samplerate, info.channels, info.frames) == (16000, 1, 16000)


def test_a_runs_yaml_is_not_executed_nor_passed_on(run, tmp_path):
    trace = tmp_path / "trace"
    for path in (run / "hyperparams.yaml", run / "verified/hyperparams.yaml"):
        with open(path, "a") as file:
            file.write(f'\nevil: !apply:os.system ["touch {trace}"]\n')
    export_model(run)
    folder = export_run(run, tmp_path / "out")
    assert not trace.exists()
    assert all(b"touch" not in p.read_bytes() for p in folder.rglob("*.*"))
