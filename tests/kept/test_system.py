"""What both versions do: a trained system, and runs."""

import json
import os
import pathlib
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import torch

from tests.corpora import make_corpus
from tests.kept import surface
from tests.kept.commands import run_command, run_python
from tests.scripts import ROOT, TRAIN, VOXCELEB, Script, run_script

RNG = np.random.default_rng(0)


# ------------------------------------------------------------ a trained system


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo, smaller: a synthetic corpus, trained and verified."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("demo")
    surface.make_synthetic_corpus(
        folder / "corpus", n_train=12, n_test=8, utterances=(10, 8)
    )
    code, printed = run_script(
        VOXCELEB.parent / "OwnCorpus" / "run.py",
        f"--data_folder={folder / 'corpus'}",
        f"--output_folder={folder / 'run'}",
        "--number_of_epochs=12",
        "--channels=32",
        "--batch_size=16",
        "--num_workers=0",
    )
    assert code == 0, printed
    return types.SimpleNamespace(
        corpus=folder / "corpus", run=folder / "run", printed=printed
    )


def test_training_lowers_the_error_rate(demo):
    untrained, trained = (
        json.loads((demo.run / system / "results.json").read_text())
        for system in ("untrained", "trained")
    )
    before, after = untrained["all trials"], trained["all trials"]
    assert after["eer"] < before["eer"] - 0.02
    # From the score file again: its last two columns are label and score.
    rows = [
        line.split()
        for line in (demo.run / "trained" / "scores.txt")
        .read_text()
        .splitlines()
    ]
    scores = np.array([float(row[3]) for row in rows])
    labels = np.array([int(row[2]) for row in rows])
    assert surface.eer(
        scores[labels == 1], scores[labels == 0]
    ) == pytest.approx(after["eer"], abs=1e-6)


def test_the_stock_class_loads_the_model_without_this_package(demo, tmp_path):
    script = f"""
import sys
sys.modules["speechbrain_hyperbolic"] = None  # an import fails
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams(
    {str(demo.run / "model")!r}, savedir={str(tmp_path)!r})
for line in open({str(demo.run / "trained" / "scores.txt")!r}).readlines()[:3]:
    enroll, test, _, score = line.split()
    files = [f"{demo.corpus}/{{u}}.wav" for u in (enroll, test)]
    print(abs(model.verify_files(*files)[0].item() - float(score)))
"""
    for difference in run_python(script).splitlines()[-3:]:
        assert float(difference) < 1e-5


def test_the_model_is_the_mean_of_the_last_epochs(demo):
    checkpoints = sorted(
        (demo.run / "save").glob("CKPT*/embedding_model.ckpt"),
        key=lambda path: path.stat().st_mtime,
    )[-5:]
    states = [torch.load(path, weights_only=True) for path in checkpoints]
    model = torch.load(
        demo.run / "model" / "embedding_model.ckpt", weights_only=True
    )
    assert len(states) == 5
    for name, value in model.items():
        if value.is_floating_point():
            mean = torch.stack([state[name] for state in states]).mean(0)
            torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)


def test_an_exported_model_verifies_by_its_measured_threshold(demo, tmp_path):
    export = surface.export_arguments(demo.run, tmp_path / "model")
    assert run_command(*export)[0] == 0
    for other, code in (("utt02", 0), (None, 1)):
        first, *_ = sorted(p.name for p in demo.corpus.iterdir() if p.is_dir())
        clips = speakers_clips(demo, other)
        found, printed = run_command(
            "verify", *clips, "--model", tmp_path / "model", "--json"
        )
        assert found == code, printed


def speakers_clips(demo, same):
    """Two clips of the clearest trial: of one speaker, or of two."""
    label = "1" if same else "0"
    rows = [
        line.split()
        for line in (demo.run / "trained" / "scores.txt")
        .read_text()
        .splitlines()
    ]
    rows = sorted(
        (row for row in rows if row[2] == label), key=lambda row: float(row[3])
    )
    enroll, test, *_ = rows[-1 if same else 0]
    return [demo.corpus / f"{name}.wav" for name in (enroll, test)]


