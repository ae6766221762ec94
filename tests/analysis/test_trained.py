"""What is read from a trained folder."""

import pathlib
import re
import shutil

import numpy as np
import pytest
import speechbrain
import torch

from speechbrain_hyperbolic.analysis.trained import (
    differ_by_seed_only,
    embed_training,
    read_log,
    read_trained,
)
from speechbrain_hyperbolic.dataio.checksums import SUMS
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import load_hparams, nest_overrides
from tests.analysis.runs import HEADS, SPEAKERS, write_run

END = "=" * 16 + "\n'starting_index' => 0\n"  # of a list of speakers


@pytest.mark.parametrize("head", HEADS)
def test_centres_are_the_mean_of_the_last_epochs(tmp_path, head):
    states = write_run(tmp_path / head, head)
    trained = read_trained(tmp_path / head)
    name = "heads.1.weight" if head == "joint" else "weight"
    mean = (states[-1][name] + states[-2][name]) / 2
    torch.testing.assert_close(trained.centres, mean.double())
    count = 2 if head == "sub" else 1
    assert trained.speakers == [s for s in SPEAKERS for _ in range(count)]
    assert trained.name == head
    assert trained.has_radius == (head in ("ham", "exact", "sub", "joint"))
    assert trained.prefix == ("head2_" if head == "joint" else "")


