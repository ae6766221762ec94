"""What the stock VoxCeleb scripts read from a hparams file, key by key.

SpeechBrain's package on PyPI has no recipes, so the keys are listed here.
With SPEECHBRAIN_CLONE set to a clone of SpeechBrain 1.1, the list is compared
with the scripts themselves, and these run, unmodified, on our files.
"""

import ast
import csv
import os
import pathlib
import subprocess
import sys

import pytest
import soundfile
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_hyperbolic.dataio.corpus import (
    COLUMNS,
    prepare_corpus,
    read_speakers,
)
from speechbrain_hyperbolic.dataio.make_trials import make_trials
from speechbrain_hyperbolic.dataio.trials import write_trials
from speechbrain_hyperbolic.hparams import load_hparams

SPEAKERS = 7
BATCH = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def train(root, folder):
    """The training file, loaded as the stock script does."""
    hparams = load_hparams(
        root / "hparams" / "ham_ecapa.yaml",
        {
            "data_folder": str(folder),
            "output_folder": str(folder / "out"),
            "out_n_neurons": SPEAKERS,
            "channels": 16,
            "batch_size": BATCH,
            "noise_source": "generate",
            "rir_source": "generate",
        },
    )
    hparams["prepare_noise_data"]()
    hparams["prepare_rir_data"]()
    return hparams


@pytest.fixture(scope="module")
def verify(root, folder):
    """The verification file, likewise."""
    return load_hparams(
        root / "hparams" / "verification_ham_ecapa.yaml",
        {
            "data_folder": str(folder),
            "output_folder": str(folder / "verification"),
            "training": {"channels": 16, "output_folder": str(folder / "out")},
        },
    )


def is_text(value, hparams):
    assert isinstance(value, str) and value


def is_flag(value, hparams):
    assert isinstance(value, bool)


def is_ratio(value, hparams):
    assert len(value) == 2 and sum(value) == 100


def is_csv(name):
    def check(value, hparams):
        folder = hparams["save_folder"].rstrip("/")
        assert os.path.normpath(value) == os.path.normpath(f"{folder}/{name}")

    return check


def is_length(value, hparams):
    assert int(hparams["sample_rate"] * value) == 32240  # 200 frames


def prepares(value, hparams):
    assert value() is None  # no arguments


def trains(value, hparams):
    """A training step with modules, augmentation and cost, as scripted."""
    wavs, lens = torch.randn(BATCH, 32240), torch.ones(BATCH)
    labels = torch.arange(BATCH).unsqueeze(1)
    modules = torch.nn.ModuleDict(hparams["modules"]).train()
    wavs, lens = hparams["wav_augment"](wavs, lens)
    assert len(wavs) == 2 * BATCH
    labels = hparams["wav_augment"].replicate_labels(labels)
    features = modules["compute_features"](wavs)
    features = modules["mean_var_norm"](features, lens)
    outputs = modules["classifier"](modules["embedding_model"](features))
    assert outputs.shape == (2 * BATCH, 1, SPEAKERS)
    loss = hparams["compute_cost"](outputs, labels, lens)
    loss.backward()
    assert loss.isfinite() and modules["classifier"].weight.grad.any()


