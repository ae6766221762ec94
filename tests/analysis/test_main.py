"""The command, from folders to files."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from matplotlib.image import imread

from speechbrain_hyperbolic.analysis.__main__ import main
from speechbrain_hyperbolic.analysis.trained import (
    embed_training,
    read_trained,
)
from speechbrain_hyperbolic.checkpoints import find_epochs
from speechbrain_hyperbolic.dataio.checksums import write_sums
from speechbrain_hyperbolic.errors import InputError
from tests.analysis.runs import HEADS, SPEAKERS, write_run

# Entries as training writes them.
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
    for name in HEADS:
        write_run(tmp_path / "runs" / name, name)
    folders = [str(tmp_path / "runs" / name) for name in HEADS]
    main([*folders, "--speakers", str(speakers_csv), "--colour", "age"])
    output = tmp_path / "runs" / "analysis"
    assert (output / "curves.png").is_file()
    for name in HEADS:
        files = {file.name for file in (output / name).iterdir()}
        expected = {"disk-age.png", "disk.html"}
        if name in ("ham", "exact", "sub", "joint"):
            expected.add("radii.png")
        assert files == expected


def test_folders_of_one_name(tmp_path):
    write_run(tmp_path / "a" / "run")
    write_run(tmp_path / "b" / "run")
    main([str(tmp_path / x / "run") for x in "ab"])
    files = {p.name for p in (tmp_path / "analysis").iterdir()}
    assert files == {"a-run", "b-run", "curves.png"}
    assert (tmp_path / "analysis" / "a-run" / "disk.png").is_file()


def test_columns_that_are_no_file_names(tmp_path):
    write_run(tmp_path / "ham")
    table = tmp_path / "t.csv"
    table.write_text(f"spk_id,../a/b\n{SPEAKERS[0]},x\n")
    main(
        [str(tmp_path / "ham"), "--speakers", str(table), "--colour", "../a/b"]
    )
    assert (tmp_path / "ham" / "analysis" / "disk--a-b.png").is_file()


def test_wrong_options(tmp_path, speakers_csv):
    write_run(tmp_path / "ham")
    folder = str(tmp_path / "ham")
    with pytest.raises(InputError, match="choose of sex, age"):
        main([folder, "--colour", "height"])
    with pytest.raises(InputError, match="given twice"):
        main([folder, folder + "/"])
    with pytest.raises(InputError, match="absent.csv is missing"):
        main([folder, "--speakers", str(tmp_path / "absent.csv")])


@pytest.fixture
def run_with_encoder(tmp_path):
    """Its corpus has moved since it trained."""
    folder = tmp_path / "run"
    write_run(folder)
    text = (folder / "hyperparams.yaml").read_text()
    text = text.replace(str(tmp_path), "/gone")
    (folder / "hyperparams.yaml").write_text(text + ENCODER)
    torch.manual_seed(0)
    encoder = load_hyperpyyaml(ENCODER)["embedding_model"]
    for checkpoint in find_epochs(folder / "save", 5):
        torch.save(encoder.state_dict(), checkpoint / "embedding_model.ckpt")
        write_sums(checkpoint)
    rows = ["ID,duration,wav,start,stop,spk_id"]
    rng = np.random.default_rng(0)
    for speaker in SPEAKERS[:3]:
        path = tmp_path / "corpus" / speaker / "1.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.1 * rng.normal(size=16000), 16000)
        rows.append(f"{speaker}/1,1.0,/gone/{speaker}/1.wav,0,16000,{speaker}")
    (folder / "save" / "train.csv").write_text("\n".join(rows))
    return folder


def test_embeddings_of_the_training(run_with_encoder, tmp_path):
    corpus = tmp_path / "corpus"
    main([str(run_with_encoder), "--data_folder", str(corpus)])
    radii = run_with_encoder / "analysis" / "radii.png"
    assert imread(radii).shape[0] > imread_height_of_one_panel(tmp_path)
    assert list((run_with_encoder / "embeddings").rglob("*.npz"))
    trained = read_trained(run_with_encoder)
    points, speakers = embed_training(trained, corpus)
    assert speakers == SPEAKERS[:3]
    lengths = torch.linalg.vector_norm(points.vectors, dim=1)
    cap = (1 - 1e-5) / 3**0.5
    expected = 2 * torch.atanh(lengths.clamp(max=cap))
    torch.testing.assert_close(points.radius, expected)


def imread_height_of_one_panel(tmp_path):
    write_run(tmp_path / "other")
    main([str(tmp_path / "other")])
    return imread(tmp_path / "other" / "analysis" / "radii.png").shape[0]


def test_missing_audio_is_named(run_with_encoder, tmp_path):
    shutil.rmtree(tmp_path / "corpus" / SPEAKERS[1])
    with pytest.raises(InputError, match=f"{SPEAKERS[1]}/1.wav"):
        main([str(run_with_encoder), "--data_folder", str(tmp_path / "corpus")])
