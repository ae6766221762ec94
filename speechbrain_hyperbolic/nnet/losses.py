"""Softmax losses on a classifier's outputs, with gradients in closed form."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import nll_loss

from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin


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
        If an argument is of another kind, if there is not one label for each
        row or, on the CPU, one is outside [0, classes). On a GPU, PyTorch's own
        check fails.

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
        known = isinstance(chunk_size, int) and chunk_size > 0
        if chunk_size is not None and not known:
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
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        outputs = outputs.to(dtype)
        try:
            return _MarginSoftmax.apply(outputs, targets, self.loss_fn)
        except (IndexError, RuntimeError):
            explain_labels(targets, outputs.shape[1])
            raise


class _MarginSoftmax(torch.autograd.Function):
    """The mean of log(sum_j exp(z_j)) - z_target over logits z."""

    @staticmethod
    def forward(
        ctx: Any,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        loss_fn: AdditiveMargin,
    ) -> torch.Tensor:
        changed = loss_fn.change(outputs, targets)
        logits, ignored = loss_fn.logits(outputs, changed)
        log_p = logits.log_softmax(1)
        loss = nll_loss(log_p, targets.squeeze(1))
        # The gradient, but for a common factor: the probabilities, less 1 for
        # the target, times the slopes where the margin changed the outputs
        rows = log_p.exp_()
        if ignored is not None:
            rows.masked_fill_(ignored, 0)
        own = rows.gather(1, changed.classes)
        own[:, :1].sub_(1)
        if changed.slopes is not None:
            own.mul_(changed.slopes)
        ctx.factor = loss_fn.scale / len(outputs)
        ctx.save_for_backward(rows.scatter_(1, changed.classes, own))
        return loss

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        return rows * (gradient * ctx.factor), None, None


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
        If there is not one finite weight >= 0 or not one head for each loss.

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
    """Labels [batch] or [batch, 1] as int64 [batch, 1]."""
    if batch == 0 or targets.shape not in ((batch,), (batch, 1)):
        raise InputError(
            f"the targets have shape {tuple(targets.shape)}, expected "
            f"({batch},) or ({batch}, 1): a label for each row of the outputs, "
            "and at least one row"
        )
    return targets.long().reshape(batch, 1)


def explain_labels(targets: torch.Tensor, classes: int) -> None:
    """Raises InputError if a label is what an indexing has refused."""
    if targets.device.type != "cpu":
        return  # after such an error, nothing can be read
    low, high = (int(value) for value in targets.aminmax())
    if low < 0 or high >= classes:
        raise InputError(
            f"label {low if low < 0 else high} is outside [0, {classes}): "
            "out_n_neurons must be the number of training speakers"
        )
