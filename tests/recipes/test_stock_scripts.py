"""SpeechBrain's own scripts on our files, and ours on theirs."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from speechbrain_hyperbolic.evaluation.metrics import eer
from speechbrain_hyperbolic.evaluation.results import read_results
from speechbrain_hyperbolic.hub.export import export_model
from tests.conftest import SPEAKERS
from tests.corpora import make_sounds
from tests.recipes.conftest import VERIFY
from tests.scripts import ROOT, TRAIN, run_script

# Two entries of the stock train_ecapa_tdnn.yaml, and what replaces them
CHANGES = {
    "classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier": (
        "classifier: !new:speechbrain_hyperbolic.HyperbolicClassifier"
    ),
    "loss_fn: !new:speechbrain.nnet.losses.AdditiveAngularMargin": (
        "loss_fn: !new:speechbrain.nnet.losses.AngularMargin"
    ),
}
EPOCHS = 2
ENCODER = "--embedding_model={channels: [16, 16, 16, 16, 48]}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """SpeakerRec of an unmodified clone of SpeechBrain, as a work tree."""
    path = os.environ.get("SPEECHBRAIN_CLONE")
    if not path:
        pytest.skip("SPEECHBRAIN_CLONE is not set to a clone of SpeechBrain")
    return pathlib.Path(path).resolve() / "recipes" / "VoxCeleb" / "SpeakerRec"


@pytest.fixture(scope="module")
def voxceleb(demo, tmp_path_factory):
    """The corpus in VoxCeleb's shape, its trials, and sounds with CSV files."""
    folder = tmp_path_factory.mktemp("voxceleb")
    for wav in demo.corpus.glob("*/*.wav"):
        target = folder / "data" / "wav" / wav.parent.name / "s" / wav.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(wav, target)
    lines = [line.split() for line in demo.trials.read_text().splitlines()]
    names = [
        [f"{pathlib.Path(n).parent}/s/{pathlib.Path(n).stem}.wav" for n in line]
        for _, *line in lines
    ]
    (folder / "trials.txt").write_text(
        "".join(
            f"{line[0]} {enroll} {test}\n"
            for line, (enroll, test) in zip(lines, names, strict=True)
        )
    )
    sounds = make_sounds(folder / "sounds")
    for kind in ("noise", "rir"):
        rows = ["ID,duration,wav,wav_format,wav_opts"]
        for path in sorted((sounds / kind).glob("*.wav")):
            duration = 10.0 if kind == "noise" else 0.125
            rows.append(f"{kind}{path.stem},{duration},{path},wav,")
        (folder / f"{kind}.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def two_entries(clone, voxceleb):
    """The stock file with two entries replaced, made small by overrides."""
    text = (clone / "hparams" / "train_ecapa_tdnn.yaml").read_text()
    for old, new in CHANGES.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = voxceleb / "two_entries.yaml"
    path.write_text(text)
    return path


def small(voxceleb):
    """Options that the stock file takes, for a small encoder without net."""
    return [
        f"--out_n_neurons={SPEAKERS}",
        f"--number_of_epochs={EPOCHS}",
        "--batch_size=8",
        "--num_workers=0",
        "--sentence_len=1.0",
        ENCODER,
        f"--noise_annotation={voxceleb / 'noise.csv'}",
        f"--rir_annotation={voxceleb / 'rir.csv'}",
        # These would download archives.
        "--prepare_noise_data=!name:builtins.dict",
        "--prepare_rir_data=!name:builtins.dict",
    ]


def run_stock(clone, voxceleb, script, hparams, *options):
    """Runs one of SpeechBrain's scripts in its folder; what it printed."""
    done = subprocess.run(
        [
            *(sys.executable, script, hparams),
            f"--data_folder={voxceleb / 'data'}",
            f"--verification_file={voxceleb / 'trials.txt'}",
            "--device=cpu",
            *options,
        ],
        cwd=clone,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_ours(voxceleb, script, hparams, *options):
    code, printed = run_script(
        script,
        hparams,
        f"--data_folder={voxceleb / 'data'}",
        f"--verification_file={voxceleb / 'trials.txt'}",
        *options,
    )
    assert code == 0, printed
    return printed


def verify_by_both(clone, voxceleb, output, model):
    """The EER of both scripts, from the same scores."""
    model = f"--model_folder={model}"
    printed = run_stock(
        clone,
        voxceleb,
        "speaker_verification_cosine.py",
        ROOT / "hparams" / "verification.yaml",
        f"--output_folder={output / 'stock'}",
        model,
    )
    stock_eer = float(re.search(r"EER\(%\)=([\d.]+)", printed).group(1)) / 100
    run_ours(
        voxceleb,
        VERIFY,
        ROOT / "hparams" / "verification.yaml",
        f"--output_folder={output / 'ours'}",
        "--n_crops=0",
        "--cache_folder=null",
        model,
    )
    stock, ours = (
        [line.split() for line in (output / name / "scores.txt").open()]
        for name in ("stock", "ours")
    )
    assert [line[:3] for line in stock] == [line[:3] for line in ours]
    # The stock script pads the utterances of a batch to one length.
    for a, b in zip(stock, ours, strict=True):
        assert float(a[3]) == pytest.approx(float(b[3]), abs=0.1)
    scores = [
        [float(line[3]) for line in stock if line[2] == label]
        for label in ("1", "0")
    ]
    assert stock_eer == pytest.approx(eer(*scores)[0], abs=0.01)
    return read_results(output / "ours" / "results.json")["all trials"]["eer"]


def test_our_files_in_the_stock_scripts(clone, voxceleb, tmp_path):
    """Ordinary overrides; then both scripts verify the model."""
    run_stock(
        clone,
        voxceleb,
        "train_speaker_embeddings.py",
        ROOT / "hparams" / "ham_ecapa.yaml",
        f"--output_folder={tmp_path / 'run'}",
        f"--out_n_neurons={SPEAKERS}",
        f"--number_of_epochs={EPOCHS}",
        "--channels=16",
        "--batch_size=8",
        "--num_workers=0",
        "--split_ratio=[80, 20]",
        f"--noise_source={voxceleb / 'sounds'}",
        f"--rir_source={voxceleb / 'sounds' / 'rir'}",
    )
    log = (tmp_path / "run" / "train_log.txt").read_text().splitlines()
    assert len(log) == EPOCHS
    model = export_model(tmp_path / "run")
    assert verify_by_both(clone, voxceleb, tmp_path, model) < 0.5


def test_two_entries_make_the_stock_recipe_hyperbolic(
    clone, voxceleb, two_entries, tmp_path
):
    """Trained by the stock script and by ours, verified by both."""
    options = small(voxceleb)
    run_stock(
        clone,
        voxceleb,
        "train_speaker_embeddings.py",
        two_entries,
        f"--output_folder={tmp_path / 'stock_run'}",
        *options,
    )
    run_ours(
        voxceleb,
        TRAIN,
        two_entries,
        f"--output_folder={tmp_path / 'our_run'}",
        *options,
    )
    for name in ("stock_run", "our_run"):
        log = (tmp_path / name / "train_log.txt").read_text().splitlines()
        assert len(log) == EPOCHS
    model = export_model(tmp_path / "stock_run")
    assert verify_by_both(clone, voxceleb, tmp_path, model) < 0.5
    # Also with SpeechBrain's own verification file, from a checkpoint
    checkpoint, *_ = (tmp_path / "stock_run" / "save").glob("CKPT*")
    printed = run_stock(
        clone,
        voxceleb,
        "speaker_verification_cosine.py",
        clone / "hparams" / "verification_ecapa.yaml",
        f"--output_folder={tmp_path / 'verification'}",
        f"--pretrain_path={checkpoint}",
        "--cohort_size=20",
        ENCODER,
    )
    assert "EER(%)=" in printed


def test_our_script_runs_the_stock_file_itself(clone, voxceleb, tmp_path):
    """Keys that only we read have defaults; the model is exported."""
    run_ours(
        voxceleb,
        TRAIN,
        clone / "hparams" / "train_ecapa_tdnn.yaml",
        f"--output_folder={tmp_path}",
        *small(voxceleb),
    )
    assert (tmp_path / "model" / "config.json").is_file()
