"""The recipes' scripts, run as a user runs them."""

import csv
import json
import shutil

import matplotlib.image
import pytest
import torch

from recipes.OwnCorpus import run as own_corpus
from speechbrain_hyperbolic.dataio.make_trials import make_trials
from speechbrain_hyperbolic.dataio.trials import write_trials
from speechbrain_hyperbolic.evaluation.results import read_results
from tests.conftest import SPEAKERS
from tests.recipes.conftest import train, verify
from tests.scripts import run_script, succeed


def test_what_a_run_leaves(demo):
    assert (demo.run / "summary.md").read_text() in demo.printed
    assert f"{SPEAKERS} training speakers" in demo.printed
    assert "--- 2/3 training, about " in demo.printed
    for plot in ("det.png", "trained/det.png", "trained/scores.png"):
        assert matplotlib.image.imread(demo.run / plot).ndim == 3
    for system in ("untrained", "trained"):
        result = read_results(demo.run / system / "results.json")
        assert result["all trials"]["n_target"] == 6 * 15
        assert "same-sex trials" in result
    lines = (demo.run / "trained" / "scores.txt").read_text().splitlines()
    assert len(lines) == 2 * 6 * 15
    assert len((demo.run / "train_log.txt").read_text().splitlines()) == 2


def test_the_same_command_again_trains_nothing(demo):
    """With more epochs, it would resume."""
    files = [demo.trials, demo.run / "train_log.txt"]
    before = [file.read_bytes() for file in files]
    trained = (demo.run / "trained" / "scores.txt").read_text()
    printed = succeed(*demo.command)
    assert "Resuming from" in printed
    assert [file.read_bytes() for file in files] == before
    assert (demo.run / "trained" / "scores.txt").read_text() == trained


def test_paths_that_speechbrain_cannot_take(demo, tmp_path):
    code, printed = run_script(demo.command[0], f"--data_folder={tmp_path}/a=b")
    assert code == 2 and "has a '=' in its name" in printed
    paths = {"a": "/a/b", "b": "/a: b", "c": "/a #b"}
    options = [*own_corpus.as_options(paths)]
    assert options == ["--a=/a/b", '--b="/a: b"', '--c="/a #b"']


@pytest.mark.parametrize(
    "option, message",
    [
        ("--data_folder=/no/such", "'/no/such' is not a folder"),
        ("--score=plda", "score is 'plda', expected"),
        ("--clip_c=0", "c is 0, expected"),
        ("--enrollment=max", "enrollment is 'max', expected"),
        ("--normalization=x-norm", "x-norm"),
        ("--calibration_quality=[pitch]", "pitch"),
    ],
)
def test_options_of_the_verification_are_checked(
    option, message, demo, tmp_path
):
    assert message in verify(demo, tmp_path / "out", option, code=2)
    assert not (tmp_path / "out" / "scores.txt").exists()


def test_everything_at_once(demo, tmp_path):
    """Crops, a cohort, calibration; and again from the cache."""
    with open(demo.run / "save" / "train.csv", newline="") as file:
        ids = [row["ID"] for row in csv.DictReader(file)]
    write_trials(make_trials(ids, 20), tmp_path / "calibration.txt")
    options = (
        "--score=hyperbolic",
        "--n_crops=2",
        "--normalization=as-norm",
        "--top_k=4",
        f"--calibration_file={tmp_path / 'calibration.txt'}",
        f"--cache_folder={tmp_path / 'cache'}",
    )
    printed = verify(demo, tmp_path / "first", *options)
    assert "of whole utterances, 2 crops of 3 s, as-norm, calibr" in printed
    assert "speakers of calibration_file, such as spk" in printed  # trained
    assert "speakers of verification_file, such as spk" not in printed
    result = read_results(tmp_path / "first" / "results.json")["all trials"]
    assert {"act_dcf_0.01", "act_dcf_0.05", "cllr"} <= set(result)
    assert json.loads((tmp_path / "first" / "calibration.json").read_text())
    printed = verify(demo, tmp_path / "second", *options)
    assert "36 of 36 embeddings are in the cache" in printed
    first, second = (
        (tmp_path / name / "scores.txt").read_text()
        for name in ("first", "second")
    )
    assert first == second


def test_fine_tuning_gives_new_speakers_centers_of_their_own(demo, tmp_path):
    """In mixed precision; the encoder starts from the model folder."""
    model = demo.run / "model"
    printed = train(
        demo,
        tmp_path,
        f"--pretrain_path={model}",
        "--precision=bf16",
        hparams="finetune",
    )
    assert f"Loaded embedding_model from {model}." in printed
    (folder,) = (tmp_path / "save").glob("CKPT*")
    trained, start = (
        torch.load(path / "embedding_model.ckpt", weights_only=True)
        for path in (folder, model)
    )
    for name, value in trained.items():
        if name.endswith("conv.weight"):  # close to the start, but learning
            change = (value - start[name]).norm() / start[name].norm()
            assert 0 < change < 0.2, name
    head = torch.load(folder / "classifier.ckpt", weights_only=True)
    # Centers are drawn with a norm of 0.014 on average, and grow.
    assert head["weight"].norm(dim=1).min() > 0.02


def test_cnceleb(demo, tmp_path):
    root = tmp_path / "CN-Celeb_flac"
    enrolled, tests = {}, []
    for number, wav in enumerate(sorted(demo.corpus.glob("spk*/*.wav"))):
        speaker, take = divmod(number, 6)
        name = f"id{speaker:05d}"
        target = f"{name}/speech-01-{take:03d}.wav"
        below = root / "data"
        if speaker >= SPEAKERS and take < 3:
            enrolled.setdefault(name, []).append(target)
        elif speaker >= SPEAKERS:
            target = f"test/{name}-song-01-{take:03d}.wav"
            below = root / "eval"
            tests.append(target)
        (below / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(wav, below / target)
    lists = root / "eval" / "lists"
    lists.mkdir()
    models = [f"{k}-enroll {' '.join(v)}\n" for k, v in enrolled.items()]
    (lists / "enroll.map").write_text("".join(models))
    trials = [
        f"{name}-enroll {test} {int(name in test)}\n"
        for name in enrolled
        for test in tests
    ]
    (lists / "trials.lst").write_text("".join(trials))
    train(  # with the number of speakers not enrolled
        demo,
        tmp_path / "run",
        f"--data_folder={root}",
        f"--lists_folder={lists}",
        f"--verification_file={lists / 'trials.lst'}",
        hparams="cnceleb",
    )
    verify(
        demo,
        tmp_path / "out",
        f"--data_folder={root}",
        f"--model_folder={tmp_path / 'run' / 'model'}",
        f"--verification_file={lists / 'trials.lst'}",
        f"--enrollment_file={lists / 'enroll.map'}",
        "--enrollment=midpoint",
    )
    results = read_results(tmp_path / "out" / "results.json")["all trials"]
    assert results["n_target"] == len(tests)
    assert results["n_nontarget"] == len(tests) * (len(models) - 1)
