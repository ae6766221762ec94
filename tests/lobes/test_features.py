"""Masks in training only."""

import torch
from speechbrain.augment.freq_domain import SpectrogramDrop
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.lobes.features import MaskedNormalization


def test_masks_in_training_only():
    torch.manual_seed(0)
    normalization = InputNormalization(norm_type="sentence", std_norm=False)
    masked = MaskedNormalization(
        normalization,
        [
            SpectrogramDrop(10, 11, 1, 1, dim=1),
            SpectrogramDrop(8, 9, 1, 1, dim=2),
        ],
    )
    features, lengths = 1 + torch.rand(20, 200, 80), torch.ones(20)
    plain = normalization(features, lengths)
    out = masked(features, lengths)
    changed = out != plain
    assert (out[changed] == 0).all()
    # A mask that starts near the end is cut by it.
    frames = changed.all(2).sum(1)
    bands = changed.all(1).sum(1)
    assert frames.max() == 10 and bands.max() == 8
    torch.testing.assert_close(masked.eval()(features, lengths), plain)
