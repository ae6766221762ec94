"""The recipe's scripts, run as a user runs them."""

import os
import pathlib
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time

import matplotlib.image
import pytest
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_hyperbolic.dataio.make_trials import make_trial_list
from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.verification import read_results

pytest.importorskip("espeakng_loader")

VOXCELEB = pathlib.Path(__file__).parents[1] / "recipes" / "VoxCeleb"
OWN_CORPUS = VOXCELEB.parent / "OwnCorpus"
TRAIN = VOXCELEB / "train_speaker_embeddings.py"
VERIFY = VOXCELEB / "speaker_verification.py"
SPEAKERS = 12
TINY = [
    "--channels=32",
    "--batch_size=16",
    "--num_workers=0",
    "--noise_source=generate",
    "--rir_source=generate",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Synthetic speech, with its trial list."""
    folder = tmp_path_factory.mktemp("recipes")
    make_synthetic_corpus(
        folder / "corpus", n_train=SPEAKERS, n_test=8, utterances=(10, 8)
    )
    make_trial_list(folder / "corpus", folder / "trials.txt")
    return folder


def command(script, corpus, output, *options, trials=None):
    hparams = "ham_ecapa" if script == TRAIN else "verification_ham_ecapa"
    return [
        sys.executable,
        script,
        VOXCELEB / "hparams" / f"{hparams}.yaml",
        f"--data_folder={corpus / 'corpus'}",
        f"--verification_file={trials or corpus / 'trials.txt'}",
        f"--output_folder={output}",
        *options,
    ]


def run(*arguments):
    done = subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def run_own_corpus(corpus, output, *options):
    return run(
        sys.executable,
        OWN_CORPUS / "run.py",
        f"--data_folder={corpus / 'corpus'}",
        f"--output_folder={output}",
        "--number_of_epochs=12",
        *options,
        *TINY,
    )


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A run of recipes/OwnCorpus, and what it printed."""
    output = tmp_path_factory.mktemp("trained")
    code, printed = run_own_corpus(corpus, output)
    assert code == 0, printed
    return output, printed


def test_training_lowers_the_eer(trained):
    output, _ = trained
    before, after = (
        read_results(output / system / "results.json")["all trials"]
        for system in ("untrained", "trained")
    )
    assert after["eer"] < before["eer"] - 0.02
    assert after["n_target"] == after["n_nontarget"] == 8 * 28


def test_what_a_run_leaves(trained):
    output, printed = trained
    assert (output / "summary.md").read_text() in printed
    for plot in ("det.png", "trained/det.png"):
        height, width, _ = matplotlib.image.imread(output / plot).shape
        assert (width, height) == (1200, 1100)
    lines = (output / "trained" / "scores.txt").read_text().splitlines()
    assert len(lines) == 2 * 8 * 28
    log = (output / "train_log.txt").read_text().splitlines()
    assert len(log) == 12 and "ErrorRate" in log[-1]
    assert "it/s" in printed  # the progress bar


def test_model_loads_in_the_stock_class(trained, corpus, tmp_path):
    """Same scores from stock SpeakerRecognition, without this package."""
    output, _ = trained
    script = f"""
import sys
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams({str(output / "model")!r}, savedir=".")
for line in open({str(output / "trained" / "scores.txt")!r}).readlines()[:3]:
    enrol, test, _, score = line.split()
    files = [f"{corpus / "corpus"}/{{u}}.wav" for u in (enrol, test)]
    assert abs(model.verify_files(*files)[0].item() - float(score)) < 1e-5
assert "speechbrain_hyperbolic" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path)
    assert done.returncode == 0


def test_exported_weights_are_the_average(trained):
    output, _ = trained
    model = SpeakerRecognition.from_hparams(
        str(output / "model"), savedir=str(output / "stock")
    )
    found = sorted(
        (output / "save").glob("CKPT*/embedding_model.ckpt"),
        key=lambda path: path.stat().st_mtime,
    )[-5:]
    states = [torch.load(path, weights_only=True) for path in found]
    for name, value in model.mods.embedding_model.state_dict().items():
        if value.is_floating_point():
            mean = torch.stack([state[name] for state in states]).mean(0)
            torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)


def test_debug_mode(corpus, tmp_path):
    code, printed = run(
        *command(
            TRAIN,
            corpus,
            tmp_path,
            "--debug",
            f"--out_n_neurons={SPEAKERS}",
            *TINY,
        )
    )
    assert code == 0, printed


def test_a_killed_run_resumes_and_says_so(corpus, tmp_path):
    """SIGKILL after the first checkpoint; the same command goes on."""
    arguments = command(
        TRAIN,
        corpus,
        tmp_path,
        f"--out_n_neurons={SPEAKERS}",
        "--number_of_epochs=3",
        *TINY,
    )
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("save/CKPT*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model").exists()

    code, printed = run(*arguments)
    assert code == 0, printed
    assert f"Resuming from {tmp_path}/save/CKPT" in printed
    assert "Going into epoch 1\n" not in printed
    log = (tmp_path / "train_log.txt").read_text()
    assert [line.split(",")[0] for line in log.splitlines()] == [
        "epoch: 1",
        "epoch: 2",
        "epoch: 3",
    ]
    assert (tmp_path / "model" / "embedding_model.ckpt").is_file()


@pytest.mark.parametrize(
    "script, options, message",
    [
        (TRAIN, [], r"pass --data_folder=/path.*make demo"),
        (VERIFY, [], r"pass --data_folder=/path.*make demo"),
        (TRAIN, ["--data_folder=/no/such"], "/no/such is not a folder"),
        (VERIFY, ["--data_folder=/no/such"], "/no/such is not a folder"),
        (TRAIN, ["--data_folder=/tmp", "--clip_c=0.5"], "c is 0.5, expected"),
        (TRAIN, ["--data_folder=/tmp", "--margin=-1"], "margin is -1, exp"),
        (TRAIN, ["--data_folder=/tmp", "--scale=0"], "scale is 0, expected"),
        (
            TRAIN,
            ["--data_folder=/tmp", "--marign=0"],
            "no key marign; did you mean margin",
        ),
        (TRAIN, ["--data_folder=/tmp", "--lr=0", "--lr=1"], "duplicate key"),
        (TRAIN, ["--data_folder=/tmp", "--margin=abc"], "margin is abc, exp"),
        (
            VERIFY,
            ["--data_folder=/tmp", "--training={chanels: 16}"],
            "chanels.* is no key of ham_ecapa.yaml",
        ),
        (VERIFY, ["--data_folder=/tmp", "--score=plda"], "score is 'plda'"),
        (VERIFY, ["--data_folder=/tmp", "--clip_c=0"], "c is 0, expected"),
        (
            TRAIN,
            ["--data_folder=/tmp", "--epochs_to_average=0"],
            "keep_epochs is 0",
        ),
    ],
)
def test_bad_options(script, options, message, monkeypatch, capsys, tmp_path):
    """One line on stderr and exit code 2."""
    hparams = "ham_ecapa" if script == TRAIN else "verification_ham_ecapa"
    path = VOXCELEB / "hparams" / f"{hparams}.yaml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), str(path), *options])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)


def test_a_run_with_other_settings_is_not_gone_on_with(trained, corpus):
    """Nothing is trained or exported under another loss."""
    output, _ = trained
    model = output / "model" / "embedding_model.ckpt"
    files = [model, output / "untrained" / "scores.txt", output / "trials.txt"]
    before = [file.stat().st_mtime_ns for file in files]
    code, printed = run_own_corpus(corpus, output, "--margin=0.9")
    assert code == 2
    assert "holds a run with margin 0.2, and now it is 0.9" in printed
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_folder_that_speechbrain_cannot_take(tmp_path):
    code, printed = run(
        sys.executable, OWN_CORPUS / "run.py", f"--data_folder={tmp_path}/a=b"
    )
    assert code == 2 and "has a '=' in its name" in printed


def test_wrong_number_of_speakers(corpus, tmp_path):
    code, printed = run(*command(TRAIN, corpus, tmp_path, *TINY))
    assert code == 2
    assert (
        f"error: out_n_neurons is 5994, but {tmp_path}/save/train.csv has "
        f"{SPEAKERS} speakers: pass --out_n_neurons={SPEAKERS}\n" in printed
    )
    assert not list(tmp_path.glob("save/CKPT*"))


def test_trial_of_a_missing_file(corpus, tmp_path):
    shutil.copy(corpus / "trials.txt", tmp_path)
    with open(tmp_path / "trials.txt", "a") as file:
        file.write("0 nobody/1 nobody/2\n")
    code, printed = run(
        *command(
            VERIFY, corpus, tmp_path / "out", trials=tmp_path / "trials.txt"
        )
    )
    assert code == 2
    assert "nobody/1 is not in data_folder" in printed
    assert not (tmp_path / "out" / "scores.txt").exists()


def test_hyperbolic_score_ranks_as_cosine_on_the_cap(trained, corpus, tmp_path):
    """The published clip puts every embedding on the cap: equal EER."""
    output, _ = trained
    code, printed = run(
        *command(
            VERIFY,
            corpus,
            tmp_path,
            "--score=hyperbolic",
            "--training={channels: 32}",
            f"--pretrain_path={output / 'model'}",
        )
    )
    assert code == 0, printed
    hyperbolic = read_results(tmp_path / "results.json")["all trials"]
    cosine = read_results(output / "trained" / "results.json")["all trials"]
    assert hyperbolic["eer"] == pytest.approx(cosine["eer"], abs=1e-3)
    assert hyperbolic["eer_threshold"] < 0 < cosine["eer_threshold"]
