"""Softmax losses on a classifier's outputs, with gradients in closed form."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.nnet.similarity import InnerProduct


class MarginSoftmax(torch.nn.Module):
    """Softmax cross entropy of the logits that a margin makes.

    It gives what the stock ``LogSoftmaxWrapper(loss_fn)`` gives, in float32 and
    without one-hot targets, and never waits for a GPU.

    Arguments
    ---------
    loss_fn : AdditiveMargin
        Or another margin of ``nnet.margins``.
    chunk_size : int
        For very many classes: how many are computed at a time, so that there
        is never a [batch, classes] matrix. Then the classifier is called with
        the targets and this cost, see ``HyperbolicClassifier``. None: all.

    Raises
    ------
    InputError
        If there is not one label for each row or, on the CPU, one is outside
        [0, classes). On a GPU, PyTorch's own check fails.

    Example
    -------
    >>> from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
    >>> loss = MarginSoftmax(AdditiveMargin(margin=0.2, scale=30.0))
    >>> outputs = torch.tensor([[[-0.1, -2.0]], [[-2.0, -0.1]]])
    >>> loss(outputs, torch.tensor([[0], [1]])) < 1e-3
    tensor(True)
    """

    def __init__(
        self, loss_fn: AdditiveMargin, chunk_size: int | None = None
    ) -> None:
        super().__init__()
        if not isinstance(loss_fn, AdditiveMargin):
            raise InputError(
                f"loss_fn is {loss_fn}, expected a margin of nnet.margins; "
                "others work in SpeechBrain's LogSoftmaxWrapper"
            )
        if chunk_size is not None and not (
            isinstance(chunk_size, int) and chunk_size > 0
        ):
            raise InputError(
                f"chunk_size is {chunk_size}, expected a number of classes "
                "> 0, or null for all"
            )
        self.loss_fn = loss_fn
        self.chunk_size = chunk_size

    def forward(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        length: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean loss of outputs [batch, 1, classes] or [batch, classes].

        The targets are labels in [0, classes), [batch, 1] or [batch]; the
        length, which the stock recipe passes, is not used.
        """
        if outputs.dim() == 3:
            outputs = outputs.squeeze(1)
        targets = as_column(targets, len(outputs))
        self.loss_fn.count_use(outputs)
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        outputs = outputs.to(dtype)
        try:
            return _MarginSoftmax.apply(outputs, targets, self.loss_fn)
        except (IndexError, RuntimeError):
            explain_labels(targets, outputs.shape[1])
            raise


