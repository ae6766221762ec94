"""Classifier heads: speaker centres in hyperbolic space."""

import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier

from speechbrain_hyperbolic.geometry import (
    check_c,
    clip_to_ball,
    pairwise_distance,
)


class HyperbolicClassifier(Classifier):
    """Hyperbolic distances to speaker centres, negated: the head of
    H-Softmax and HAM-Softmax.

    A drop-in for ``speechbrain.lobes.models.ECAPA_TDNN.Classifier``: where
    that one returns cosines, this one returns -distance, so that the stock
    ``LogSoftmaxWrapper(AngularMargin(margin, scale))`` on top of it already
    is HAM-Softmax. It computes in float32 at least, under autocast too: a
    bfloat16 product would move the logit of a close pair by several units.

    Source: arXiv 2601.19709; the distance is that of ``geometry``.

    Arguments
    ---------
    input_size : int
        Dimension of the embedding.
    device : str
        Device of the parameters, e.g. "cpu" or "cuda".
    lin_blocks : int
        Number of batch norm + linear layers before the centres.
    lin_neurons : int
        Number of neurons of these layers.
    out_neurons : int
        Number of speakers.
    c : float
        Caps the norm at 1/sqrt(c): at least 1. Published: 3 for HAM-Softmax,
        5 for H-Softmax. It is not a curvature, see ``geometry``.
    init_std : float
        Standard deviation of the initial centres, published: 1e-3.

    Example
    -------
    >>> head = HyperbolicClassifier(input_size=192, out_neurons=10, c=3.0)
    >>> outputs = head(torch.randn(4, 1, 192))
    >>> outputs.shape
    torch.Size([4, 1, 10])
    """

    def __init__(
        self,
        input_size,
        device="cpu",
        lin_blocks=0,
        lin_neurons=192,
        out_neurons=1211,
        c=3.0,
        init_std=1e-3,
    ):
        super().__init__(
            input_size,
            lin_blocks=lin_blocks,
            lin_neurons=lin_neurons,
            out_neurons=out_neurons,
        )
        self.c = check_c(c)
        torch.nn.init.normal_(self.weight, std=init_std)
        self.to(device)

    def forward(self, x):
        """Scores each embedding against each speaker centre.

        Arguments
        ---------
        x : torch.Tensor
            Embeddings, shape [batch, 1, input_size].

        Returns
        -------
        outputs : torch.Tensor
            -distance, shape [batch, 1, out_neurons]; float32, or float64
            where the embeddings are.
        """
        for block in self.blocks:
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            points = clip_to_ball(x.squeeze(1).to(dtype), self.c)
            centres = clip_to_ball(self.weight.to(dtype), self.c)
            return -pairwise_distance(points, centres).unsqueeze(1)