def optimizes(value, hparams):
    optimizer = value([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["lr"] == 1e-3
    assert optimizer.defaults["weight_decay"] == 2e-5


def anneals(value, hparams):
    assert value(1) == pytest.approx((1e-3, 0.97e-3))
    assert value(2) == pytest.approx((0.97e-3, 0.97**2 * 1e-3))


def counts_errors(value, hparams):
    stats = value()
    scores = -torch.eye(2).unsqueeze(1)
    stats.append(["a", "b"], scores, torch.tensor([[1], [1]]), torch.ones(2))
    assert stats.summarize("average") == 0.5


def is_absent(value, hparams):
    assert value is None


TRAIN = {
    "data_folder": is_text,
    "output_folder": is_text,
    "save_folder": is_text,
    "verification_file": is_text,
    "train_annotation": is_csv("train.csv"),
    "valid_annotation": is_csv("dev.csv"),
    "split_ratio": is_ratio,
    "skip_prep": is_flag,
    "random_chunk": is_flag,
    "sample_rate": lambda value, _: value == 16000,
    "sentence_len": is_length,
    "prepare_noise_data": prepares,
    "prepare_rir_data": prepares,
    "use_tacotron2_mel_spec": is_absent,
    "compute_features": lambda value, h: (
        value is h["modules"]["compute_features"]
    ),
    "wav_augment": trains,
    "modules": trains,
    "compute_cost": trains,
    "opt_class": optimizes,
    "lr_annealing": anneals,
    "error_stats": counts_errors,
    "train_logger": lambda value, _: callable(value.log_stats),
    "epoch_counter": lambda value, _: next(iter(value)) == 1,
    "checkpointer": lambda value, _: isinstance(value, Checkpointer),
    "dataloader_options": lambda value, _: value["batch_size"] == BATCH,
}
MODULES = ["compute_features", "mean_var_norm", "embedding_model", "classifier"]


def embeds(value, hparams):
    wavs, lens = torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    hparams["embedding_model"].eval()
    features = hparams["compute_features"](wavs)
    features = hparams["mean_var_norm"](features, lens)
    again = hparams["mean_var_norm"](features, lens)
    torch.testing.assert_close(features, again)  # no masks in verification
    assert hparams["embedding_model"](features, lens).shape == (2, 1, 192)


def loads(value, hparams):
    """The encoder of the run that the training file describes."""
    trained = hparams["training"]
    checkpointer = trained["checkpointer"]
    with torch.no_grad():
        for parameter in hparams["embedding_model"].parameters():
            parameter.fill_(0.5)
    checkpointer.save_checkpoint()
    with torch.no_grad():
        for parameter in hparams["embedding_model"].parameters():
            parameter.zero_()
    value.collect_files()
    value.load_collected()
    for parameter in hparams["embedding_model"].parameters():
        assert (parameter == 0.5).all()


def is_batched(value, hparams):
    assert isinstance(value["batch_size"], int)


VERIFY = {
    "data_folder": is_text,
    "output_folder": is_text,
    "save_folder": is_text,
    "verification_file": is_text,
    "train_data": is_csv("train.csv"),
    "enrol_data": is_csv("enrol.csv"),
    "test_data": is_csv("test.csv"),
    "split_ratio": is_ratio,
    "skip_prep": is_flag,
    "n_train_snts": lambda value, _: value > 0,
    "train_dataloader_opts": is_batched,
    "enrol_dataloader_opts": is_batched,
    "test_dataloader_opts": is_batched,
    "compute_features": embeds,
    "mean_var_norm": embeds,
    "embedding_model": embeds,
    "pretrainer": loads,
    "score_norm": is_absent,
    "cohort_size": is_absent,
    "voxceleb_source": is_absent,
}


@pytest.mark.parametrize("key", TRAIN)
def test_training_key(key, train):
    assert TRAIN[key](train.get(key), train) in (None, True)


@pytest.mark.parametrize("key", VERIFY)
def test_verification_key(key, verify):
    assert VERIFY[key](verify.get(key), verify) in (None, True)


def test_modules(train):
    assert sorted(train["modules"]) == sorted(MODULES)
    for module in train["modules"].values():
        assert isinstance(module, torch.nn.Module)


def test_brain_takes_the_hparams(train):
    """Run options of the stock Brain that stand in the file are accepted."""
    brain = sb.Brain(train["modules"], train["opt_class"], train)
    assert brain.ckpt_interval_minutes == 15


def test_keys_can_be_overridden(train, verify):
    """The stock parser takes a key that abbreviates one of its own options
    for that option, or refuses it as ambiguous.
    """
    for key in {*train, *verify}:
        _, run_opts, overrides = sb.parse_arguments(["a.yaml", f"--{key}=7"])
        assert overrides.split() == [f"{key}:", "7"] or run_opts[key] == 7


def test_published_setting(root, tmp_path):
    """The defaults are the published ones."""
    overrides = {"data_folder": "x", "output_folder": str(tmp_path)}
    hparams = load_hparams(root / "hparams" / "ham_ecapa.yaml", overrides)
    published = {
        "clip_c": 3.0,
        "margin": 0.2,
        "scale": 30,
        "channels": 1024,
        "emb_dim": 192,
        "n_mels": 80,
        "number_of_epochs": 100,
        "batch_size": 256,
        "lr": 1e-3,
        "lr_decay": 0.97,
        "weight_decay": 2e-5,
        "epochs_to_average": 5,
        "out_n_neurons": 5994,
    }
    assert {key: hparams[key] for key in published} == published
    snrs = {
        name: (hparams[name].snr_low, hparams[name].snr_high)
        for name in ("add_music", "add_babble", "add_noise")
    }
    assert snrs == {
        "add_music": (5, 15),
        "add_babble": (13, 20),
        "add_noise": (0, 15),
    }
    babble = hparams["add_babble"]
    assert (babble.speakers_low, babble.speakers_high) == (3, 8)


def test_csv_columns(tmp_path):
    """The stock scripts read our CSV files."""
    for utterance in ("a/1", "a/2", "b/1", "b/2"):
        path = tmp_path / f"{utterance}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, torch.randn(16000).numpy(), 16000)
    prepare_corpus(tmp_path, tmp_path / "save", [], [50, 50])
    path = tmp_path / "save" / "train.csv"
    with open(path, newline="") as file:
        assert next(csv.reader(file)) == COLUMNS
    data = DynamicItemDataset.from_csv(path)
    data.set_output_keys(["id", "wav", "start", "stop", "duration", "spk_id"])
    row = data[0]
    assert row["duration"] == 1.0
    assert (int(row["start"]), int(row["stop"])) == (0, 16000)
    assert row["wav"] == str(tmp_path / f"{row['id']}.wav")


# The scripts themselves


@pytest.fixture(scope="module")
def clone():
    path = os.environ.get("SPEECHBRAIN_CLONE")
    if not path:
        pytest.skip("SPEECHBRAIN_CLONE is not set to a clone of SpeechBrain")
    return pathlib.Path(path) / "recipes" / "VoxCeleb" / "SpeakerRec"


def keys_read(script, dictionaries, attributes):
    """Keys that a script reads from its hparams, by its syntax tree."""
    keys = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Subscript):
            if getattr(node.value, "id", "") in dictionaries:
                if isinstance(node.slice, ast.Constant):
                    keys.add(node.slice.value)
        elif isinstance(node, ast.Compare):
            names = [getattr(c, "id", "") for c in node.comparators]
            if dictionaries & set(names):
                keys.add(node.left.value)
        elif isinstance(node, ast.Attribute):
            if ast.unparse(node.value) in attributes:
                keys.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr":
            if ast.unparse(node.args[0]) in attributes:
                keys.add(node.args[1].value)
    return keys


def test_lists_are_what_the_scripts_read(clone):
    script = clone / "train_speaker_embeddings.py"
    brain = {"self.hparams", "speaker_brain.hparams"}
    assert keys_read(script, {"hparams"}, brain) == set(TRAIN)
    assert keys_read(script, set(), {"self.modules"}) == set(MODULES)
    script = clone / "speaker_verification_cosine.py"
    assert keys_read(script, {"params"}, set()) == set(VERIFY)


def test_stock_scripts_run(clone, root, tmp_path):
    """Train and verify with the stock scripts, then compare the scores."""
    synthetic = pytest.importorskip("speechbrain_hyperbolic.dataio.synthetic")
    corpus = synthetic.make_synthetic_corpus(
        tmp_path / "corpus", n_train=4, n_test=4, utterances=(8, 4)
    )
    wavs = sorted(corpus.glob("*/*.wav"))
    for wav in wavs:  # VoxCeleb's shape: wav/speaker/session/utterance.wav
        moved = tmp_path / "data" / "wav" / wav.parent.name / "s" / wav.name
        moved.parent.mkdir(parents=True, exist_ok=True)
        wav.rename(moved)
    test = {s for s, r in read_speakers(corpus).items() if r["split"] == "test"}
    trials = tmp_path / "trials.txt"
    write_trials(
        make_trials(
            f"{w.parent.name}/s/{w.stem}.wav"
            for w in wavs
            if w.parent.name in test
        ),
        trials,
    )
    common = [
        f"--data_folder={tmp_path / 'data'}",
        f"--verification_file={trials}",
        "--device=cpu",
    ]

    def run(script, hparams, *options):
        command = [sys.executable, script, root / "hparams" / hparams]
        done = subprocess.run(
            [*command, *common, *options],
            cwd=clone,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run(
        "train_speaker_embeddings.py",
        "ham_ecapa.yaml",
        f"--output_folder={tmp_path / 'run'}",
        "--out_n_neurons=4",
        "--channels=16",
        "--batch_size=8",
        "--number_of_epochs=2",
        "--num_workers=0",
        "--noise_source=generate",
        "--rir_source=generate",
    )
    verify_options = [
        f"--training={{channels: 16, output_folder: {tmp_path / 'run'}}}",
    ]
    output = run(
        "speaker_verification_cosine.py",
        "verification_ham_ecapa.yaml",
        f"--output_folder={tmp_path / 'stock'}",
        *verify_options,
    )
    assert "EER(%)=" in output

    done = subprocess.run(
        [
            sys.executable,
            root / "recipes" / "VoxCeleb" / "speaker_verification.py",
            root / "hparams" / "verification_ham_ecapa.yaml",
            f"--output_folder={tmp_path / 'ours'}",
            *common,
            *verify_options,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stock, ours = (
        [line.split() for line in (tmp_path / s / "scores.txt").open()]
        for s in ("stock", "ours")
    )
    assert [line[:3] for line in stock] == [line[:3] for line in ours]
    # The stock script pads the utterances of a batch to one length.
    for a, b in zip(stock, ours, strict=True):
        assert float(a[3]) == pytest.approx(float(b[3]), abs=0.05)
