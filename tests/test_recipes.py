"""The recipe's scripts, run as a user runs them."""

import csv
import json
import re
import runpy
import shutil
import subprocess
import sys

import matplotlib.image
import pytest
import speechbrain
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_hyperbolic.checkpoints import average_epochs
from speechbrain_hyperbolic.dataio.make_trials import (
    make_trial_list,
    make_trials,
)
from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.dataio.trials import write_trials
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import nest_overrides
from speechbrain_hyperbolic.verification import read_results
from tests.corpora import make_sounds
from tests.scripts import TRAIN, VOXCELEB, Script, run_script

pytest.importorskip("espeakng_loader")

OWN_CORPUS = VOXCELEB.parent / "OwnCorpus"
VERIFY = VOXCELEB / "speaker_verification.py"
SPEAKERS = 12
TINY = [
    "--channels=32",
    "--batch_size=16",
    "--num_workers=0",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Synthetic speech, with its trial list."""
    folder = tmp_path_factory.mktemp("recipes")
    make_synthetic_corpus(
        folder / "corpus", n_train=SPEAKERS, n_test=8, utterances=(10, 8)
    )
    make_trial_list(folder / "corpus", folder / "trials.txt")
    make_sounds(folder / "sounds")
    return folder


def sounds(corpus):
    return [
        f"--noise_source={corpus / 'sounds'}",
        f"--rir_source={corpus / 'sounds' / 'rir'}",
    ]


def command(script, corpus, output, *options, trials=None):
    hparams = "ham_ecapa" if script == TRAIN else "verification_ham_ecapa"
    return [
        script,
        VOXCELEB / "hparams" / f"{hparams}.yaml",
        f"--data_folder={corpus / 'corpus'}",
        f"--verification_file={trials or corpus / 'trials.txt'}",
        f"--output_folder={output}",
        *(sounds(corpus) if script == TRAIN else []),
        *options,
    ]


def run_own_corpus(corpus, output, *options):
    return run_script(
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
    code, printed = run_script(
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
    with Script(tmp_path / "log", *arguments) as training:
        training.wait_for(lambda: list(tmp_path.glob("save/CKPT*")))
    assert not (tmp_path / "model").exists()

    code, printed = run_script(*arguments)
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
        (TRAIN, ["--data_folder=/tmp", "--lr=0", "--lr=1"], "has lr twice"),
        (TRAIN, ["--data_folder=/tmp", "--lr=abc"], "lr is abc, exp.* 0.001"),
        (TRAIN, ["--data_folder=/tmp", "--lr=True"], "lr is True, exp.*number"),
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


@pytest.mark.parametrize(
    "value",
    [
        *(1e-4, 1e-15, 7, None, True, [90, 10], {"a": None}, "generate"),
        *("5", "null", "2024-01-01", "/a: b", "1e-4", "", "Zoë"),
    ],
)
def test_options_arrive_as_they_were_given(value):
    """From run.py to the scripts, which read YAML 1.2."""
    functions = runpy.run_path(str(OWN_CORPUS / "run.py"))
    option = f"--lr={functions['written'](value)}"
    assert functions["parse"]([option]) == {"lr": value}
    _, _, overrides = speechbrain.parse_arguments(["a.yaml", option])
    hparams = VOXCELEB / "hparams" / "ham_ecapa.yaml"
    assert nest_overrides(hparams, overrides) == {"lr": value}


@pytest.mark.parametrize(
    "value",
    [".inf", "1e400", ".nan", "2024-01-01", "2024-13-01", "[", "a: b: c"],
)
def test_options_that_cannot_be_passed_on(value):
    functions = runpy.run_path(str(OWN_CORPUS / "run.py"))
    with pytest.raises(InputError, match="is not a number, text, list or map"):
        functions["parse"]([f"--lr={value}"])


def test_a_folder_that_speechbrain_cannot_take(tmp_path):
    code, printed = run_script(
        OWN_CORPUS / "run.py", f"--data_folder={tmp_path}/a=b"
    )
    assert code == 2 and "has a '=' in its name" in printed


def test_wrong_number_of_speakers(corpus, tmp_path):
    code, printed = run_script(*command(TRAIN, corpus, tmp_path, *TINY))
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
    code, printed = run_script(
        *command(
            VERIFY, corpus, tmp_path / "out", trials=tmp_path / "trials.txt"
        )
    )
    assert code == 2
    assert "nobody/2 is not in data_folder" in printed
    assert not (tmp_path / "out" / "scores.txt").exists()


def test_hyperbolic_score_ranks_as_cosine_on_the_cap(trained, corpus, tmp_path):
    """The published clip puts every embedding on the cap: equal EER."""
    output, _ = trained
    code, printed = run_script(
        *command(
            VERIFY,
            corpus,
            tmp_path,
            "--score=hyperbolic",
            "--n_crops=0",
            "--training={channels: 32}",
            f"--pretrain_path={output / 'model'}",
        )
    )
    assert code == 0, printed
    hyperbolic = read_results(tmp_path / "results.json")["all trials"]
    cosine = read_results(output / "trained" / "results.json")["all trials"]
    assert hyperbolic["eer"] == pytest.approx(cosine["eer"], abs=1e-3)
    assert hyperbolic["eer_threshold"] < 0 < cosine["eer_threshold"]


def verify(corpus, output, *options, trials=None):
    """Runs the verification of the run in ``trained``; what it printed."""
    code, printed = run_script(
        *command(VERIFY, corpus, output, *options, trials=trials)
    )
    assert code == 0, printed
    return printed


def test_everything_at_once(trained, corpus, tmp_path):
    """Crops, both scores, a cohort, calibration; and again from the cache."""
    output, _ = trained
    with open(output / "save" / "train.csv", newline="") as file:
        ids = [row["ID"] for row in csv.DictReader(file)]
    write_trials(make_trials(ids, 20), tmp_path / "calibration.txt")
    options = [
        "--training={channels: 32, output_folder: " + f"{output}}}",
        "--score=fused",
        "--normalisation=as-norm",
        "--top_k=4",
        f"--calibration_file={tmp_path / 'calibration.txt'}",
        f"--cache_folder={tmp_path / 'cache'}",
    ]
    printed = verify(corpus, tmp_path / "first", *options)
    assert "fused, whole and 5 crops of 3 s, as-norm, calibrated" in printed
    assert "speakers of calibration_file, e.g. " in printed  # they trained
    assert "speakers of verification_file, e.g. " not in printed
    assert "0 of 64 embeddings are in the cache" in printed
    result = read_results(tmp_path / "first" / "results.json")["all trials"]
    assert {"act_dcf_0.01", "act_dcf_0.05", "cllr"} <= set(result)
    for plot in ("det.png", "scores.png"):
        assert matplotlib.image.imread(tmp_path / "first" / plot).ndim == 3
    weights = json.loads((tmp_path / "first/calibration.json").read_text())
    assert len(weights["weights"]) == 5
    printed = verify(corpus, tmp_path / "second", *options)
    assert "64 of 64 embeddings are in the cache" in printed
    first, second = (
        (tmp_path / name / "scores.txt").read_text()
        for name in ("first", "second")
    )
    assert first == second


def fine_tune(name, corpus, output, *options):
    """One epoch; the state of encoder and head at its end."""
    arguments = command(
        TRAIN,
        corpus,
        output,
        *TINY,
        "--number_of_epochs=1",
        f"--out_n_neurons={SPEAKERS}",
        *options,
    )
    arguments[1] = VOXCELEB / "hparams" / f"{name}.yaml"
    code, printed = run_script(*arguments)
    assert code == 0, printed
    assert (output / "model" / "embedding_model.ckpt").is_file()
    (folder,) = (output / "save").glob("CKPT*")
    return printed, {
        key: torch.load(folder / f"{key}.ckpt", weights_only=True)
        for key in ("embedding_model", "classifier")
    }


def test_large_margin_goes_on_from_encoder_and_head(trained, corpus, tmp_path):
    """With no learning rate, what it ends with is what it started from."""
    save = trained[0] / "save"
    printed, states = fine_tune(
        "ham_ecapa_large_margin",
        corpus,
        tmp_path,
        f"--pretrain_path={save}",
        "--lr=1.0e-15",
        "--sentence_len=3.015",
    )
    assert f"Starting from {save}: embedding_model, classifier." in printed
    for key, state in states.items():
        for name, start in average_epochs(save, 5, key).items():
            if "running" not in name and "tracked" not in name:
                torch.testing.assert_close(state[name], start)


def test_own_speakers_get_centres_of_their_own(trained, corpus, tmp_path):
    """In mixed precision; the encoder starts from the model folder."""
    model = trained[0] / "model"
    printed, states = fine_tune(
        "ham_ecapa_own_speakers",
        corpus,
        tmp_path,
        f"--pretrain_path={model}",
        "--precision=bf16",
        "--warmup_steps=0",
    )
    assert f"Starting from {model}: embedding_model." in printed
    start = torch.load(model / "embedding_model.ckpt", weights_only=True)
    for name, value in states["embedding_model"].items():
        if name.endswith("conv.weight"):  # close to the start, but learning
            change = (value - start[name]).norm() / start[name].norm()
            assert 0 < change < 0.2, name
    (centres,) = states["classifier"].values()
    # They are drawn with a norm of 0.014 on average.
    assert centres.norm(dim=1).min() > 0.03


def test_fine_tuning_on_other_speakers(trained, corpus, tmp_path):
    """The centres of a run are of its speakers only."""
    output, _ = trained
    other = tmp_path / "save"
    shutil.copytree(output / "save", other)
    labels = other / "label_encoder.txt"
    text = labels.read_text()
    names = sorted(set(re.findall(r"spk\d+", text)))
    labels.write_text(text.replace(names[0], "someone"))
    arguments = command(
        TRAIN,
        corpus,
        tmp_path / "out",
        *TINY,
        f"--out_n_neurons={SPEAKERS}",
        f"--pretrain_path={other}",
    )
    arguments[1] = VOXCELEB / "hparams" / "ham_ecapa_large_margin.yaml"
    code, printed = run_script(*arguments)
    assert code == 2 and "has other speakers than" in printed


def test_nothing_to_start_from(corpus, tmp_path):
    arguments = command(
        TRAIN, corpus, tmp_path / "out", f"--pretrain_path={tmp_path}"
    )
    arguments[1] = VOXCELEB / "hparams" / "ham_ecapa_own_speakers.yaml"
    code, printed = run_script(*arguments)
    assert code == 2 and "has no checkpoint of a finished epoch" in printed
    assert not (tmp_path / "out" / "save" / "train.csv").exists()


def test_cnceleb(corpus, tmp_path):
    """A folder of the shape of CN-Celeb, trained on and verified."""
    root = tmp_path / "CN-Celeb_flac"
    lists = root / "eval" / "lists"
    lists.mkdir(parents=True)
    speakers = sorted(p for p in (corpus / "corpus").glob("spk*"))
    models, tests = [], []
    for number, speaker in enumerate(speakers):
        name = f"id{number:05d}"
        for take, wav in enumerate(sorted(speaker.rglob("*.wav"))):
            target = root / "data" / name / f"speech-01-{take:03d}.wav"
            if number >= SPEAKERS and take >= 3:
                target = root / "eval/test" / f"{name}-song-01-{take:03d}.wav"
                tests.append(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(wav, target)
        if number >= SPEAKERS:
            enrolled = [f"{name}/speech-01-{take:03d}.wav" for take in range(3)]
            models.append(" ".join([f"{name}-enroll", *enrolled]))
    (lists / "enroll.map").write_text("\n".join(models))
    trials = [
        f"{model.split()[0]} test/{test.name} {int(model[:7] == test.name[:7])}"
        for model in models
        for test in tests
    ]
    (lists / "trials.lst").write_text("\n".join(trials))
    output = tmp_path / "out"
    own = [f"--data_folder={root}", f"--lists_folder={lists}"]
    code, printed = run_script(
        TRAIN,
        VOXCELEB / "hparams" / "ham_ecapa_cnceleb.yaml",
        *own,
        *sounds(corpus),
        *TINY,
        f"--out_n_neurons={SPEAKERS}",
        "--number_of_epochs=1",
        f"--output_folder={output}",
    )
    assert code == 0, printed
    code, printed = run_script(
        VERIFY,
        VOXCELEB / "hparams" / "verification_ham_ecapa_cnceleb.yaml",
        *own,
        f"--training={{output_folder: {output}, channels: 32}}",
        f"--output_folder={output / 'verification'}",
        "--enrolment=midpoint",
        "--cache_folder=null",
    )
    assert code == 0, printed
    results = read_results(output / "verification" / "results.json")
    n_models = len(models)
    assert results["all trials"]["n_target"] == len(tests)
    assert results["all trials"]["n_nontarget"] == len(tests) * (n_models - 1)


def test_results_row(trained, corpus, tmp_path):
    """The row of the recipe's README, from three lists."""
    output, _ = trained
    readme = tmp_path / "README.md"
    shutil.copy(VOXCELEB / "README.md", readme)
    before = readme.read_text().splitlines()
    lists = {name: str(corpus / "trials.txt") for name in "OEH"}
    code, printed = run_script(
        VOXCELEB / "results.py",
        VOXCELEB / "hparams" / "verification_ham_ecapa.yaml",
        f"--data_folder={corpus / 'corpus'}",
        f"--training={{channels: 32, output_folder: {output}}}",
        f"--lists={json.dumps(lists)}",
        f"--readme={readme}",
        f"--output_folder={tmp_path / 'lists'}",
        f"--cache_folder={tmp_path / 'cache'}",
    )
    assert code == 0, printed
    after = readme.read_text().splitlines()
    (changed,) = (n for n, x in enumerate(before) if x not in after)
    assert "not yet run here" in before[changed]
    _, title, *rates, costs, _ = map(str.strip, after[changed].split("|"))
    assert title.startswith("HAM-Softmax, here (")
    for name, rate in zip("OEH", rates, strict=True):
        found = read_results(tmp_path / "lists" / name / "results.json")
        assert rate == f"{100 * found['all trials']['eer']:.3f}"
    assert len(costs.split("/")) == 3
    # A row that is filled in is found again.
    replace_row = runpy.run_path(str(VOXCELEB / "results.py"))["replace_row"]
    replace_row(readme, "HAM-Softmax, here", "| anew |")
    assert readme.read_text().splitlines()[changed] == "| anew |"
    code, printed = run_script(
        VOXCELEB / "results.py",
        "verification.yaml",
        "--row=nothing",
        f"--readme={readme}",
    )
    assert code == 2 and "has 0 rows that start with 'nothing'" in printed
    code, printed = run_script(
        VOXCELEB / "results.py", "a.yaml", "--lists={X: a}"
    )
    assert code == 2 and "expected paths by some of O, E, H" in printed
