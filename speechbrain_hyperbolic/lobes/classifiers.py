"""Classifier heads: speaker centers, and how embeddings compare with them."""

from collections.abc import Sequence

import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.chunks import chunked_margin_softmax
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.similarity import compare, make_similarity

logger = get_logger(__name__)


class HyperbolicClassifier(Classifier):
    """-distance to speaker centers: the head of H-Softmax and HAM-Softmax.

    A drop-in for ``speechbrain.lobes.models.ECAPA_TDNN.Classifier``: the stock
    ``LogSoftmaxWrapper(AngularMargin(0.2, 30))`` on top of it is HAM-Softmax.
    It computes in float32 (or float64), also under autocast: a bfloat16
    product would move the logit of a close pair by several units.

    Source: arXiv 2601.19709; sub-centers: Deng et al., "Sub-center ArcFace",
    ECCV 2020.

    Arguments
    ---------
    input_size : int
        Dimension of the embedding.
    device : str
        Device of the parameters, e.g. "cpu" or "cuda".
    lin_blocks : int
        Number of batch norm + linear layers before the centers.
    lin_neurons : int
        Number of neurons of these layers.
    out_neurons : int
        Number of speakers.
    map : str
        "clip" (published); "exponential", the distance in the space of
        curvature -kappa; "smooth_cap", a radius with a gradient everywhere;
        "cosine", the stock classifier; "inner_product", the plain softmax.
        Each ignores the arguments of the others.
    c : float
        For "clip": caps the norm at 1/sqrt(c), >= 1. Published: 3 for
        HAM-Softmax, 5 for H-Softmax. It is not a curvature, see ``geometry``.
    curvature : float
        For "exponential": kappa, the absolute value, > 0.
    learn_curvature : bool
        For "exponential": whether kappa is learned, within a factor of 10.
    cap : float
        For "smooth_cap": the largest radius, > 0 and at most 14.
    embedding_scale : float
        For the hyperbolic maps: factor of the embeddings before the map, > 0.
    learn_scale : bool
        For the hyperbolic maps: whether that is learned, within a factor of
        10.
    sub_centers : int
        Centers of each speaker, of which the most similar one counts.
    init_std : float
        Standard deviation of the initial centers. None: 1e-3 as published,
        or Xavier's for "cosine" and "inner_product".

    Example
    -------
    >>> from speechbrain.nnet.losses import AngularMargin, LogSoftmaxWrapper
    >>> head = HyperbolicClassifier(input_size=192, out_neurons=10)
    >>> outputs = head(torch.randn(4, 1, 192))
    >>> outputs.shape
    torch.Size([4, 1, 10])
    >>> ham_softmax = LogSoftmaxWrapper(AngularMargin(margin=0.2, scale=30))
    >>> ham_softmax(outputs, torch.zeros(4, 1)).shape
    torch.Size([])
    """

    def __init__(
        self,
        input_size: int,
        device: str = "cpu",
        lin_blocks: int = 0,
        lin_neurons: int = 192,
        out_neurons: int = 1211,
        map: str = "clip",
        c: float = 3.0,
        curvature: float = 1.0,
        learn_curvature: bool = False,
        cap: float = 2.3,
        embedding_scale: float = 1.0,
        learn_scale: bool = False,
        sub_centers: int = 1,
        init_std: float | None = None,
    ) -> None:
        if not isinstance(device, (str, torch.device)):
            raise InputError(
                f"device is {device!r}, expected a name such as 'cpu' or "
                "'cuda': pass the number of speakers as out_neurons=..."
            )
        if not (isinstance(sub_centers, int) and sub_centers > 0):
            raise InputError(
                f"sub_centers is {sub_centers!r}, expected an integer >= 1"
            )
        super().__init__(
            input_size,
            lin_blocks=lin_blocks,
            lin_neurons=lin_neurons,
            out_neurons=out_neurons * sub_centers,
        )
        self.similarity = make_similarity(
            map,
            c=c,
            curvature=curvature,
            learn_curvature=learn_curvature,
            cap=cap,
            embedding_scale=embedding_scale,
            learn_scale=learn_scale,
        )
        self.sub_centers = sub_centers
        self._targets: _Targets | None = _Targets()
        if init_std is None:
            init_std = getattr(self.similarity, "init_std", None)
        if init_std is not None:
            torch.nn.init.normal_(self.weight, std=init_std)
        self.to(device)

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        cost: torch.nn.Module | None = None,
    ) -> torch.Tensor:
        """Similarities [batch, 1, out_neurons] of embeddings [batch, 1, D].

        Embeddings [batch, D] give [batch, out_neurons]. Given targets [batch]
        or [batch, 1] and a cost, it returns the loss, which a ``MarginSoftmax``
        with a ``chunk_size`` computes by chunks of classes.
        """
        for block in self.blocks:
            x = block(x)
        size = self.weight.shape[1]
        if x.dim() not in (2, 3) or x.shape[-1] != size:
            raise InputError(
                f"the embeddings have shape {tuple(x.shape)}, expected "
                f"[batch, {size}] or [batch, 1, {size}]"
            )
        dtype = torch.promote_types(x.dtype, torch.float32)
        embeddings = x.flatten(0, -2).to(dtype)
        centers = self.weight.to(dtype).unflatten(0, (-1, self.sub_centers))
        if isinstance(cost, MarginSoftmax) and cost.chunk_size is not None:
            assert targets is not None, "a cost needs targets"
            return chunked_margin_softmax(
                embeddings,
                centers,
                targets,
                self.similarity,
                cost.loss_fn,
                cost.chunk_size,
            )
        outputs = compare(self.similarity, embeddings, centers)
        outputs = outputs.unflatten(0, x.shape[:-1])
        watched = self.training and outputs.requires_grad
        if self._targets and watched and not torch.compiler.is_compiling():
            outputs.register_hook(self._targets.note)
        return outputs if cost is None else cost(outputs, targets)

    def train(self, mode: bool = True) -> "HyperbolicClassifier":
        """As any module's; after the first epoch it checks out_neurons."""
        if not mode and self._targets and self._targets.noted:
            self._targets.warn()
            self._targets = None
        return super().train(mode)


