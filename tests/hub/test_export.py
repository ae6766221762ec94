"""From a real training run to a folder for the Hub, and what loads it."""

import csv
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import ruamel.yaml
import soundfile
import torch
from huggingface_hub import ModelCard
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.lobes.models.ResNet import ResNet
from speechbrain.lobes.models.Xvector import Xvector

from speechbrain_hyperbolic import cli
from speechbrain_hyperbolic.dataio.make_trials import make_trial_list
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.export import stock_node, write_hyperparams
from speechbrain_hyperbolic.hparams import nest_overrides
from speechbrain_hyperbolic.hub import transfer
from speechbrain_hyperbolic.hub.export import export_run
from speechbrain_hyperbolic.inference.model_folder import (
    load_model,
    read_config,
)
from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)
from speechbrain_hyperbolic.verification import format_results, read_results
from tests.scripts import ROOT, VOXCELEB, run_script

pytest.importorskip("espeakng_loader")

HPARAMS = VOXCELEB / "hparams"
SPEAKERS, EPOCHS = 4, 2
TEXT = "Synthetic speech by eSpeak NG: no person speaks."


def script(name, hparams, work, *options):
    """Runs a script of the recipe as a user does."""
    code, printed = run_script(
        VOXCELEB / name,
        HPARAMS / hparams,
        f"--data_folder={work / 'corpus'}",
        f"--verification_file={work / 'trials.txt'}",
        *options,
    )
    assert code == 0, printed


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A corpus, a run on it in "run", its verification in "run/verified"."""
    work = tmp_path_factory.mktemp("work")
    run = work / "run"
    make_synthetic_corpus(
        work / "corpus", n_train=SPEAKERS, n_test=10, utterances=(4, 3)
    )
    make_trial_list(work / "corpus", work / "trials.txt")
    script(
        "train_speaker_embeddings.py",
        "ham_ecapa.yaml",
        work,
        f"--output_folder={run}",
        f"--out_n_neurons={SPEAKERS}",
        f"--number_of_epochs={EPOCHS}",
        "--channels=16",
        "--batch_size=16",
        "--num_workers=0",
        "--noise_source=generate",
        f"--rir_source={run / 'save/generated/noise'}",
    )
    script(
        "speaker_verification.py",
        "verification_ham_ecapa.yaml",
        work,
        f"--output_folder={run / 'verified'}",
        f"--training={{channels: 16, output_folder: {run}}}",
        "--n_crops=0",
        f"--cache_folder={work / 'cache'}",
    )
    return work


@pytest.fixture(scope="module")
def exported(work, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "my-model"
    return export_run(
        work / "run",
        folder,
        work / "run" / "verified",
        training_data=TEXT,
        language="en",
    )


@pytest.fixture
def run(work, tmp_path):
    """A copy of the run, to be changed."""
    return shutil.copytree(work / "run", tmp_path / "run")


@pytest.fixture
def clips(work):
    """Two recordings, which are quicker than to synthesize."""
    return sorted((work / "corpus").glob("*/*.wav"))[:2]


@pytest.fixture
def copy(exported, tmp_path):
    """Of the exported folder, to be changed."""
    return shutil.copytree(exported, tmp_path / "copy")


def edit(path, **keys):
    """Replaces keys of a YAML file, by text."""
    text = path.read_text()
    for key, value in keys.items():
        text, n = re.subn(rf"(?m)^{key}:.*\n", f"{key}: {value}\n", text)
        assert n == 1
    path.write_text(text)


def isolated(code, folder):
    """Runs Python where this package can't be imported."""
    packages = [path for path in sys.path if path.endswith("-packages")]
    prelude = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "speechbrain_hyperbolic":
            raise AssertionError(f"{name} is imported")
sys.meta_path.insert(0, Blocker())
"""
    # Without site, there is no editable install.
    done = subprocess.run(
        [sys.executable, "-S", "-c", prelude + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(packages)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same_embeddings(folder, wav, tmp_path):
    """By the stock class without this package, and by this package.

    Both are seeded: the stock x-vector adds noise of about 1e-5 when it pools.
    """
    isolated(
        f"""
