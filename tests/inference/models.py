"""Small models with random weights, and voices for them."""

import dataclasses

import numpy as np
import torch
from hypothesis import settings

from speechbrain_hyperbolic.inference.model import (
    ModelConfig,
    Thresholds,
    build_modules,
    save_model,
)

RATE = 16000
MEASURED = Thresholds(0.5, {"0.1": 0.4, "0.01": 0.7})
ENCODERS = {
    "ecapa": {
        "class": "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
        "input_size": 24,
        "channels": [16, 16, 16, 16, 48],
        "attention_channels": 8,
        "lin_neurons": 8,
    },
    "xvector": {
        "class": "speechbrain.lobes.models.Xvector.Xvector",
        "in_channels": 24,
        "tdnn_channels": [16, 16, 16, 16, 48],
        "lin_neurons": 8,
    },
    "resnet": {
        "class": "speechbrain.lobes.models.ResNet.ResNet",
        "input_size": 24,
        "channels": [4, 4, 8, 8],
        "block_sizes": [1, 1, 1, 1],
        "lin_neurons": 8,
    },
    "own": {"class": "tests.inference.models.OwnEncoder", "size": 8},
}
OWN = (ENCODERS["own"]["class"],)
FUZZ = settings(max_examples=100)


class OwnEncoder(torch.nn.Module):
    """A user's class, which computes with its weights when it is made."""

    def __init__(self, size, bands=24):
        super().__init__()
        self.linear = torch.nn.Linear(bands, size)
        self.mean = self.linear.weight.mean().item()

    def forward(self, features, lengths=None):
        return self.linear(features).mean(1, keepdim=True)


def make_config(encoder="ecapa", **fields):
    features = {"class": "speechbrain.lobes.features.Fbank", "n_mels": 24}
    features["sample_rate"] = fields.get("sample_rate", RATE)
    normalization = {
        "class": "speechbrain.processing.features.InputNormalization",
        "norm_type": "sentence",
        "std_norm": False,
    }
    config = ModelConfig(features, normalization, ENCODERS[encoder])
    return dataclasses.replace(config, **fields)


def make_model(folder, encoder="ecapa", seed=0, **fields):
    """A model folder; returns its config and its encoder."""
    torch.manual_seed(seed)
    config = make_config(encoder, **fields)
    model = build_modules(config, trusted=OWN)["embedding_model"]
    save_model(folder, config, model.state_dict())
    return config, model


def voice(seed=0, seconds=1.0, rate=RATE):
    """Noise with a color of its own, float32 [time]."""
    generator = np.random.default_rng(seed)
    noise = generator.uniform(-0.5, 0.5, round(seconds * rate))
    smooth = np.convolve(noise, generator.normal(size=8) / 4, "same")
    return smooth.astype(np.float32)


def same(found, expected, atol=1e-6):
    """Asserts that two arrays differ by no more."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
