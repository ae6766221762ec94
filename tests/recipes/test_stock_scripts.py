"""SpeechBrain's own scripts on our files, and ours on theirs."""

import os
import pathlib
import re
import shutil

import pytest

from benchmarks.corpus import write_sounds
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.evaluation.metrics import eer
from speechbrain_hyperbolic.evaluation.results import read_results
from speechbrain_hyperbolic.hub.export import export_model
from tests.conftest import SPEAKERS
from tests.processes import run_python
from tests.recipes.conftest import VERIFY
from tests.scripts import ROOT, TRAIN, succeed

# Two entries of the stock train_ecapa_tdnn.yaml, and what replaces them
CHANGES = {
    "speechbrain.lobes.models.ECAPA_TDNN.Classifier": (
        "speechbrain_hyperbolic.HyperbolicClassifier"
    ),
    "speechbrain.nnet.losses.AdditiveAngularMargin": (
        "speechbrain.nnet.losses.AngularMargin"
    ),
}
EPOCHS = 2
ENCODER = "--embedding_model={channels: [16, 16, 16, 16, 48]}"
SMALL = [
    f"--out_n_neurons={SPEAKERS}",
    f"--number_of_epochs={EPOCHS}",
    "--batch_size=8",
    "--num_workers=0",
]


@pytest.fixture(scope="module")
def clone():
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
    trials = demo.trials.read_text()
    trials = re.sub(r"(\w+)/(\w+)", r"\1/s/\2.wav", trials)
    (folder / "trials.txt").write_text(trials)
    write_sounds(folder / "sounds", 3)
    return folder


@pytest.fixture(scope="module")
def small(voxceleb):
    """Options that the stock file takes, for a small encoder without net."""
    return [
        *SMALL,
        "--sentence_len=1.0",
        ENCODER,
        f"--noise_annotation={voxceleb / 'sounds' / 'noise.csv'}",
        f"--rir_annotation={voxceleb / 'sounds' / 'rir.csv'}",
        # These would download archives.
        "--prepare_noise_data=!name:builtins.dict",
        "--prepare_rir_data=!name:builtins.dict",
    ]


@pytest.fixture(scope="module")
def data(voxceleb):
    """The options of all scripts."""
    return [
        f"--data_folder={voxceleb / 'data'}",
        f"--verification_file={voxceleb / 'trials.txt'}",
    ]


@pytest.fixture(scope="module")
def stock(clone, data):
    """Runs one of SpeechBrain's scripts in its folder; what it printed."""

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": ""}
        arguments = (*arguments, *data, "--device=cpu")
        done = run_python(*arguments, cwd=clone, env=environment)
        return done.stdout + done.stderr

    return run


def verify_by_both(stock, data, output, model):
    """The EER of both scripts, from the same scores."""
    verification = ROOT / "hparams" / "verification.yaml"
    model = f"--model_folder={model}"
    printed = stock(
        "speaker_verification_cosine.py",
        verification,
        f"--output_folder={output / 'stock'}",
        model,
    )
    stock_eer = float(re.search(r"EER\(%\)=([\d.]+)", printed).group(1)) / 100
    succeed(
        VERIFY,
        verification,
        f"--output_folder={output / 'ours'}",
        "--n_crops=0",
        "--cache_folder=null",
        model,
        *data,
    )
    theirs, ours = (
        read_score_table(output / name) for name in ("stock", "ours")
    )
    assert theirs[:2] == ours[:2] and (theirs.labels == ours.labels).all()
    # The stock script pads the utterances of a batch to one length.
    assert ours.scores == pytest.approx(theirs.scores, abs=0.1)
    scores = [theirs.scores[theirs.labels == label] for label in (1, 0)]
    assert stock_eer == pytest.approx(eer(*scores)[0], abs=0.01)
    return read_results(output / "ours" / "results.json")["all trials"]["eer"]


def test_our_files_in_the_stock_scripts(stock, data, voxceleb, tmp_path):
    """Ordinary overrides; then both scripts verify the model."""
    classes = 5 * SPEAKERS  # a mistake, of which the head warns once
    printed = stock(
        "train_speaker_embeddings.py",
        ROOT / "hparams" / "ham_ecapa.yaml",
        f"--output_folder={tmp_path / 'run'}",
        *SMALL[1:],
        f"--out_n_neurons={classes}",
        "--channels=16",
        "--split_ratio=[80, 20]",
        f"--noise_source={voxceleb / 'sounds'}",
        f"--rir_source={voxceleb / 'sounds' / 'rir'}",
    )
    assert printed.count(f"{SPEAKERS} of {classes} outputs had an utter") == 1
    log = (tmp_path / "run" / "train_log.txt").read_text().splitlines()
    assert len(log) == EPOCHS
    model = export_model(tmp_path / "run")
    assert verify_by_both(stock, data, tmp_path, model) < 0.5


def test_two_entries_make_the_stock_recipe_hyperbolic(
    clone, stock, data, small, tmp_path
):
    """Trained by the stock script and by ours, verified by both."""
    text = (clone / "hparams" / "train_ecapa_tdnn.yaml").read_text()
    for old, new in CHANGES.items():
        assert text.count(f"!new:{old}\n") == 1
        text = text.replace(f"!new:{old}\n", f"!new:{new}\n")
    two_entries = tmp_path / "two_entries.yaml"
    two_entries.write_text(text)
    outputs = [tmp_path / "stock_run", tmp_path / "our_run"]
    options = [[f"--output_folder={path}", *small] for path in outputs]
    stock("train_speaker_embeddings.py", two_entries, *options[0])
    succeed(TRAIN, two_entries, *options[1], *data)
    for output in outputs:
        log = (output / "train_log.txt").read_text().splitlines()
        assert len(log) == EPOCHS
    model = export_model(outputs[0])
    assert verify_by_both(stock, data, tmp_path, model) < 0.5
    # Also with SpeechBrain's own verification file, from a checkpoint
    checkpoint, *_ = (outputs[0] / "save").glob("CKPT*")
    printed = stock(
        "speaker_verification_cosine.py",
        clone / "hparams" / "verification_ecapa.yaml",
        f"--output_folder={tmp_path / 'verification'}",
        f"--pretrain_path={checkpoint}",
        "--cohort_size=20",
        ENCODER,
    )
    assert "EER(%)=" in printed


def test_our_script_runs_the_stock_file_itself(clone, data, small, tmp_path):
    """Keys that only we read have defaults; the model is exported."""
    stock_file = clone / "hparams" / "train_ecapa_tdnn.yaml"
    succeed(TRAIN, stock_file, f"--output_folder={tmp_path}", *small, *data)
    assert (tmp_path / "model" / "config.json").is_file()
