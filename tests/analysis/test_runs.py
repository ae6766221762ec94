"""The command, from trained folders to files."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from matplotlib.image import imread

from speechbrain_hyperbolic.analysis.__main__ import main
from speechbrain_hyperbolic.analysis.runs import (
    embed_training,
    read_log,
    read_run,
)
from speechbrain_hyperbolic.dataio.preparation import Utterance, write_csv
from speechbrain_hyperbolic.errors import InputError
from tests.analysis.conftest import HEADS, HYPERBOLIC, SPEAKERS, write_run

END = "=" * 16 + "\n'starting_index' => 0\n"  # of a list of speakers
# Entries as a run's hyperparams.yaml has them
ENCODER = """
sample_rate: 16000
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: &encoder !new:speechbrain.lobes.models.Xvector.Xvector
    in_channels: 80
    tdnn_blocks: 1
    tdnn_channels: [4]
    tdnn_kernel_sizes: [3]
    tdnn_dilations: [1]
    lin_neurons: 8
"""


@pytest.mark.parametrize("head", HEADS)
def test_centers_are_the_mean_of_the_last_epochs(tmp_path, head):
    states = write_run(tmp_path / head, head)
    shutil.move(tmp_path / head, tmp_path / "elsewhere")
    run = read_run(tmp_path / "elsewhere")
    name = "heads.1.weight" if head == "joint" else "weight"
    mean = ((states[-1][name] + states[-2][name]) / 2).double()
    torch.testing.assert_close(run.head.weight.double(), mean)
    count = 2 if head == "sub" else 1
    assert run.speakers == [s for s in SPEAKERS for _ in range(count)]
    assert run.prefix == ("head2_" if head == "joint" else "")
    points, length = run.centers(), torch.linalg.vector_norm(mean, dim=1)
    assert run.has_radius == (head in HYPERBOLIC)
    if head == "exact":  # with its learned curvature
        curvature = run.head.similarity.curvature.item()
        assert abs(curvature - 1) > 0.01
        torch.testing.assert_close(points.radius, curvature**0.5 * length)
    elif run.has_radius:
        norm = length.clamp(max=(1 - 1e-5) / 3**0.5)
        torch.testing.assert_close(points.radius, 2 * torch.atanh(norm))
        assert float(points.radius.max()) == pytest.approx(run.cap)
    else:  # directions alone
        assert run.cap is None and len(set(points.radius.tolist())) == 1
        torch.testing.assert_close(
            points.vectors, torch.nn.functional.normalize(mean)
        )


def test_log_of_the_stock_logger(tmp_path):
    write_run(tmp_path / "joint", "joint")
    log = read_log(tmp_path / "joint" / "train_log.txt", "head2_")
    np.testing.assert_array_equal(log["epoch"], [1, 2, 3])
    np.testing.assert_allclose(log["train loss"], [10, 5, 3.33])
    np.testing.assert_allclose(log["valid ErrorRate"], [0.5, 0.25, 0.167])
    np.testing.assert_allclose(log["train radius_centers_50"], [0.1, 0.2, 0.3])


def test_log_of_a_run_that_was_resumed(tmp_path):
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


def remove(name):
    return lambda folder: (folder / name).unlink()


def overwrite(name, content):
    return lambda folder: (folder / name).write_text(content)


def break_checkpoints(folder):
    for path in folder.glob("save/CKPT*/classifier.ckpt"):
        path.write_bytes(b"no tensors")


@pytest.mark.parametrize(
    "damage, message",
    [
        (remove("hyperparams.yaml"), "hyperparams.yaml is missing"),
        (remove("train_log.txt"), "train_log.txt is missing"),
        (remove("save/label_encoder.txt"), "label_encoder.txt is missing"),
        (overwrite("train_log.txt", ""), "has no line 'epoch"),
        (
            overwrite("save/label_encoder.txt", "'a' => 0\n" + END),
            "has 1 speakers, but the classifier has 30",
        ),
        (overwrite("hyperparams.yaml", "seed: 1"), "has no classifier"),
        (
            overwrite("hyperparams.yaml", "classifier: !new:no.such.Class"),
            "classifier cannot be made",
        ),
        (
            overwrite(
                "hyperparams.yaml",
                HEADS["ham"].replace("out_neurons: 30", "out_neurons: 9"),
            ),
            "another classifier: its weight",
        ),
        (break_checkpoints, "no checkpoint of a finished epoch"),
        (shutil.rmtree, "hyperparams.yaml is missing"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(tmp_path, damage, message):
    write_run(tmp_path / "ham")
    damage(tmp_path / "ham")
    with pytest.raises(InputError, match=message) as caught:
        main([str(tmp_path / "ham")])
    assert "\n" not in str(caught.value)


def test_one_folder(tmp_path, speakers_csv, capsys):
    write_run(tmp_path / "ham")
    main([str(tmp_path / "ham")])  # finds speakers.csv in its data_folder
    files = sorted((tmp_path / "ham" / "analysis").iterdir())
    assert [file.name for file in files] == [
        "curves.png",
        "disk-age.png",
        "disk-sex.png",
        "disk.html",
        "radii.png",
    ]
    assert sorted(capsys.readouterr().out.split()) == list(map(str, files))
    for file in files:
        if file.suffix == ".png":
            assert imread(file)[..., :3].std() > 0.01


def test_several_folders(tmp_path, speakers_csv):
    heads = ("ham", "stock", "joint")
    folders = [str(tmp_path / "runs" / name / "run") for name in heads]
    for folder, head in zip(folders, heads, strict=True):
        write_run(tmp_path / folder, head)
    main([*folders, "--speakers", str(speakers_csv), "--color", "age"])
    output = tmp_path / "runs" / "analysis"
    assert (output / "curves.png").is_file()
    for head in heads:
        files = {file.name for file in (output / f"{head}-run").iterdir()}
        radii = {"radii.png"} if head in HYPERBOLIC else set()
        assert files == {"disk-age.png", "disk.html"} | radii


def test_columns_that_are_not_file_names_and_unknown_ones(tmp_path):
    write_run(tmp_path / "ham")
    table = tmp_path / "t.csv"
    table.write_text(f"spk_id,../a/b\n{SPEAKERS[0]},x\n")
    command = [str(tmp_path / "ham"), "--speakers", str(table), "--color"]
    main([*command, "../a/b", "--output", str(tmp_path / "here")])
    assert (tmp_path / "here" / "disk--a-b.png").is_file()
    with pytest.raises(InputError, match="choose from ../a/b"):
        main([*command, "height"])


@pytest.fixture
def run_with_encoder(tmp_path):
    """Its corpus has moved since it was trained."""
    torch.manual_seed(0)
    encoder = load_hyperpyyaml(ENCODER)["embedding_model"]
    more = f"data_folder: /gone\n{ENCODER}"
    write_run(tmp_path / "run", more=more, embedding_model=encoder)
    rng, rows = np.random.default_rng(0), []
    for speaker in SPEAKERS[:3]:
        path = tmp_path / "corpus" / speaker / "1.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.1 * rng.normal(size=16000), 16000)
        wav = f"/gone/{speaker}/1.wav"
        rows.append(Utterance(f"{speaker}/1", 1.0, wav, 0, 16000, speaker))
    write_csv(rows, tmp_path / "run" / "save" / "train.csv")
    return tmp_path / "run"


def test_embeddings_of_the_training(run_with_encoder, tmp_path):
    corpus = tmp_path / "corpus"
    output = run_with_encoder / "analysis"
    main([str(run_with_encoder)])
    one_panel = imread(output / "radii.png").shape[0]
    main([str(run_with_encoder), "--data_folder", str(corpus)])
    assert imread(output / "radii.png").shape[0] > 1.5 * one_panel
    assert any((run_with_encoder / "embeddings").rglob("*.*"))
    points, speakers = embed_training(read_run(run_with_encoder), corpus)
    assert speakers == SPEAKERS[:3]
    lengths = torch.linalg.vector_norm(points.vectors, dim=1)
    norm = lengths.clamp(max=(1 - 1e-5) / 3**0.5)
    torch.testing.assert_close(points.radius, 2 * torch.atanh(norm))
    shutil.rmtree(corpus / SPEAKERS[1])
    with pytest.raises(InputError, match=f"{SPEAKERS[1]}/1.wav"):
        embed_training(read_run(run_with_encoder), corpus)
