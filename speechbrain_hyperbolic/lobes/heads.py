"""Classifier heads: speaker centres, and how embeddings compare with them."""

from collections.abc import Sequence

import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.utils import checkpoints

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.similarity import ClippedDistance, Cosine, Dot
from speechbrain_hyperbolic.nnet.fused import margin_softmax
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.sharded_state import load_module, save_module


class CentreClassifier(Classifier):
    """Similarities to speaker centres.

    A drop-in for ``speechbrain.lobes.models.ECAPA_TDNN.Classifier``: that one
    returns cosines, this one what the similarity says, e.g. -distance, so
    that the stock ``LogSoftmaxWrapper(AngularMargin(margin, scale))`` on top
    of it already is HAM-Softmax. Given the labels and a cost, it returns the
    loss, in one faster step. It computes in float32 at least, under autocast
    too: a bfloat16 product would move the logit of a close pair by several
    units.

    Source: arXiv 2601.19709; sub-centres: Deng et al., "Sub-center ArcFace",
    ECCV 2020.

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
    similarity : torch.nn.Module
        See ``lobes.similarity``; None: cosine.
    sub_centres : int
        Centres of a speaker, of which the most similar counts.
    init_std : float
        Standard deviation of the initial centres; None: the similarity's.

    Raises
    ------
    InputError
        If sub_centres is not a number >= 1.

    Example
    -------
    >>> head = CentreClassifier(input_size=192, out_neurons=10)
    >>> embeddings = torch.randn(4, 1, 192)
    >>> head(embeddings).shape
    torch.Size([4, 1, 10])
    >>> from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
    >>> cost = MarginSoftmax(AdditiveMargin(margin=0.2, scale=30.0))
    >>> head(embeddings, torch.zeros(4, 1), cost).shape
    torch.Size([])
    """

    def __init__(
        self,
        input_size: int,
        device: str = "cpu",
        lin_blocks: int = 0,
        lin_neurons: int = 192,
        out_neurons: int = 1211,
        similarity: Dot | None = None,
        sub_centres: int = 1,
        init_std: float | None = None,
    ) -> None:
        if not (isinstance(sub_centres, int) and sub_centres > 0):
            raise InputError(
                f"sub_centres is {sub_centres}, expected a number >= 1"
            )
        super().__init__(
            input_size,
            lin_blocks=lin_blocks,
            lin_neurons=lin_neurons,
            out_neurons=out_neurons * sub_centres,
        )
        self.similarity = Cosine() if similarity is None else similarity
        self.sub_centres = sub_centres
        if init_std is None:
            init_std = self.similarity.init_std
        if init_std is not None:
            torch.nn.init.normal_(self.weight, std=init_std)
        self.to(device)

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        cost: MarginSoftmax | None = None,
    ) -> torch.Tensor:
        """Compares each embedding with each speaker.

        Arguments
        ---------
        x : torch.Tensor
            Embeddings, shape [batch, 1, input_size].
        targets : torch.Tensor
            Labels, shape [batch, 1]; with ``cost``.
        cost : MarginSoftmax
            None: the similarities are asked for, not the loss.

        Returns
        -------
        outputs : torch.Tensor
            Similarities, shape [batch, 1, out_neurons], or the loss, a
            scalar; float32, or float64 where the embeddings are.
        """
        for block in self.blocks:
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            embeddings = x.squeeze(1).to(dtype)
            centres = self.weight.to(dtype)
            if cost is not None:
                assert targets is not None, "a cost asks for labels"
                return self.loss(embeddings, centres, targets, cost)
            return self.outputs(embeddings, centres).unsqueeze(1)

    def loss(
        self,
        embeddings: torch.Tensor,
        centres: torch.Tensor,
        targets: torch.Tensor,
        cost: MarginSoftmax,
    ) -> torch.Tensor:
        """The mean loss of a batch.

        Arguments
        ---------
        embeddings : torch.Tensor
            After the layers before the centres, shape [batch, D].
        centres : torch.Tensor
            The weight, in the dtype of the embeddings.
        targets : torch.Tensor
            Labels, shape [batch, 1].
        cost : MarginSoftmax

        Returns
        -------
        loss : torch.Tensor
            A scalar.
        """
        return margin_softmax(
            embeddings,
            centres,
            targets,
            self.similarity,
            cost.loss_fn,
            self.sub_centres,
            cost.chunk_size,
        )

    def outputs(
        self, embeddings: torch.Tensor, centres: torch.Tensor
    ) -> torch.Tensor:
        """Similarities to speakers.

        Arguments
        ---------
        embeddings : torch.Tensor
            As for ``loss``.
        centres : torch.Tensor
            As for ``loss``.

        Returns
        -------
        outputs : torch.Tensor
            Shape [batch, out_neurons].
        """
        outputs = self.similarity(embeddings, centres)
        if self.sub_centres > 1:
            outputs = outputs.unflatten(1, (-1, self.sub_centres)).amax(2)
        return outputs

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """From one value for each row of the weight to those of all centres.

        Arguments
        ---------
        values : torch.Tensor
            Shape [N].

        Returns
        -------
        values : torch.Tensor
            The same, but of a head whose centres are spread over processes.
        """
        return values