SYSTEMS = sorted(
    path.name
    for path in (pathlib.Path(__file__).parents[2] / "hparams").glob("h*.yaml")
)
SYSTEMS += ["am_ecapa.yaml", "eh_am_ecapa.yaml", "softmax_ecapa.yaml"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_shipped_system_is_read(tmp_path, root, system):
    """Its file as SpeechBrain keeps it, resolved, and its head untrained."""
    path = root / "hparams" / system
    needed = re.findall(r"^(\w+): !PLACEHOLDER", path.read_text(), re.M)
    overrides = dict.fromkeys(needed, str(tmp_path))
    overrides |= {
        "output_folder": str(tmp_path / "run"),
        "out_n_neurons": 3,
        "channels": 16,
    }
    overrides = nest_overrides(path, overrides)
    hparams = load_hparams(path, overrides)
    speechbrain.create_experiment_directory(
        tmp_path / "run", path, overrides, save_env_desc=False
    )
    hparams["checkpointer"].save_checkpoint(meta={"epoch": 1})
    log = "epoch: 1, lr: 1.00e-03 - train loss: 9.64"
    (tmp_path / "run" / "train_log.txt").write_text(log)
    (tmp_path / "run" / "save" / "label_encoder.txt").write_text(
        "'a' => 0\n'b' => 1\n'c' => 2\n" + END
    )
    trained = read_trained(tmp_path / "run")
    assert set(trained.speakers) == set("abc")
    head = hparams["classifier"]
    if system == "eh_am_ecapa.yaml":
        head = head.heads[0]
    torch.testing.assert_close(trained.centres, head.weight.double())
    assert trained.has_radius == (system[0] in "he")
    assert trained.points.radius.isfinite().all()


def test_a_folder_may_have_moved(tmp_path):
    write_run(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    assert read_trained(tmp_path / "elsewhere", "a").name == "a"


def test_radii_are_those_of_the_head(tmp_path):
    write_run(tmp_path / "ham")
    trained = read_trained(tmp_path / "ham")
    length = np.linalg.norm(trained.centres, axis=1)
    expected = 2 * np.arctanh(length.clip(max=(1 - 1e-5) / 3**0.5))
    np.testing.assert_allclose(trained.points.radius, expected, rtol=1e-12)
    assert expected.max() == pytest.approx(trained.cap)
    assert expected.min() < 0.95 * trained.cap


def test_learnt_curvature_counts(tmp_path):
    states = write_run(tmp_path / "exact", "exact")
    trained = read_trained(tmp_path / "exact")
    (theta,) = [
        (states[-1][key] + states[-2][key]) / 2
        for key in states[-1]
        if "_curvature" in key
    ]
    curvature = 10 ** float(theta / (1 + abs(theta)))
    assert abs(curvature - 1) > 0.01
    length = np.linalg.norm(trained.centres, axis=1)
    np.testing.assert_allclose(
        trained.points.radius, curvature**0.5 * length, rtol=1e-5
    )


@pytest.mark.parametrize("head", ["am", "softmax", "stock"])
def test_without_a_radius_directions_are_left(tmp_path, head):
    write_run(tmp_path / head, head)
    trained = read_trained(tmp_path / head)
    points = trained.points
    assert trained.cap is None
    assert len(set(points.radius.tolist())) == 1
    norms = torch.linalg.vector_norm(points.vectors, dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    cosine = torch.nn.functional.cosine_similarity(
        points.vectors, trained.centres
    )
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_log_of_the_stock_logger(tmp_path):
    write_run(tmp_path / "ham")
    log = read_log(tmp_path / "ham" / "train_log.txt")
    np.testing.assert_array_equal(log["epoch"], [1, 2, 3])
    np.testing.assert_allclose(log["train loss"], [10, 5, 3.33])
    np.testing.assert_allclose(log["valid ErrorRate"], [0.5, 0.25, 0.167])
    np.testing.assert_allclose(log["lr"], 1e-3)


def test_log_of_a_run_that_went_on(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(
        "epoch: 1, lr: 1.00e-03 - train loss: 9.00\n"
        "epoch: 2, lr: 1.00e-03 - train loss: nan\n"
        "Epoch loaded: 1 - test loss: 7.00\n"
        "epoch: 2, lr: 1.00e-03 - train loss: -4.00, train note: resumed\n"
        "epoch: 3 - valid loss: 5.00\n"
    )
    log = read_log(path)
    assert set(log) == {"epoch", "lr", "train loss", "valid loss"}
    np.testing.assert_array_equal(log["train loss"], [9, -4, np.nan])
    np.testing.assert_array_equal(log["valid loss"], [np.nan, np.nan, 5])


def test_runs_of_other_seeds(tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", seed=2)
    write_run(tmp_path / "c", seed=1, margin=0.3)
    write_run(tmp_path / "d", "am", seed=1)
    a, b, c, d = (read_trained(tmp_path / name) for name in "abcd")
    assert differ_by_seed_only(a, b) and differ_by_seed_only(b, a)
    assert not differ_by_seed_only(a, c)
    assert not differ_by_seed_only(a, d)
    assert not differ_by_seed_only(a, b._replace(speakers=["x", "y"]))


def drop(name):
    return lambda folder: (folder / name).unlink()


def overwrite(name, content):
    return lambda folder: (folder / name).write_text(content)


def break_checkpoints(folder):
    for path in folder.glob("save/CKPT*/classifier.ckpt"):
        path.write_bytes(b"no tensors")
        (path.parent / SUMS).unlink()  # else they are left out


@pytest.mark.parametrize(
    "damage, message",
    [
        (drop("hyperparams.yaml"), "hyperparams.yaml is missing"),
        (drop("train_log.txt"), "train_log.txt is missing"),
        (drop("save/label_encoder.txt"), "label_encoder.txt is missing"),
        (overwrite("train_log.txt", ""), "has no line 'epoch"),
        (overwrite("save/label_encoder.txt", "abc"), "is no list of speakers"),
        (
            overwrite(
                "save/label_encoder.txt",
                "'a' => 0\n'b' => 1\n" + END,
            ),
            "has 2 speakers, but the head has 30",
        ),
        (overwrite("hyperparams.yaml", "seed: 1"), "has no classifier"),
        (
            overwrite("hyperparams.yaml", "classifier: !new:no.such.Class"),
            "classifier can't be made",
        ),
        (
            overwrite(
                "hyperparams.yaml", "classifier: !new:torch.nn.Identity []"
            ),
            "classifier as .* says|the classifier is a Identity",
        ),
        (
            overwrite(
                "hyperparams.yaml",
                HEADS["ham"].replace("out_neurons: 30", "out_neurons: 9"),
            ),
            "has no classifier as",
        ),
        (break_checkpoints, "is damaged"),
        (lambda folder: shutil.rmtree(folder / "save"), "has no checkpoint"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(tmp_path, damage, message):
    write_run(tmp_path / "ham")
    damage(tmp_path / "ham")
    with pytest.raises(InputError, match=message) as caught:
        read_trained(tmp_path / "ham")
    assert "\n" not in str(caught.value)


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        read_trained(tmp_path / "absent")


def test_diverged_training_is_refused(tmp_path):
    write_run(tmp_path / "ham")
    for path in (tmp_path / "ham").glob("save/CKPT*/classifier.ckpt"):
        state = torch.load(path, weights_only=True)
        state["weight"][0, 0] = torch.nan
        torch.save(state, path)
        (path.parent / SUMS).unlink()
    with pytest.raises(InputError, match="not finite"):
        read_trained(tmp_path / "ham")


def test_embeddings_need_the_list_of_utterances(tmp_path):
    write_run(tmp_path / "ham")
    with pytest.raises(InputError, match="train.csv is missing"):
        embed_training(read_trained(tmp_path / "ham"), tmp_path)