import numpy as np
import torch
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams(source={str(folder)!r}, savedir=".")
wav = model.load_audio({str(wav)!r}).unsqueeze(0)
torch.manual_seed(0)
np.save("stock.npy", model.encode_batch(wav).squeeze().numpy())
""",
        tmp_path,
    )
    stock = np.load(tmp_path / "stock.npy")
    ours = HyperbolicSpeakerRecognition.from_pretrained(str(folder))
    torch.manual_seed(0)
    vector = ours.embed(str(wav)).vector
    assert np.abs(stock).max() > 0.01
    np.testing.assert_allclose(vector, stock, rtol=0, atol=1e-6)


def test_files(exported):
    names = {p.relative_to(exported).as_posix() for p in exported.rglob("*")}
    assert names == {
        "README.md",
        "config.json",
        "model.safetensors",
        "hyperparams.yaml",
        "embedding_model.ckpt",
        "label_encoder.txt",
        "results.json",
        "det.png",
        "examples",
        "examples/clip1.wav",
        "examples/clip2.wav",
    }
    for name in ("clip1", "clip2"):
        info = soundfile.info(exported / "examples" / f"{name}.wav")
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.duration > 1
    assert not list(exported.parent.glob(".*"))


def test_no_path_of_the_machine(exported, work):
    home = str(pathlib.Path.home()).encode()
    for path in exported.rglob("*.*"):
        data = path.read_bytes()
        for root in (work, ROOT, exported):
            assert str(root).encode() not in data, path
        assert len(home) < 3 or home not in data
    assert str(work) in (work / "run" / "hyperparams.yaml").read_text()


def test_same_embeddings_without_this_package(exported, work, tmp_path):
    wav = work / "corpus" / "spk005" / "utt01.wav"
    assert_same_embeddings(exported, wav, tmp_path)


@pytest.mark.parametrize("encoder", ["xvector", "resnet"])
def test_other_encoders(encoder, run, clips, tmp_path):
    build, name, arguments = {
        "xvector": (
            Xvector,
            "speechbrain.lobes.models.Xvector.Xvector",
            {"in_channels": 40, "tdnn_channels": [16, 16, 16, 16, 48]},
        ),
        "resnet": (
            ResNet,
            "speechbrain.lobes.models.ResNet.ResNet",
            {"input_size": 40, "channels": [8, 8, 16, 16], "lin_neurons": 64},
        ),
    }[encoder]
    torch.manual_seed(0)
    model = build(**arguments)
    torch.save(model.state_dict(), run / "model" / "embedding_model.ckpt")
    write_hyperparams(
        {
            # 40 bands are the stock's default
            "compute_features": stock_node(
                "speechbrain.lobes.features.Fbank", {"sample_rate": 16000}
            ),
            "mean_var_norm": stock_node(
                "speechbrain.processing.features.InputNormalization",
                {"norm_type": "sentence", "std_norm": False},
            ),
            "embedding_model": stock_node(name, arguments),
        },
        run / "model" / "hyperparams.yaml",
    )
    folder = export_run(run, tmp_path / "model", clips=clips)
    config = read_config(folder)
    assert (config.encoder, config.encoder_arguments) == (encoder, arguments)
    assert_same_embeddings(folder, clips[0], tmp_path)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_payload_in_the_yaml_has_no_effect(copy, tmp_path):
    trace = tmp_path / "trace"
    before = HyperbolicSpeakerRecognition.from_pretrained(str(copy))
    with open(copy / "hyperparams.yaml", "a") as file:
        file.write(f'\nevil: !apply:os.system ["touch {trace}"]\n')
    after = HyperbolicSpeakerRecognition.from_pretrained(str(copy))
    assert not trace.exists()
    clip = str(copy / "examples" / "clip1.wav")
    assert np.array_equal(before.embed(clip).vector, after.embed(clip).vector)
    # It is a real one.
    SpeakerRecognition.from_hparams(source=str(copy), savedir=str(tmp_path))
    assert trace.exists()


def test_a_payload_in_the_checkpoint_has_no_effect(copy, tmp_path):
    trace = tmp_path / "trace"
    checkpoint = copy / "embedding_model.ckpt"
    torch.save(Payload(trace), checkpoint)
    HyperbolicSpeakerRecognition.from_pretrained(str(copy))
    assert not trace.exists()
    torch.load(checkpoint, weights_only=False)
    assert trace.exists()


def test_a_payload_as_custom_code_has_no_effect(copy, tmp_path):
    trace = tmp_path / "trace"
    (copy / "custom.py").write_text(f"open({str(trace)!r}, 'w')")
    HyperbolicSpeakerRecognition.from_pretrained(str(copy))
    assert not trace.exists()
    SpeakerRecognition.from_hparams(source=str(copy), savedir=str(tmp_path))
    assert not trace.exists()  # the stock only puts it where it can be named


@pytest.mark.parametrize(
    "name",
    ["hyperparams.yaml", "model/hyperparams.yaml", "verified/hyperparams.yaml"],
)
def test_a_payload_in_the_run_is_not_run_nor_passed_on(
    name, run, clips, tmp_path
):
    trace = tmp_path / "trace"
    evil = f'\nevil: !apply:os.system ["touch {trace}"]\n'
    evil += f'worse: !applyref:os.system ["touch {trace}"]\n'
    with open(run / name, "a") as file:
        file.write(evil)
    folder = export_run(run, tmp_path / "model", run / "verified", clips)
    assert not trace.exists()
    for path in folder.rglob("*.*"):
        assert b"touch" not in path.read_bytes()
    load_hyperpyyaml(evil)
    assert trace.exists()


def test_a_payload_in_the_runs_weights_is_refused(run, clips, tmp_path):
    trace = tmp_path / "trace"
    checkpoint = run / "model" / "embedding_model.ckpt"
    checkpoint.write_bytes(pickle.dumps(Payload(trace), protocol=2))
    with pytest.raises(InputError, match="is no whole file of weights") as e:
        export_run(run, tmp_path / "model", clips=clips)
    assert "\n" not in str(e.value)
    assert not trace.exists() and not (tmp_path / "model").exists()


def test_what_the_card_says(exported, work):
    """Of results.json, the scores, the run's table of data and its log."""
    run = work / "run"
    results = read_results(run / "verified" / "results.json")
    card = ModelCard.load(exported / "README.md")
    text = " ".join(card.text.split())
    assert " ".join(format_results(results).split()) in text
    table = read_score_table(run / "verified" / "scores.txt")
    target = table.scores[table.labels == 1]
    nontarget = table.scores[table.labels == 0]
    assert (
        f"Scores of target trials are {target.mean():.3f} on average "
        f"(standard deviation {target.std():.3f}), of nontarget trials "
        f"{nontarget.mean():.3f} ({nontarget.std():.3f})."
    ) in text
    threshold = results["all trials"]["eer_threshold"]
    assert (
        f"| equal error rate | {threshold:.4f} "
        f"| {100 * np.mean(nontarget > threshold):.2f} % "
        f"| {100 * np.mean(target <= threshold):.2f} % |"
    ) in text
    with open(run / "save" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = sum(float(row["duration"]) for row in rows)
    assert (
        f"{TEXT} {len(rows)} utterances of {SPEAKERS} speakers, "
        f"{seconds / 60:.1f} min; language: en."
    ) in text
    assert "None of the 10 speakers of the trials is a training" in text
    log = (run / "train_log.txt").read_text().splitlines()
    assert f"{len(log)} epochs" in text and len(log) == EPOCHS
    assert "margin=0.2, scale=30" in text and "ClippedDistance(c=3.0)" in text
    assert "synthetic, two sentences of one voice" in text
    assert "noise and music from a generator, room responses from a f" in text
    assert "Verification: the cosine of whole utterances." in text
    values = [entry.metric_value for entry in card.data.eval_results]
    keys = (("eer", 100), ("min_dcf_0.01", 1), ("min_dcf_0.05", 1))
    assert values == pytest.approx(
        [factor * r[key] for r in results.values() for key, factor in keys],
        abs=1e-6,
    )
    _, modules = load_model(exported)
    n = sum(p.numel() for p in modules["embedding_model"].parameters())
    assert f"{n:,} parameters" in text and "192 numbers" in text
    assert card.data.tags[-3:] == ["hyperbolic", "ECAPA-TDNN", "HAM-Softmax"]


def test_config_has_what_was_measured(exported, work):
    result = read_results(work / "run/verified/results.json")["all trials"]
    config = read_config(exported)
    assert config.score == "cosine" and config.clip_c == 3
    assert config.thresholds.eer == result["eer_threshold"]
    trials = config.trials
    assert trials["list"] == "trials.txt"
    for key in ("n_target", "n_nontarget"):
        assert trials[key] == result[key]
    for key in ("eer", "min_dcf_0.01", "min_dcf_0.05"):
        assert trials[key] == result[key]
        assert trials[f"{key}_interval"] == result["intervals"][key]
    assert trials["target_mean"] > trials["nontarget_mean"]


def blocks(folder):
    text = (folder / "README.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run_block(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_on_the_card_runs(copy):
    """With the same score, and decided by the same threshold."""
    stock, ours = blocks(copy)
    before = sorted(copy.rglob("*"))
    first = re.fullmatch(
        r"cosine (.*)\n(True|False)\n", isolated(stock, copy)
    ).groups()
    second = re.search(
        r"cosine (.*), one speaker: (True|False)\n", run_block(ours, copy)
    ).groups()
    assert first == second
    assert sorted(copy.rglob("*")) == before


def test_without_a_verification(run, clips, tmp_path):
    folder = export_run(run, tmp_path / "model", clips=clips)
    config = read_config(folder)
    assert config.thresholds is None and config.trials is None
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is None
    assert card.text.count("Not measured") >= 3
    assert not (folder / "det.png").exists()
    assert not (folder / "results.json").exists()
    stock, ours = (run_block(code, folder) for code in blocks(folder))
    assert re.search(r"^cosine (.*)", stock)[1] in ours


@pytest.mark.parametrize(
    "options, protocol",
    [
        ({"n_crops": 5}, "the cosine of whole utterances, 5 crops of 3 s"),
        ({"score": "fused"}, "the mean of cosine and hyperbolic score of"),
        ({"normalisation": "as-norm"}, "utterances, as-norm"),
        ({"calibration_file": "held_out.txt"}, "calibrated by logistic"),
        ({"enrolment_file": "e.txt"}, "models of several utterances (mean)"),
    ],
)
def test_scores_of_another_kind_give_no_threshold(
    options, protocol, run, clips, tmp_path
):
    edit(run / "verified" / "hyperparams.yaml", **options)
    folder = export_run(run, tmp_path / "model", run / "verified", clips)
    config = read_config(folder)
    assert config.thresholds is None and config.trials is None
    card = ModelCard.load(folder / "README.md")
    text = " ".join(card.text.split())
    assert protocol in text and "Not measured. The trials below" in text
    assert len(card.data.eval_results) == 6


def test_a_hyperbolic_score(run, clips, tmp_path):
    edit(run / "verified" / "hyperparams.yaml", score="hyperbolic", clip_c=2.0)
    folder = export_run(run, tmp_path / "model", run / "verified", clips)
    config = read_config(folder)
    assert (config.score, config.clip_c) == ("hyperbolic", 2.0)
    assert config.thresholds is not None


@pytest.mark.parametrize(
    "name, loss, hyperbolic",
    [
        ("aam_ecapa", "AAM-Softmax", False),
        ("am_ecapa", "AM-Softmax", False),
        ("eh_am_ecapa", "E.H. AM-Softmax", True),
        ("h_ecapa", "H-Softmax", True),
        ("ham_ecapa_large_margin", "HAM-Softmax", True),
        ("ham_exact_ecapa", "HAM-Softmax", True),
        ("ham_schedule_ecapa", "HAM-Softmax", True),
        ("ham_smooth_ecapa", "HAM-Softmax", True),
        ("ram_ecapa", "RAM-Softmax", False),
        ("softmax_ecapa", "softmax", False),
    ],
)
def test_losses(name, loss, hyperbolic, run, clips, tmp_path):
    """Of files that include another, resolved as a run keeps them."""
    hparams = HPARAMS / f"{name}.yaml"
    overrides = nest_overrides(hparams, {"data_folder": "/some/corpus"})
    with open(hparams) as file:
        (run / "hyperparams.yaml").write_text(
            resolve_references(file, overrides).read()
        )
    folder = export_run(run, tmp_path / "model", clips=clips)
    card = ModelCard.load(folder / "README.md")
    assert card.data.tags[-1] == loss
    assert ("hyperbolic" in card.data.tags) == hyperbolic
    assert f"trained with {loss} by" in card.text
    # These files say download; the run has generated noise, and no rooms.
    text = " ".join(card.text.split())
    assert "music from a generator, room responses from the archive" in text
    fine_tuned = name == "ham_ecapa_large_margin"
    assert ("Fine-tuned from another model" in card.text) == fine_tuned


def test_an_export_is_replaced_whole(copy, run, clips):
    (copy / "README.md").write_text("old")
    (copy / "model.onnx").write_text("of the old one")
    assert export_run(run, copy, clips=clips) == copy
    assert (copy / "README.md").read_text().startswith("---\n")
    for name in ("det.png", "model.onnx"):  # of the old one
        assert not (copy / name).exists()
    assert not list(copy.parent.glob(".copy*"))


def test_what_is_no_export_is_left_alone(copy, run, clips, tmp_path):
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds notes.txt, which no export"):
        export_run(run, copy, clips=clips)
    assert (copy / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="model is there already, and is no"):
        export_run(run, run / "model", clips=clips)
    assert len(list((run / "model").iterdir())) == 2
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="file is there already, and is no"):
        export_run(run, file, clips=clips)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert export_run(run, empty, clips=clips) == empty


def test_a_failure_half_way_leaves_the_old_one(copy, run, tmp_path):
    before = {p: p.read_bytes() for p in copy.rglob("*.*")}
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")  # the clips are written last
    with pytest.raises(InputError, match="bad.wav"):
        export_run(run, copy, clips=[bad, bad])
    assert {p: p.read_bytes() for p in copy.rglob("*.*")} == before
    assert not list(copy.parent.glob(".copy*"))


def test_clips_of_the_user(run, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    paths = [tmp_path / "a secret.flac", tmp_path / "b.wav"]
    for path in paths:
        soundfile.write(path, noise, 44100)
    folder = export_run(run, tmp_path / "model", clips=paths)
    for name in ("clip1", "clip2"):
        info = soundfile.info(folder / "examples" / f"{name}.wav")
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.frames == 16000
    assert "chosen by who exported" in (folder / "README.md").read_text()
    with pytest.raises(InputError, match="there are 1 clips, expected two"):
        export_run(run, tmp_path / "other", clips=paths[:1])


def test_without_a_synthesizer_there_are_no_clips(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    folder = export_run(run, tmp_path / "model")
    assert not (folder / "examples").exists()
    assert "There are no example clips" in (folder / "README.md").read_text()


def test_a_run_that_has_moved(run, clips, tmp_path):
    """The verification names the folder in which the run was."""
    folder = export_run(run, tmp_path / "model", run / "verified", clips)
    assert read_config(folder).thresholds is not None


@pytest.mark.parametrize(
    "path, message",
    [
        ("null", "is of an untrained encoder"),
        ("/another/run/save", "is of the model in /another/run/save, and not"),
    ],
)
def test_a_verification_of_another_model(path, message, run, clips, tmp_path):
    edit(run / "verified" / "hyperparams.yaml", pretrain_path=path)
    with pytest.raises(InputError, match=message):
        export_run(run, tmp_path / "model", run / "verified", clips)


def test_scores_and_results_that_do_not_belong_together(run, clips, tmp_path):
    path = run / "verified" / "results.json"
    results = read_results(path)
    results["all trials"]["eer"] += 0.01
    path.write_text(json.dumps(results))
    with pytest.raises(InputError, match="has an EER of .*scores.txt beside"):
        export_run(run, tmp_path / "model", run / "verified", clips)
    path.write_text("{}")
    with pytest.raises(InputError, match="results.json is not as"):
        export_run(run, tmp_path / "model", run / "verified", clips)


@pytest.mark.parametrize(
    "key, tag, arguments, message",
    [
        ("embedding_model", "os.system", {}, "is os.system, expected speech"),
        (
            "embedding_model",
            "speechbrain.lobes.models.ResNet.ResNet",
            {"input_size": 80, "depth": 3},
            "the field 'depth', expected some of",
        ),
        (
            "compute_features",
            "speechbrain.lobes.features.Fbank",
            {"n_mels": 80, "f_max": 4000},
            "compute_features has f_max, expected n_mels and sample_rate",
        ),
        (
            "mean_var_norm",
            "speechbrain.processing.features.InputNormalization",
            {"norm_type": "sentence"},
            "expected norm_type sentence and std_norm False alone",
        ),
    ],
)
def test_models_that_the_config_can_not_say(
    key, tag, arguments, message, run, clips, tmp_path
):
    path = run / "model" / "hyperparams.yaml"
    nodes = ruamel.yaml.YAML().load(path.read_text())
    chosen = ("compute_features", "mean_var_norm", "embedding_model")
    nodes = {name: nodes[name] for name in chosen}
    nodes[key] = stock_node(tag, arguments)
    write_hyperparams(nodes, path)
    with pytest.raises(InputError, match=message):
        export_run(run, tmp_path / "model", clips=clips)


def test_an_argument_that_is_code(run, clips, tmp_path):
    path = run / "model" / "hyperparams.yaml"
    text = path.read_text()
    path.write_text(
        text.replace(
            "  lin_neurons: 192",
            "  lin_neurons: 192\n  activation: !name:torch.nn.ReLU",
        )
    )
    with pytest.raises(InputError, match="activation is !name:torch.nn.ReLU"):
        export_run(run, tmp_path / "model", clips=clips)


@pytest.mark.parametrize(
    "name",
    [
        "hyperparams.yaml",
        "train_log.txt",
        "save/label_encoder.txt",
        "save/train.csv",
        "model/embedding_model.ckpt",
        "verified/scores.txt",
    ],
)
def test_a_run_that_lacks_a_file(name, run, clips, tmp_path):
    (run / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        export_run(run, tmp_path / "model", run / "verified", clips)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("train_log.txt", "", "has no epochs"),
        ("save/train.csv", "ID,wav\n1,2\n", "no column spk_id"),
        ("hyperparams.yaml", "[1, 2]", "has no keys"),
        ("hyperparams.yaml", "seed: 1", "has no key output|has no key class"),
        ("model/hyperparams.yaml", "a: [", "is not valid YAML"),
        ("model/embedding_model.ckpt", "weights", "no whole file of weights"),
    ],
)
def test_a_run_with_a_bad_file(name, text, message, run, clips, tmp_path):
    (run / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        export_run(run, tmp_path / "model", clips=clips)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.glob(".model*"))


def test_a_verification_before_more_training(run, clips, tmp_path):
    """The thresholds are of the weights that were verified."""
    path = run / "model" / "embedding_model.ckpt"
    state = torch.load(path, weights_only=True)
    name = next(name for name, v in state.items() if v.is_floating_point())
    state[name] = state[name] + 1e-3
    torch.save(state, path)
    with pytest.raises(InputError, match="of other weights than .*verify it a"):
        export_run(run, tmp_path / "out", run / "verified", clips)
    assert not (tmp_path / "out").exists()


def test_folders_that_can_not_be_made(run, clips, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't be written .*another folder"):
        export_run(run, tmp_path / "file" / "out", clips=clips)
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    with pytest.raises(InputError, match="is the folder that you are in"):
        export_run(run, ".", clips=clips)
    assert inner.is_dir()


def test_all_of_it_is_pushed(exported):
    for path in exported.rglob("*"):
        if path.is_file():
            name = path.relative_to(exported).as_posix()
            assert transfer._PUSHED.fullmatch(name), name


def test_the_command(run, clips, tmp_path, capsys):
    """It exports, and the model answers."""
    folder = tmp_path / "out"
    arguments = ["export", str(run), str(folder), "--json"]
    arguments += ["--verification", str(run / "verified"), "--language", "en"]
    arguments += ["--clips", *map(str, clips), "--training-data", TEXT]
    assert cli.main(arguments) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "model.safetensors" in printed["files"]
    assert TEXT in (folder / "README.md").read_text()
    clip = str(clips[0])
    assert cli.main(["verify", clip, clip, "--model", str(folder)]) == 0
