"""An encoder on the layers of WavLM."""

import os
from typing import Any

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.errors import InputError, requires
from speechbrain_hyperbolic.inference.download import explain_errors


class WavLMEncoder(torch.nn.Module):
    """SpeechBrain's WavLM, a learned mean of its layers, and ECAPA-TDNN.

    It takes waveforms. ``source`` is the name of one of Microsoft's, or a
    folder that ``transformers`` saved; an exported model has all weights, but
    also needs it. ``ecapa`` has arguments of ``ECAPA_TDNN``.

    Source: Chen et al., "WavLM", arXiv 2110.13900.

    Example
    -------
    >>> WavLMEncoder("alice/wavlm", lin_neurons=192)
    Traceback (most recent call last):
    speechbrain_hyperbolic.errors.InputError: source is alice/wavlm, expected \
a folder or a name such as microsoft/wavlm-base-plus
    """

    def __init__(self, source: str, **ecapa: Any) -> None:
        super().__init__()
        # A stranger's model may name any.
        if not (os.path.isdir(source) or source.startswith("microsoft/wavlm-")):
            raise InputError(
                f"source is {source}, expected a folder or a name such as "
                "microsoft/wavlm-base-plus"
            )
        with requires("wavlm", "WavLM"):
            from speechbrain.integrations.huggingface.wavlm import WavLM
        # Models are loaded on "meta", which from_pretrained refuses.
        with explain_errors(f"source {source}"), torch.device("cpu"):
            wavlm = WavLM(source, HF_HUB_CACHE, output_all_hiddens=True)
        config = wavlm.model.config
        config.layerdrop = 0.0  # a process must not lack gradients
        wavlm.model.masked_spec_embed.requires_grad_(False)  # unused
        self.wavlm = wavlm.float()
        self.weights = torch.nn.Parameter(
            torch.zeros(config.num_hidden_layers + 1, 1, 1, 1)
        )
        self.normalize = InputNormalization(
            norm_type="sentence", std_norm=False
        )
        self.ecapa = ECAPA_TDNN(config.hidden_size, **ecapa)

    def forward(
        self, waveforms: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeddings [batch, 1, D] of waveforms [batch, time]."""
        layers = self.wavlm(waveforms)
        features = (self.weights.softmax(0) * layers).sum(0)
        if features.shape[1] < 5:  # of 20 ms, which ECAPA needs
            features = features.repeat(1, 3, 1)
        return self.ecapa(self.normalize(features, lengths), lengths)