def test_a_strangers_model_runs_no_code(demo, tmp_path):
    """Its pickle and its YAML are not read; a class of its own is refused."""
    folder, ran = tmp_path / "model", tmp_path / "ran"
    export = surface.export_arguments(demo.run, folder)
    assert run_command(*export)[0] == 0

    class Payload:
        def __reduce__(self):
            return pathlib.Path.touch, (ran,)

    (folder / "embedding_model.ckpt").write_bytes(pickle.dumps(Payload()))
    (folder / "hyperparams.yaml").write_text(
        f"x: !apply:pathlib.Path.touch [!apply:pathlib.Path [{ran}]]\n"
    )
    clips = speakers_clips(demo, "same")
    code, printed = run_command("verify", *clips, "--model", folder)
    assert code == 0, printed
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(surface.with_hostile_class(config))
    code, printed = run_command("verify", *clips, "--model", folder)
    assert code == 2 and "subprocess.Popen" in printed
    assert not ran.exists()


# ------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones"))


def training(tones, output):
    return [
        TRAIN,
        ROOT / "hparams" / "ham_ecapa.yaml",
        f"--data_folder={tones / 'corpus'}",
        f"--verification_file={tones / 'trials.txt'}",
        f"--output_folder={output}",
        f"--noise_source={tones / 'sounds'}",
        f"--rir_source={tones / 'sounds' / 'rir'}",
        "--out_n_neurons=6",
        "--channels=16",
        "--batch_size=4",
        "--num_workers=1",
        "--number_of_epochs=3",
        "--sentence_len=0.6",
        "--split_ratio=[80, 20]",
        "--ckpt_interval_minutes=0",
        "--ckpt_interval_steps=3",
    ]


def weights(output):
    return torch.load(
        output / "model" / "embedding_model.ckpt", weights_only=True
    )


def test_a_killed_run_ends_as_one_that_was_not(tones, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, printed = run_script(*training(tones, whole))
    assert code == 0, printed
    with Script(tmp_path / "log", *training(tones, killed)) as script:
        # Two epochs have ended, and some steps of the third
        script.wait_for(lambda: len(list(killed.glob("save/CKPT*"))) > 2)
        script.kill()
    code, printed = run_script(*training(tones, killed))
    assert code == 0 and "Resuming from" in printed, printed
    expected, found = weights(whole), weights(killed)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    log = (killed / "train_log.txt").read_text()
    assert log == (whole / "train_log.txt").read_text()


def test_two_processes_train_as_one_run(tones, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            "--nproc_per_node=2",
            *map(str, training(tones, tmp_path / "two")),
            "--distributed_backend=gloo",
            "--device=cpu",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (
        len((tmp_path / "two" / "train_log.txt").read_text().splitlines()) == 3
    )
    assert all(
        value.isfinite().all() for value in weights(tmp_path / "two").values()
    )


def test_headers_are_enough_for_the_preparation(tmp_path):
    """Sounds that are noise after their header have the right durations."""
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2", "b/3"):
        path = tmp_path / "corpus" / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, RNG.standard_normal(24000) / 10, 16000)
        content = bytearray(path.read_bytes())
        content[1000:] = bytes(len(content) - 1000)
        path.write_bytes(content)
    rows = surface.prepared(tmp_path / "corpus", tmp_path / "save")
    assert len({row["ID"] for row in rows}) == 6
    assert {float(row["duration"]) for row in rows} == {1.5}
    assert {row["spk_id"] for row in rows} == {"a", "b"}


# ------------------------------------------------------------ mistakes

MISTAKES = [
    ("train_speaker_embeddings.py", "ham_ecapa", [], "data_folder"),
    (
        "train_speaker_embeddings.py",
        "ham_ecapa",
        ["--batchsize=2"],
        "batch_size",
    ),
    ("train_speaker_embeddings.py", "hamm_ecapa", [], "hamm_ecapa.yaml"),
    ("train_speaker_embeddings.py", "ham_ecapa", ["--clip_c=0"], "c is 0"),
    (
        "train_speaker_embeddings.py",
        "ham_ecapa",
        ["--margin=-1"],
        "margin is -1",
    ),
]


@pytest.mark.parametrize("script, hparams, options, words", MISTAKES)
def test_a_mistake_is_told_in_one_line(
    script, hparams, options, words, demo, tmp_path
):
    arguments = [f"--output_folder={tmp_path / 'out'}", *options]
    if options:
        arguments.append(f"--data_folder={demo.corpus}")
    code, printed = run_script(
        VOXCELEB / script, ROOT / "hparams" / f"{hparams}.yaml", *arguments
    )
    errors = [x for x in printed.splitlines() if x.startswith("error: ")]
    assert code == 2 and len(errors) == 1 and words in errors[0], printed
    assert "Traceback" not in printed
