"""What people do wrong, and the one line that they get for it."""

import runpy
import sys

import pytest
import torch

from speechbrain_hyperbolic import cli
from speechbrain_hyperbolic.errors import exit_on_error
from speechbrain_hyperbolic.hub.onnx import check_packages
from speechbrain_hyperbolic.training.monitor import summary_writer_class
from tests.corpora import make_corpus
from tests.scripts import ROOT, TRAIN, VOXCELEB, run_script

VERIFY = VOXCELEB / "speaker_verification.py"
OWN = ROOT / "recipes" / "OwnCorpus" / "run.py"
HAM = ROOT / "hparams" / "ham_ecapa.yaml"
VERIFICATION = ROOT / "hparams" / "verification.yaml"
# script, hparams file, options, what the line says
SCRIPTS = [
    (TRAIN, HAM, "batch_size=0", "batch_size is 0, expected an integer of 1"),
    (TRAIN, HAM, "channels=0", "channels is 0, expected an integer of 1 or"),
    (TRAIN, HAM, "channels=30", "ECAPA_TDNN.py refuses values: assert in_ch"),
    (TRAIN, HAM, "weight_decay=-1", "weight_decay is -1, expected a number"),
    (TRAIN, HAM, "epochs_to_average=0", "epochs_to_average is 0, expected a"),
    (TRAIN, HAM, "learning_rate=1", "no key learning_rate; did you mean lr?"),
    (TRAIN, HAM, "c=5", "--c is no option: the c of the paper is --clip_c"),
    (TRAIN, HAM, "output_folder=", "--output_folder has no value: give one"),
    (TRAIN, HAM, "output_folder={work}", "results (scores.txt): pass another"),
    (TRAIN, HAM, "epochs=3", "no key epochs; did you mean number_of_epochs?"),
    (TRAIN, HAM, "split_ratio=[90]", "split_ratio is [90], expected the sha"),
    (TRAIN, HAM, "precision=fp16", "fp16, which needs a GPU: pass --precisi"),
    (TRAIN, HAM, "device=cuda", "device is cuda, which PyTorch can't use (i"),
    (TRAIN, HAM, "data_parallel_backend", "needs a GPU: leave it out"),
    (TRAIN, HAM, "data_folder=/no/such", "/no/such' is not a folder"),
    (TRAIN, HAM, "verification_file={work}", "is a folder: no such trial"),
    (TRAIN, HAM, "out_n_neurons=5", "5, but {save}/train.csv has 6 speakers"),
    (TRAIN, HAM, "skip_prep=True", "{save}/train.csv is missing"),
    (TRAIN, HAM, "pretrain_path=/no/such", "/no/such, which is no folder: exp"),
    (TRAIN, VERIFICATION, "", "has no classifier, expected a file for train"),
    (VERIFY, HAM, "", "has no model_folder, expected a file for verification"),
    (VERIFY, VERIFICATION, "", "/model/config.json is missing: expected a mo"),
    (VERIFY, VERIFICATION, "output_folder={work}", "(train_log.txt): pass an"),
    (OWN, "", "batch_size=0", "batch_size is 0, expected an integer of 1"),
    (OWN, "", "trials={work}/else.txt", "(2 of 4 utterances are missing)"),
    (OWN, "", "trials={work}/targets.txt", "has 1 target trials and no other"),
    (OWN, "", "hparams=hm.yaml", "hm.yaml is missing: no such hparams file"),
]
NEEDS_GPU = ("precision=fp16", "device=cuda", "data_parallel_backend")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    work = make_corpus(tmp_path_factory.mktemp("mistakes"))
    (work / "else.txt").write_text("1 s0/0 s0/1\n0 s0/0 nobody/1\n0 s0/0 x/2\n")
    (work / "targets.txt").write_text("1 s0/0 s0/1\n")
    (work / "train_log.txt").touch()
    (work / "scores.txt").touch()
    return work


@pytest.mark.parametrize("script, hparams, option, words", SCRIPTS)
def test_scripts(script, hparams, option, words, work, tmp_path):
    """Before anything is trained, and without a folder of results."""
    if option in NEEDS_GPU and torch.cuda.is_available():
        pytest.skip("right on a machine with a GPU")
    output = tmp_path / "results" / "out"
    options = {
        "data_folder": work / "corpus",
        "verification_file": work / "trials.txt",
        "output_folder": output,
        "noise_source": work / "sounds",
        "rir_source": work / "sounds" / "rir",
        "num_workers": 0,
    }
    if script == VERIFY:
        options = {"data_folder": work / "corpus", "output_folder": output}
        options["model_folder"] = tmp_path / "model"
    if script == OWN:
        options["trials"] = options.pop("verification_file")
    arguments = [hparams] if hparams else []
    own, _, value = option.format(work=work).partition("=")
    arguments += [f"--{k}={v}" for k, v in options.items() if k != own]
    if own:
        arguments.append(f"--{own}={value}" if value else f"--{own}")
    code, printed = run_script(script, *arguments)
    (line,) = (x for x in printed.splitlines() if x.startswith("error: "))
    assert code == 2 and words.format(save=output / "save") in line, printed
    assert "Traceback" not in printed and not output.parent.exists()


def test_the_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    "package, extra, use",
    [
        ("onnx", "onnx", check_packages),
        ("torch.utils.tensorboard", "tensorboard", summary_writer_class),
        ("gradio", "app", lambda: runpy.run_path(ROOT / "app" / "app.py")),
    ],
)
def test_missing_packages(package, extra, use, monkeypatch, capsys):
    """The command works in a clone: there is no release to install from."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit), exit_on_error():
        use()
    line = capsys.readouterr().err
    assert f"pip install -e '.[{extra}]'" in line and line.count("\n") == 1