class HyperbolicClassifier(CentreClassifier):
    """-distance to speaker centres: the head of H-Softmax and HAM-Softmax.

    It is ``CentreClassifier`` with ``ClippedDistance(c)``.

    Arguments
    ---------
    input_size : int
    device : str
    lin_blocks : int
    lin_neurons : int
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
    >>> head(torch.randn(4, 1, 192)).shape
    torch.Size([4, 1, 10])
    """

    def __init__(
        self,
        input_size: int,
        device: str = "cpu",
        lin_blocks: int = 0,
        lin_neurons: int = 192,
        out_neurons: int = 1211,
        c: float = 3.0,
        init_std: float = 1e-3,
    ) -> None:
        super().__init__(
            input_size,
            device,
            lin_blocks,
            lin_neurons,
            out_neurons,
            similarity=ClippedDistance(c),
            init_std=init_std,
        )


class JointClassifier(torch.nn.Module):
    """Several heads on the same embedding, for ``JointLoss``.

    Where one score a speaker is asked for, as by the stock recipe's error
    rate, that of the first head counts.

    Source: E.H. AM-Softmax of arXiv 2601.19709, a hyperbolic and a Euclidean
    head.

    Arguments
    ---------
    heads : list of CentreClassifier
        Of the same speakers.

    Example
    -------
    >>> heads = [HyperbolicClassifier(8, out_neurons=5), CentreClassifier(
    ...     8, out_neurons=5)]
    >>> JointClassifier(heads)(torch.randn(4, 1, 8)).shape
    torch.Size([4, 2, 5])
    """

    def __init__(self, heads: Sequence[CentreClassifier]) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(heads)

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """What DistributedDataParallel asks for: a sharded head refuses."""
        name = "_ddp_params_and_buffers_to_ignore"
        return [key for head in self.heads for key in getattr(head, name, ())]

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        cost: JointLoss | None = None,
    ) -> torch.Tensor:
        """Compares each embedding with each speaker, by each head.

        Arguments
        ---------
        x : torch.Tensor
            Embeddings, shape [batch, 1, input_size].
        targets : torch.Tensor
            Labels, shape [batch, 1]; with ``cost``.
        cost : JointLoss
            None: the similarities are asked for, not the loss.

        Returns
        -------
        outputs : torch.Tensor
            Shape [batch, heads, out_neurons], or the loss, a scalar.
        """
        if cost is None:
            return torch.cat([head(x) for head in self.heads], 1)
        pairs = zip(self.heads, cost.losses, strict=True)
        return cost.total(head(x, targets, loss) for head, loss in pairs)


for _head in (CentreClassifier, JointClassifier):
    checkpoints.DEFAULT_SAVE_HOOKS[_head] = save_module
    checkpoints.DEFAULT_LOAD_HOOKS[_head] = load_module
    checkpoints.DEFAULT_TRANSFER_HOOKS[_head] = load_module


def fuses(classifier: torch.nn.Module, cost: torch.nn.Module) -> bool:
    """Whether a classifier takes labels and this cost, and gives the loss.

    Arguments
    ---------
    classifier : torch.nn.Module
    cost : torch.nn.Module

    Returns
    -------
    fuses : bool

    Example
    -------
    >>> fuses(torch.nn.Linear(2, 3), torch.nn.CrossEntropyLoss())
    False
    """
    if isinstance(classifier, JointClassifier) and isinstance(cost, JointLoss):
        return len(classifier.heads) == len(cost.losses) and all(
            map(fuses, classifier.heads, cost.losses)
        )
    return isinstance(classifier, CentreClassifier) and isinstance(
        cost, MarginSoftmax
    )
