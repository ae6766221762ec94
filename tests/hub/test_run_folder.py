"""What the hparams of a run say: its modules, and the name of its loss."""

import pytest

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import HPARAMS, read_nodes, save_resolved
from speechbrain_hyperbolic.hub.run_folder import clip_c, loss_name, read_module
from tests.scripts import ROOT


def resolve(folder, name, **overrides):
    """An hparams file as a run keeps it."""
    overrides["data_folder"] = "/corpus"
    save_resolved(ROOT / "hparams" / f"{name}.yaml", overrides, folder)
    return read_nodes(folder / HPARAMS)


@pytest.mark.parametrize(
    "name, loss, c",
    [
        ("aam_ecapa", "AAM-Softmax", None),
        ("best", "HAM-Softmax", None),
        ("eh_am_ecapa", "E.H. AM-Softmax", 3),
        ("h_ecapa", "H-Softmax", 5),
        ("ham_ecapa", "HAM-Softmax", 3),
        ("ham_exact_ecapa", "HAM-Softmax", None),
        ("ram_ecapa", "RAM-Softmax", None),
        ("softmax_ecapa", "softmax", None),
    ],
)
def test_losses(name, loss, c, tmp_path):
    nodes = resolve(tmp_path, name)
    assert loss_name(nodes["classifier"], nodes["compute_cost"]) == loss
    assert clip_c(nodes) == c


@pytest.mark.parametrize(
    "module, message",
    [
        (
            "!new:torch.nn.Linear\n  activation: !name:torch.nn.Tanh",
            "activation of key is !name:torch.nn.Tanh, expected numbers",
        ),
        ("!new:no.such.Class", "key is !new:no.such.Class, expected !new: wi"),
        ("!new:torch.nn.Linear [1, 2]", "!new: with a class and named argum"),
    ],
)
def test_modules_that_no_config_can_name(module, message, tmp_path):
    path = tmp_path / HPARAMS
    path.write_text(f"key: {module}\n")
    with pytest.raises(InputError, match=f"{HPARAMS}: .*{message}"):
        read_module(path, read_nodes(path), "key")
