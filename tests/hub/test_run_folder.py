"""What the hparams of a run say: its modules, and the name of its loss."""

import os

import pytest

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import HPARAMS, read_nodes, save_resolved
from speechbrain_hyperbolic.hub.run_folder import (
    clip_c,
    epochs_to_average,
    loss_name,
    read_module,
    save_folder,
)
from speechbrain_hyperbolic.inference.config import MODULES, ModelConfig
from speechbrain_hyperbolic.inference.model import build_modules
from tests.scripts import ROOT


@pytest.fixture
def resolve(tmp_path):
    """An hparams file as a run keeps it."""

    def resolve(path, **overrides):
        save_resolved(path, {"data_folder": "/corpus"} | overrides, tmp_path)
        return read_nodes(tmp_path / HPARAMS)

    return resolve


@pytest.mark.parametrize(
    "name, loss, c",
    [
        ("aam_ecapa", "AAM-Softmax", None),
        ("am_ecapa", "AM-Softmax", None),
        ("best", "HAM-Softmax", None),
        ("eh_am_ecapa", "E.H. AM-Softmax", 3),
        ("h_ecapa", "H-Softmax", 5),
        ("ham_ecapa", "HAM-Softmax", 3),
        ("ham_exact_ecapa", "HAM-Softmax", None),
        ("ram_ecapa", "RAM-Softmax", None),
        ("softmax_ecapa", "softmax", None),
    ],
)
def test_losses(name, loss, c, resolve):
    nodes = resolve(ROOT / "hparams" / f"{name}.yaml")
    assert loss_name(nodes["classifier"], nodes["compute_cost"]) == loss
    assert clip_c(nodes) == c
    assert epochs_to_average(nodes) == 5


@pytest.mark.parametrize(
    "name, loss",
    [
        ("train_ecapa_tdnn", "AAM-Softmax"),
        ("train_resnet", "AAM-Softmax"),
        ("train_x_vectors", "softmax"),
    ],
)
def test_stock_files(name, loss, resolve):
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    if not clone:
        pytest.skip("SPEECHBRAIN_CLONE is not set to a clone of SpeechBrain")
    folder = f"{clone}/recipes/VoxCeleb/SpeakerRec/hparams"
    nodes = resolve(f"{folder}/{name}.yaml")
    modules = [read_module(HPARAMS, nodes, key) for key in MODULES]
    assert "activation" not in modules[2]  # a class, but the default anyway
    build_modules(ModelConfig(*modules))
    assert loss_name(nodes["classifier"], nodes["compute_cost"]) == loss
    assert epochs_to_average(nodes) == 1


def test_arguments_become_plain(resolve):
    nodes = resolve(ROOT / "hparams" / "ham_ecapa.yaml", channels=16)
    encoder = read_module(HPARAMS, nodes, "embedding_model")
    assert encoder["channels"] == [16, 16, 16, 16, 48]
    assert {type(v) for v in encoder.values()} == {str, int, list}
    # Without the masks, which are for training
    assert read_module(HPARAMS, nodes, "mean_var_norm") == {
        "class": "speechbrain.processing.features.InputNormalization",
        "norm_type": "sentence",
        "std_norm": False,
    }


@pytest.mark.parametrize(
    "module, message",
    [
        (
            "!new:torch.nn.Linear\n  activation: !name:torch.nn.Tanh",
            "activation of key is !name:torch.nn.Tanh, expected numbers",
        ),
        ("!name:torch.nn.Linear", "key is !name:torch.nn.Linear, expected !n"),
        ("!new:no.such.Class", "key is !new:no.such.Class, expected !new: wi"),
        ("!new:torch.nn.Linear [1, 2]", "!new: with a class and named argum"),
        ("3", "key is 3, expected"),
        (
            "!new:speechbrain.processing.features.InputNormalization\n"
            "  std_norm: False",
            "key has norm_type global, expected sentence",
        ),
    ],
)
def test_modules_that_no_config_can_name(module, message, tmp_path):
    path = tmp_path / HPARAMS
    path.write_text(f"key: {module}\n")
    with pytest.raises(InputError, match=f"{HPARAMS}: .*{message}"):
        read_module(path, read_nodes(path), "key")


def test_the_save_folder_of_a_run_that_has_moved(tmp_path):
    nodes = {"output_folder": "/then/run", "save_folder": "/then/run/save"}
    assert save_folder(tmp_path, nodes) == tmp_path / "save"
    nodes["save_folder"] = "/elsewhere"
    assert str(save_folder(tmp_path, nodes)) == "/elsewhere"
