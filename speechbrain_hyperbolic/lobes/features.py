"""Feature processing between the filterbank and the encoder."""

from collections.abc import Sequence

import torch


class MaskedNormalization(torch.nn.Module):
    """Normalizes features and, in training, masks parts of them.

    This puts SpecAugment where the published encoder has it, between the mean
    normalization and the first layer, in a recipe that has no such step.

    Arguments
    ---------
    normalization : torch.nn.Module
        Called with (features, lengths), e.g. the stock InputNormalization.
    masks : list of torch.nn.Module
        Each called with the features, e.g. the stock SpectrogramDrop.

    Example
    -------
    >>> from speechbrain.augment.freq_domain import SpectrogramDrop
    >>> from speechbrain.processing.features import InputNormalization
    >>> normalize = InputNormalization(norm_type="sentence", std_norm=False)
    >>> masked = MaskedNormalization(normalize, [SpectrogramDrop()])
    >>> masked(torch.randn(2, 200, 80), torch.ones(2)).shape
    torch.Size([2, 200, 80])
    """

    def __init__(
        self, normalization: torch.nn.Module, masks: Sequence[torch.nn.Module]
    ) -> None:
        super().__init__()
        self.normalization = normalization
        self.masks = torch.nn.ModuleList(masks)

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Features [batch, frames, bands] of relative lengths in (0, 1]."""
        features = self.normalization(features, lengths)
        if self.training and features.dim() > 2:  # no waveforms
            for mask in self.masks:
                features = mask(features)
        return features
