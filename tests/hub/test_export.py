"""From a real training run to a folder for the Hub, and what loads it."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_hyperbolic import HyperbolicSpeakerRecognition
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.results import (
    format_results,
    read_results,
)
from speechbrain_hyperbolic.hparams import save_resolved
from speechbrain_hyperbolic.hub import push
from speechbrain_hyperbolic.hub.export import export_model, export_run
from speechbrain_hyperbolic.inference.model import load_model, read_config
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
    """A copy of the exported folder, to be changed."""
    return shutil.copytree(exported, tmp_path / "copy")


def edit(path, **keys):
    """Replaces keys of a YAML file, by text."""
    text = path.read_text()
    for key, value in keys.items():
        text, n = re.subn(rf"(?m)^{key}:.*\n", f"{key}: {value}\n", text)
        assert n == 1, key
    path.write_text(text)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


# ------------------------------------------------------------ the model folder


def test_the_model_is_the_average_of_the_last_epochs(run, tmp_path):
    paths = run.glob("save/CKPT*/embedding_model.ckpt")
    states = [torch.load(path, weights_only=True) for path in paths]
    assert len(states) == EPOCHS
    # Exported again from a run that has moved.
    found = export_model(run, tmp_path / "again")
    _, modules = load_model(found)
    for name, value in modules["embedding_model"].state_dict().items():
        mean = torch.stack([state[name].double() for state in states]).mean(0)
        if value.is_floating_point():
            torch.testing.assert_close(
                value.double(), mean, rtol=1e-5, atol=1e-7
            )
    config = read_config(found)
    assert config == read_config(run / "model") and config.clip_c == 2
    assert config.mean_var_norm["norm_type"] == "sentence"  # no masks


def test_untrained_weights_are_the_seeds(run, tmp_path):
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        edit(run / "hyperparams.yaml", seed=seed)
        random = torch.get_rng_state()
        folder = export_model(run, tmp_path / name, untrained=True)
        assert torch.equal(torch.get_rng_state(), random)
        states.append(load_model(folder)[1]["embedding_model"].fc.conv.weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    shutil.rmtree(run / "save")
    with pytest.raises(InputError, match="has no checkpoint of a finished"):
        export_model(run)


def test_a_run_of_the_stock_script(tmp_path):
    """By its checkpointer, with its names, and without our keys."""
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    if not clone:
        pytest.skip("SPEECHBRAIN_CLONE is not set to a clone of SpeechBrain")
    folder = f"{clone}/recipes/VoxCeleb/SpeakerRec/hparams"
    overrides = {"data_folder": "/corpus", "output_folder": str(tmp_path)}
    save_resolved(f"{folder}/train_x_vectors.yaml", overrides, tmp_path)
    folder = export_model(tmp_path, tmp_path / "untrained", untrained=True)
    state = load_model(folder)[1]["embedding_model"].state_dict()
    encoder = load_model(folder)[1]["embedding_model"]
    checkpointer = Checkpointer(tmp_path / "save", {"embedding_model": encoder})
    checkpointer.save_checkpoint()
    found = load_model(export_model(tmp_path))[1]["embedding_model"]
    for name, value in found.state_dict().items():
        assert torch.equal(value, state[name])


def embed(folder, clip, **options):
    model = HyperbolicSpeakerRecognition.from_pretrained(folder, **options)
    return model.embed(str(clip)).vector


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
    with pytest.raises(InputError, match="trusted"):
        embed(folder, clips[0])
    assert embed(folder, clips[0], trusted=[name]).shape == (5,)
    assert f"trusted=['{name}']" in (folder / "README.md").read_text()
    assert "OwnEncoder with 405 parameters" in (
        (folder / "README.md").read_text()
    )


# ------------------------------------------------------------ the export


def test_files(exported):
    wanted = {"README.md", "config.json", "model.safetensors", "results.json"}
    wanted |= {"hyperparams.yaml", "embedding_model.ckpt", "det.png"}
    wanted |= {"examples/clip1.wav", "examples/clip2.wav"}
    assert files(exported) == wanted
    # All of them are pushed.
    names = {re.sub(r"clip\d", "*", name) for name in wanted}
    assert names | {"model.onnx"} == set(push.FILES)
    assert not list(exported.parent.glob(".*"))


def test_nothing_about_the_machine_and_the_speakers(exported, work):
    for path in exported.rglob("*.*"):
        content = path.read_bytes()
        for root in (work, ROOT, exported):
            assert str(root).encode() not in content, path
    # The corpus's speakers are s0, s1, ...
    for name in ("README.md", "results.json", "config.json"):
        assert not re.search(r"\bs\d\b", (exported / name).read_text())


def test_what_the_config_says(exported, work):
    result = read_results(work / "run/verified/results.json")["all trials"]
    config = read_config(exported)
    assert (config.score, config.clip_c) == ("cosine", 2)
    assert config.thresholds.eer == result["eer_threshold"]
    assert config.trials["list"] == "trials.txt"
    for key in ("n_target", "n_nontarget", "eer"):
        assert config.trials[key] == result[key]


def test_what_the_card_says(exported, work):
    """The same as results.json, the scores, the run's table and its log."""
    run = work / "run"
    results = read_results(run / "verified" / "results.json")
    card = ModelCard.load(exported / "README.md")
    text = " ".join(card.text.split())
    assert " ".join(format_results(results).split()) in text
    table = read_score_table(run / "verified" / "scores.txt")
    target = table.scores[table.labels == 1]
    mean, std = target.mean(), target.std()
    assert f"{mean:.3f} for target trials (standard deviation {std:.3f})" in (
        text
    )
    with open(run / "save" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = sum(float(row["duration"]) for row in rows) / 60
    assert f"{len(rows)} utterances of {SPEAKERS} speakers, {minutes:.1f} " in (
        text
    )
    assert "None of the 2 speakers in the trials was in the training" in text
    log = (run / "train_log.txt").read_text().splitlines()
    assert f"{EPOCHS} epochs" in text and len(log) == EPOCHS
    assert "margin: 0.2" in text and "1/sqrt(2) = 0.707" in text
    assert "AddReverb, AddNoise, AddBabble." in text and TEXT in text
    _, modules = load_model(exported)
    n = sum(p.numel() for p in modules["embedding_model"].parameters())
    assert f"{n:,} parameters" in text and "192 numbers" in text
    assert card.data.tags[-3:] == ["hyperbolic", "ECAPA-TDNN", "HAM-Softmax"]
    values = [entry.metric_value for entry in card.data.eval_results]
    assert values[0] == pytest.approx(100 * results["all trials"]["eer"])


def blocks(folder):
    text = (folder / "README.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def execute(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_on_the_card_runs(copy):
    """The stock class without this package, to the same score and answer."""
    before = files(copy)
    ours, stock = blocks(copy)
    stock = "import sys\nsys.modules['speechbrain_hyperbolic'] = None\n" + stock
    first = re.fullmatch(r"cosine (.*)\n(True|False)\n", execute(stock, copy))
    second = re.fullmatch(
        r"cosine (.*), same speaker: (True|False)\n", execute(ours, copy)
    )
    assert first.groups() == second.groups()
    assert files(copy) == before


# ------------------------------------------------------------ verifications


def test_without_a_verification(run, tmp_path):
    shutil.rmtree(run / "verified")
    folder = export_run(run, tmp_path / "out")
    assert read_config(folder).thresholds is None
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is None
    assert card.text.count("Not measured") == 2
    assert files(folder).isdisjoint({"det.png", "results.json"})


def test_the_verification_is_found(run, tmp_path):
    """Among one of other weights, one that ended early, and two."""
    other = shutil.copytree(run / "verified", run / "untrained")
    results = read_results(other / "results.json")
    results["all trials"]["encoder"] = "of others"
    (other / "results.json").write_text(json.dumps(results))
    folder = export_run(run, tmp_path / "a")
    assert read_config(folder).thresholds is not None
    with pytest.raises(InputError, match="untrained verified other weights"):
        export_run(run, tmp_path / "b", other)
    (shutil.copytree(other, run / "early") / "results.json").unlink()
    shutil.copytree(run / "verified", run / "second")
    with pytest.raises(InputError, match=r"several .*\(second, verified\): c"):
        export_run(run, tmp_path / "b")
    export_run(run, tmp_path / "b", run / "second")


@pytest.mark.parametrize(
    "options, protocol",
    [
        ({"n_crops": 5}, "the cosine score of whole utterances, 5 crops of 3"),
        ({"normalization": "as-norm"}, "utterances, as-norm"),
        ({"calibration_file": "held_out.txt"}, "calibration by logistic"),
        ({"enrollment_file": "e.txt"}, "models of several utterances (mean)"),
    ],
)
def test_other_scores_give_no_threshold(options, protocol, run, tmp_path):
    edit(run / "verified" / "hyperparams.yaml", **options)
    folder = export_run(run, tmp_path / "out")
    config = read_config(folder)
    assert config.thresholds is None and config.trials is None
    card = ModelCard.load(folder / "README.md")
    assert protocol in card.text and "Not measured: the trials" in card.text
    assert len(card.data.eval_results) == 3


def test_scores_of_an_interrupted_verification(run, tmp_path):
    path = run / "verified" / "results.json"
    results = read_results(path)
    results["all trials"]["eer"] += 0.01
    path.write_text(json.dumps(results))
    with pytest.raises(InputError, match="results.json and scores.txt have d"):
        export_run(run, tmp_path / "out")


# ------------------------------------------------------------ whole or not


def test_only_an_earlier_export_is_replaced(copy, run, clips, tmp_path):
    (copy / "README.md").write_text("old")
    (copy / "model.onnx").write_text("of the old one")
    with pytest.raises(InputError, match="exists: name another, or replace it"):
        export_run(run, copy)
    assert (copy / "README.md").read_text() == "old"
    assert export_run(run, copy, overwrite=True) == copy
    assert (copy / "README.md").read_text().startswith("---\n")
    assert files(copy).isdisjoint({"model.onnx", "examples/clip1.wav"})
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not just an earlier export"):
        export_run(run, copy, overwrite=True)
    with pytest.raises(InputError, match="is not just an earlier export"):
        export_run(run, run, overwrite=True)
    with pytest.raises(InputError, match="notes.txt is a file, expected"):
        export_run(run, copy / "notes.txt", overwrite=True)
    with pytest.raises(InputError, match="cannot be made .*name another"):
        export_run(run, copy / "notes.txt" / "out")
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
    """Clips of any format, without what else the files say; names if asked."""
    noise = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    paths = [tmp_path / "a secret.flac", tmp_path / "b.wav"]
    for path in paths:
        soundfile.write(path, noise, 44100)
    folder = export_run(run, tmp_path / "out", clips=paths, speaker_names=True)
    labels = (folder / "label_encoder.txt").read_text()
    assert labels == (run / "save" / "label_encoder.txt").read_text()
    for name in ("clip1", "clip2"):
        info = soundfile.info(folder / "examples" / f"{name}.wav")
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.frames == 16000
    with pytest.raises(InputError, match="clips has 1 recordings, expected t"):
        export_run(run, tmp_path / "other", clips=paths[:1])


# ------------------------------------------------------------ damaged runs


@pytest.mark.parametrize(
    "name", ["hyperparams.yaml", "verified/hyperparams.yaml"]
)
def test_a_runs_yaml_is_not_executed_nor_passed_on(name, run, tmp_path):
    trace = tmp_path / "trace"
    with open(run / name, "a") as file:
        file.write(f'\nevil: !apply:os.system ["touch {trace}"]\n')
    export_model(run)
    folder = export_run(run, tmp_path / "out")
    assert not trace.exists()
    assert all(b"touch" not in p.read_bytes() for p in folder.rglob("*.*"))


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("hyperparams.yaml", None, "hyperparams.yaml is missing"),
        ("hyperparams.yaml", "seed: 1", "has no key classifier: expected"),
        ("train_log.txt", None, "train_log.txt has no epochs, expected a fin"),
        ("save/train.csv", "ID,wav\n1,2\n", "no column spk_id"),
        ("save/train.csv", "ID,spk_id,duration\n", "has no utterances"),
        ("model/model.safetensors", None, "model.safetensors is missing"),
        ("verified/scores.txt", "", "scores.txt has no scores"),
        ("verified/results.json", "[]", "verified has no valid results.json"),
    ],
)
def test_a_run_with_a_bad_file(name, text, message, run, tmp_path):
    (run / name).unlink()
    if text is not None:
        (run / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        export_run(run, tmp_path / "out", run / "verified")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