class _Targets:
    """Which outputs have been a target, by the signs of their gradients.

    The stock script shows the labels to the loss only. The device is read
    once, after the first epoch.
    """

    lowest: torch.Tensor  # gradient of each output
    highest: torch.Tensor  # of the rows' lowest ones; 0 where a loss is 0
    noted = False

    def note(self, gradient: torch.Tensor) -> None:
        """Notes the targets of a batch in its backward pass."""
        gradient = gradient.flatten(0, -2)
        lowest, highest = gradient.amin(0), gradient.amin(1).amax()
        if self.noted:
            lowest = lowest.fmin(self.lowest.to(lowest.device))
            highest = highest.fmax(self.highest.to(lowest.device))
        self.lowest, self.highest, self.noted = lowest, highest, True

    def warn(self) -> None:
        """Says so if most outputs are no speaker's."""
        count, classes = int((self.lowest < 0).sum()), len(self.lowest)
        if 2 * count < classes and self.highest < 0:
            logger.warning(
                f"{count} of {classes} outputs had an utterance in this epoch: "
                "out_neurons must be the number of training speakers, see "
                "out_n_neurons in the hparams file"
            )


class JointClassifier(torch.nn.Module):
    """Several heads on the same embedding, for ``JointLoss``.

    Where one score per speaker is needed, as by the stock recipe's error rate,
    the first head's counts.

    Source: E.H. AM-Softmax of arXiv 2601.19709, a hyperbolic and a Euclidean
    head.

    Arguments
    ---------
    heads : list of HyperbolicClassifier
        Classifiers of the same speakers.

    Example
    -------
    >>> heads = [
    ...     HyperbolicClassifier(8, out_neurons=5),
    ...     HyperbolicClassifier(8, out_neurons=5, map="cosine"),
    ... ]
    >>> JointClassifier(heads)(torch.randn(4, 1, 8)).shape
    torch.Size([4, 2, 5])
    """

    def __init__(self, heads: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(heads)

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        cost: JointLoss | None = None,
    ) -> torch.Tensor:
        """Similarities [batch, heads, out_neurons], or a cost's loss."""
        if x.dim() == 2:
            x = x.unsqueeze(1)
        if cost is None:
            return torch.cat([head(x) for head in self.heads], 1)
        pairs = zip(self.heads, cost.losses, strict=True)
        return cost.total(head(x, targets, loss) for head, loss in pairs)


def keep_centers(
    classifier: torch.nn.Module,
    state: dict[str, torch.Tensor],
    trained: Sequence[str],
    speakers: Sequence[str],
) -> None:
    """Makes the trained speakers' state one of ``speakers``, by their names.

    Those who are new have the centers that the classifier has.
    """
    row_of = {name: row for row, name in enumerate(trained)}
    kept = [row for row, name in enumerate(speakers) if name in row_of]
    old = [row_of[speakers[row]] for row in kept]
    heads = {
        f"{name}.weight".removeprefix("."): head
        for name, head in classifier.named_modules()
        if isinstance(head, Classifier)
    }
    if not heads and trained != speakers:
        name = type(classifier).__name__
        raise InputError(f"{name} can't take centers of other speakers")
    for key, head in heads.items():
        each = getattr(head, "sub_centers", 1)
        found = tuple(getattr(state.get(key), "shape", ()))
        expected = (each * len(trained), head.weight.shape[1])
        if found != expected:
            raise InputError(
                f"the trained centers have shape {found}, expected {expected} "
                f"for {len(trained)} speakers: pass the options of the training"
            )
        centers = head.weight.detach().cpu().unflatten(0, (-1, each)).clone()
        centers[kept] = state[key].unflatten(0, (-1, each))[old]
        state[key] = centers.flatten(0, 1)
    logger.info(
        f"classifier: {len(kept)} centers kept, {len(speakers) - len(kept)} "
        f"new, {len(trained) - len(kept)} left out"
    )