class JointLoss(torch.nn.Module):
    """Weighted sum of losses, one for each head of a ``JointClassifier``.

    Source: E.H. AM-Softmax of arXiv 2601.19709, 0.7 HAM + 0.3 RAM.

    Arguments
    ---------
    losses : list of torch.nn.Module
        Called with outputs [batch, 1, classes] and the targets.
    weights : list of float
        One for each, >= 0.

    Raises
    ------
    InputError
        If there is not one finite weight >= 0 for each loss.

    Example
    -------
    >>> from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
    >>> ham = MarginSoftmax(AdditiveMargin())
    >>> loss = JointLoss([ham, ham], [0.7, 0.3])
    >>> outputs = -torch.rand(4, 2, 10)
    >>> loss(outputs, torch.zeros(4, 1)).shape
    torch.Size([])
    """

    def __init__(
        self, losses: Sequence[torch.nn.Module], weights: Sequence[float]
    ) -> None:
        super().__init__()
        if len(losses) != len(weights) or not all(
            is_finite(weight) and weight >= 0 for weight in weights
        ):
            raise InputError(
                f"weights are {weights}, expected a finite number >= 0 for "
                f"each of {len(losses)} losses"
            )
        self.losses = torch.nn.ModuleList(losses)
        self.weights = list(weights)

    @property
    def chunk_size(self) -> int | None:
        """That of a chunked loss among them, or None."""
        sizes = [getattr(loss, "chunk_size", None) for loss in self.losses]
        return next((size for size in sizes if size), None)

    def forward(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        length: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean loss of outputs [batch, heads, classes]."""
        if outputs.dim() != 3 or outputs.shape[1] != len(self.losses):
            raise InputError(
                f"the outputs have shape {tuple(outputs.shape)}, expected "
                f"[batch, {len(self.losses)}, classes]: one head for each loss"
            )
        if targets.dim() == 1:
            targets = targets.unsqueeze(1)  # as stock losses need them
        heads = outputs.split(1, dim=1)
        pairs = zip(self.losses, heads, strict=True)
        return self.total(loss(head, targets) for loss, head in pairs)

    def total(self, values: Iterable[torch.Tensor]) -> torch.Tensor:
        """The weighted sum of the losses' values."""
        pairs = zip(self.weights, values, strict=True)
        return torch.stack([weight * value for weight, value in pairs]).sum()


def as_column(targets: torch.Tensor, batch: int) -> torch.Tensor:
    """Returns labels [batch] or [batch, 1] as int64 [batch, 1].

    >>> as_column(torch.tensor([2.0]), batch=1)
    tensor([[2]])
    """
    if batch == 0 or targets.shape not in ((batch,), (batch, 1)):
        raise InputError(
            f"the targets have shape {tuple(targets.shape)}, expected "
            f"({batch},) or ({batch}, 1): a label for each row of the outputs, "
            "and at least one row"
        )
    return targets.long().reshape(batch, 1)


def explain_labels(targets: torch.Tensor, classes: int) -> None:
    """Raises InputError if a label is no class, which indexing refuses.

    It is called only then, since reading labels would wait for a GPU.
    """
    if targets.device.type != "cpu":
        return  # after such an error, nothing can be read
    low, high = (int(value) for value in targets.aminmax())
    if low < 0 or high >= classes:
        raise InputError(
            f"label {low if low < 0 else high} is outside [0, {classes}): "
            "out_n_neurons must be the number of training speakers"
        )


class _Special(NamedTuple):
    """The logits that are not scale * output; the target's comes first."""

    classes: torch.Tensor  # [batch, 1 + top_k]
    logits: torch.Tensor  # likewise
    slopes: torch.Tensor | None  # by the outputs, over the scale; None: 1


def _special(
    loss_fn: AdditiveMargin,
    targets: torch.Tensor,
    outputs: torch.Tensor,
    hardest: Sequence[torch.Tensor] | None,
) -> _Special:
    """From the targets' outputs, and the hardest others' with classes."""
    values, slopes = loss_fn.on_target(outputs)
    if hardest is not None:
        others, classes = hardest
        more, more_slopes = loss_fn.on_hardest(others)
        targets = torch.cat([targets, classes], 1)
        values = torch.cat([values, more], 1)
        if slopes is not None and more_slopes is not None:
            slopes = torch.cat([slopes, more_slopes], 1)
    return _Special(targets, loss_fn.scale * values, slopes)


def _logits(
    outputs: torch.Tensor,
    columns: torch.Tensor,
    special: _Special,
    loss_fn: AdditiveMargin,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits of outputs [batch, n], and which of them a real margin ignores."""
    logits = outputs * loss_fn.scale
    logits.scatter_(1, columns, special.logits)
    if not loss_fn.real:
        return logits, None
    ignored = logits < special.logits[:, :1]
    return logits.masked_fill_(ignored, 0), ignored


def _slopes(
    probabilities: torch.Tensor,
    columns: torch.Tensor,
    special: _Special,
    ignored: torch.Tensor | None,
    factor: torch.Tensor,
) -> torch.Tensor:
    """The factor times the derivatives of the summed loss by the outputs."""
    slopes = probabilities * factor
    if ignored is not None:
        slopes.masked_fill_(ignored, 0)
    those = slopes.gather(1, columns)
    those[:, :1].sub_(factor)
    if special.slopes is not None:
        those *= special.slopes
    return slopes.scatter_(1, columns, those)


class _MarginSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        loss_fn: AdditiveMargin,
    ) -> torch.Tensor:
        hardest = None
        if loss_fn.top_k:
            others = outputs.scatter(1, targets, -math.inf)
            count = min(loss_fn.top_k, outputs.shape[1] - 1)
            hardest = others.topk(count)
        target = outputs.gather(1, targets)
        special = _special(loss_fn, targets, target, hardest)
        logits, ignored = _logits(outputs, special.classes, special, loss_fn)
        probabilities = logits.softmax(1)
        # log(p) = logit - log_total also holds for the highest logit.
        log_total = logits.amax(1) - probabilities.amax(1).log()
        ctx.factor = loss_fn.scale / len(outputs)
        ctx.save_for_backward(probabilities, ignored, *special)
        return (log_total - special.logits[:, 0]).mean()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        probabilities, ignored, *saved = ctx.saved_tensors
        special, factor = _Special(*saved), gradient * ctx.factor
        columns = special.classes
        slopes = _slopes(probabilities, columns, special, ignored, factor)
        return slopes, None, None


# Very many classes


def chunked_margin_softmax(
    embeddings: torch.Tensor,
    centers: torch.Tensor,
    targets: torch.Tensor,
    similarity: InnerProduct,
    loss_fn: AdditiveMargin,
    chunk_size: int,
    sub_centers: int = 1,
) -> torch.Tensor:
    """``MarginSoftmax`` of similarities, without a [batch, classes] matrix.

    They are computed by chunks of classes, twice: for the sum of the softmax
    and for the gradients. The centers are [classes * sub_centers, D], those of
    a class together, of which the most similar counts.

    >>> from speechbrain_hyperbolic.nnet.similarity import ClippedDistance
    >>> chunked_margin_softmax(
    ...     torch.randn(4, 192), torch.randn(10, 192), torch.zeros(4),
    ...     ClippedDistance(c=3.0), AdditiveMargin(), chunk_size=4,
    ... ).shape
    torch.Size([])
    """
    if loss_fn.top_k:
        raise InputError(
            f"top_k is {loss_fn.top_k}, expected 0 with a chunk_size: the "
            "hardest speakers of all chunks are not known in one pass"
        )
    by_class = centers.unflatten(0, (-1, sub_centers))
    targets = as_column(targets, len(embeddings))
    loss_fn.count_use(embeddings)
    try:
        return _ChunkedMarginSoftmax.apply(
            embeddings,
            by_class,
            targets,
            loss_fn,
            similarity,
            chunk_size,
            *similarity.parameters(),
        )
    except (IndexError, RuntimeError):
        explain_labels(targets, len(by_class))
        raise


def best_of(outputs: torch.Tensor, sub_centers: int) -> torch.Tensor:
    """From outputs [N, classes * sub_centers] to the best of each class."""
    if sub_centers == 1:
        return outputs
    return outputs.unflatten(1, (-1, sub_centers)).amax(2)


def _compare(
    similarity: InnerProduct, x: torch.Tensor, centers: torch.Tensor
) -> torch.Tensor:
    """Outputs [N, M] of x [N, D] and centers [M, sub_centers, D]."""
    return best_of(similarity(x, centers.flatten(0, 1)), centers.shape[1])


def _chunk_logits(
    outputs: torch.Tensor,
    first: int,
    special: _Special,
    loss_fn: AdditiveMargin,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Logits of classes from first on, the targets' columns, what is ignored.

    A last column is none of the classes: it takes the targets of other chunks,
    so that no shape depends on the labels.
    """
    width = outputs.shape[1]
    columns = special.classes - first
    columns = columns.masked_fill((columns < 0) | (columns >= width), width)
    padded = torch.nn.functional.pad(outputs, (0, 1))
    logits, ignored = _logits(padded, columns, special, loss_fn)
    logits[:, -1] = -math.inf
    return logits, columns, ignored


class _ChunkedMarginSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        centers: torch.Tensor,
        targets: torch.Tensor,
        loss_fn: AdditiveMargin,
        similarity: InnerProduct,
        chunk_size: int,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        theirs = centers.index_select(0, targets.squeeze(1))
        target = _compare(similarity, x, theirs).diagonal().unsqueeze(1)
        special = _special(loss_fn, targets, target, None)
        log_total = torch.full_like(target, -math.inf)
        for number, part in enumerate(centers.split(chunk_size)):
            outputs = _compare(similarity, x, part)
            first = number * chunk_size
            logits, *_ = _chunk_logits(outputs, first, special, loss_fn)
            here = logits.logsumexp(1, keepdim=True)
            log_total = torch.logaddexp(log_total, here)
        ctx.options = loss_fn, similarity, chunk_size
        ctx.save_for_backward(x, centers, log_total, *special)
        return (log_total - special.logits).mean()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        x, centers, log_total, *saved = ctx.saved_tensors
        loss_fn, similarity, chunk_size = ctx.options
        special, factor = _Special(*saved), gradient * loss_fn.scale / len(x)
        inputs = [x.detach().requires_grad_(), *similarity.parameters()]
        by_inputs = [torch.zeros_like(v) for v in inputs]
        by_centers = torch.empty_like(centers)
        for number, part in enumerate(centers.split(chunk_size)):
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                outputs = _compare(similarity, inputs[0], part)
            first = number * chunk_size
            logits, columns, ignored = _chunk_logits(
                outputs.detach(), first, special, loss_fn
            )
            probabilities = logits.sub_(log_total).exp_()
            slopes = _slopes(probabilities, columns, special, ignored, factor)
            by_part, *more = torch.autograd.grad(
                outputs, [part, *inputs], slopes[:, :-1]
            )
            by_centers[first : first + chunk_size] = by_part
            for total, found in zip(by_inputs, more, strict=True):
                total += found
        by_x, *by_parameters = by_inputs
        return by_x, by_centers, *(None,) * 4, *by_parameters
