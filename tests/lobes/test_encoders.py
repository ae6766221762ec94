"""Encoders that one key chooses."""

import pytest
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_hyperbolic.checkpoints import RecentCheckpointer
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.export import export_model
from tests.test_systems import load, path_of


@pytest.mark.parametrize(
    "encoder, cls",
    [("ecapa", "ECAPA_TDNN"), ("xvector", "Xvector"), ("resnet", "ResNet")],
)
@pytest.mark.parametrize("system", ["ham_ecapa", "aam_ecapa"])
def test_trains_and_is_exported(system, encoder, cls, tmp_path):
    hparams = load(system, tmp_path, encoder=encoder, emb_dim=24)
    model = hparams["embedding_model"]
    assert type(model).__name__ == cls
    modules = torch.nn.ModuleDict(hparams["modules"]).train()
    features = modules["compute_features"](torch.randn(2, 16000))
    features = modules["mean_var_norm"](features, torch.ones(2))
    embeddings = modules["embedding_model"](features, torch.ones(2))
    outputs = modules["classifier"](embeddings)
    hparams["compute_cost"](outputs, torch.tensor([[0], [1]])).backward()
    for name, parameter in modules.named_parameters():
        assert parameter.grad.isfinite().all(), name

    RecentCheckpointer(
        hparams["save_folder"], recoverables={"embedding_model": model}
    ).save_checkpoint()
    overrides = {"data_folder": "x", "output_folder": str(tmp_path)}
    overrides |= {"encoder": encoder, "emb_dim": 24, "channels": 16}
    folder = export_model(
        path_of(system), overrides, hparams, tmp_path / "model"
    )
    assert "speechbrain_hyperbolic" not in (
        (folder / "hyperparams.yaml").read_text()
    )
    stock = SpeakerRecognition.from_hparams(
        source=str(folder), savedir=str(tmp_path / "stock")
    )
    waveforms = torch.randn(2, 16000)
    model.eval()
    with torch.no_grad():
        features = modules["compute_features"](waveforms)
        features = hparams["input_norm"](features, torch.ones(2))
        expected = model(features, torch.ones(2))
        found = stock.encode_batch(waveforms)
    # The stock pooling of x-vectors adds noise of 1e-5 to its statistics.
    atol = 1e-3 if encoder == "xvector" else 1e-5
    assert torch.allclose(found.view(2, 24), expected.view(2, 24), atol=atol)


def test_no_such_encoder(tmp_path):
    with pytest.raises(InputError, match="'vgg', expected one of ecapa, x"):
        load("ham_ecapa", tmp_path, encoder="vgg")
