"""Small models with random weights."""

import torch

from speechbrain_hyperbolic.inference.model import (
    ModelConfig,
    build_modules,
    save_model,
)

ENCODERS = {
    "ecapa": {
        "class": "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
        "input_size": 80,
        "channels": [32, 32, 32, 32, 96],
        "attention_channels": 16,
        "lin_neurons": 24,
    },
    "xvector": {
        "class": "speechbrain.lobes.models.Xvector.Xvector",
        "in_channels": 80,
        "tdnn_channels": [32, 32, 32, 32, 48],
        "lin_neurons": 24,
    },
}


def make_config(encoder="ecapa", sample_rate=16000, features=(), **fields):
    return ModelConfig(
        {
            "class": "speechbrain.lobes.features.Fbank",
            "n_mels": 80,
            "sample_rate": sample_rate,
            **dict(features),
        },
        {
            "class": "speechbrain.processing.features.InputNormalization",
            "norm_type": "sentence",
            "std_norm": False,
        },
        encoder if isinstance(encoder, dict) else ENCODERS[encoder],
        sample_rate=sample_rate,
        **fields,
    )


def write_model(folder, *args, **fields):
    """A model folder whose batch normalization is not the identity."""
    config = make_config(*args, **fields)
    torch.manual_seed(0)
    state = build_modules(config)["embedding_model"].state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand_like(value) + 0.5)
    save_model(folder, config, state)
    return folder
