"""Softmax losses on the outputs of a classifier head, in closed form."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.geometry import refuse_second_derivative
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin

if TYPE_CHECKING:  # it imports this module
    from speechbrain_hyperbolic.nnet.sharded import Shard


class MarginSoftmax(torch.nn.Module):
    """Softmax cross entropy of the logits that a margin makes.

    It gives what the stock ``LogSoftmaxWrapper(loss_fn)`` gives, without its
    one-hot targets, with the gradient in closed form, and checks the labels.
    ``CentreClassifier`` takes it too, to go from embeddings to the loss in one
    faster step.

    Arguments
    ---------
    loss_fn : AdditiveMargin
        Or one of its kind, see ``nnet.margins``.
    chunk_size : int
        For very many classes: how many are worked on at a time, in that one
        step, so that there is never a [batch, classes] matrix. It takes one
        matrix product more. None: all.

    Raises
    ------
    InputError
        If a label is outside [0, classes), or there is not one for each row.

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
        if not hasattr(loss_fn, "on_target"):
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
        """Mean loss of a batch.

        Arguments
        ---------
        outputs : torch.Tensor
            Scores of the classes, shape [batch, 1, classes].
        targets : torch.Tensor
            Labels in [0, classes), shape [batch, 1].
        length : torch.Tensor
            Not used; the stock recipe passes it.

        Returns
        -------
        loss : torch.Tensor
            A scalar.
        """
        outputs = outputs.squeeze(1)
        targets = check_targets(targets, len(outputs), outputs.shape[-1])
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        loss = _MarginCrossEntropy.apply(
            outputs.to(dtype), targets, self.loss_fn
        )
        if loss.requires_grad:
            self.loss_fn.step()
        return loss


class JointLoss(torch.nn.Module):
    """Weighted sum of losses, one for each head of a ``JointClassifier``.

    Source: E.H. AM-Softmax of arXiv 2601.19709, 0.7 HAM + 0.3 RAM.

    Arguments
    ---------
    losses : list of torch.nn.Module
        Called with outputs [batch, 1, classes] and targets [batch, 1].
    weights : list of float
        One for each.

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

    def forward(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        length: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean loss of a batch.

        Arguments
        ---------
        outputs : torch.Tensor
            Shape [batch, heads, classes].
        targets : torch.Tensor
            Labels in [0, classes), shape [batch, 1].
        length : torch.Tensor
            Not used; the stock recipe passes it.

        Returns
        -------
        loss : torch.Tensor
            A scalar.
        """
        if outputs.shape[1] != len(self.losses):
            raise InputError(
                f"there are {outputs.shape[1]} heads for {len(self.losses)} "
                "losses: expected one loss for each head"
            )
        heads = outputs.split(1, dim=1)
        return self.total(
            loss(head, targets)
            for loss, head in zip(self.losses, heads, strict=True)
        )

    def total(self, values: Iterable[torch.Tensor]) -> torch.Tensor:
        """The weighted sum.

        Arguments
        ---------
        values : iterable of torch.Tensor
            Of the losses.

        Returns
        -------
        total : torch.Tensor
        """
        pairs = zip(self.weights, values, strict=True)
        total = sum(weight * value for weight, value in pairs)
        return total  # type: ignore[return-value]


class MarginLogits:
    """The logits of a batch, written in place of its outputs.

    All but a few are scale * output: those of the targets and of the hardest
    others are known beforehand. Classes may come in chunks.

    Arguments
    ---------
    loss_fn : AdditiveMargin
    targets : torch.Tensor
        Shape [batch, 1].
    outputs : torch.Tensor
        Of the targets, shape [batch, 1].
    hardest : tuple of torch.Tensor
        Outputs and classes of the hardest others, both [batch, top_k]; None
        where there is no penalty.
    """

    def __init__(
        self,
        loss_fn: AdditiveMargin,
        targets: torch.Tensor,
        outputs: torch.Tensor,
        hardest: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        self.scale, self.real = loss_fn.scale, loss_fn.real
        self.whole: torch.Tensor | None = None
        self.places = targets
        values, slopes = loss_fn.on_target(outputs)
        self.target = self.scale * values
        self.special = self.target
        self.slopes = slopes
        if hardest is not None:
            values, slopes = loss_fn.on_hardest(hardest[0])
            self.special = torch.cat([self.target, self.scale * values], 1)
            self.places = torch.cat([targets, hardest[1]], 1)
            if self.slopes is not None and slopes is not None:
                self.slopes = torch.cat([self.slopes, slopes], 1)

    def write(
        self, outputs: torch.Tensor, first: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Makes logits of the outputs of classes first, first + 1, ...

        Arguments
        ---------
        outputs : torch.Tensor
            Shape [batch, n], overwritten.
        first : int
            The class of the first column; None: these are all classes.

        Returns
        -------
        logits : torch.Tensor
            The same memory.
        ignored : torch.Tensor
            Booleans, shape [batch, n]: what has no gradient; None: nothing.
        """
        logits = outputs.mul_(self.scale)
        index, inside = self._index(logits, first)
        logits.view(-1).scatter_(0, index, _at(self.special, inside))
        if not self.real:
            return logits, None
        ignored = logits < self.target
        return logits.masked_fill_(ignored, 0), ignored

    def differentiate(
        self,
        probabilities: torch.Tensor,
        ignored: torch.Tensor | None,
        factor: float,
        first: int | None = None,
    ) -> torch.Tensor:
        """From probabilities to the slopes of the loss by the outputs.

        Arguments
        ---------
        probabilities : torch.Tensor
            Times ``factor``; shape [batch, n], overwritten.
        ignored : torch.Tensor
            What ``write`` returned.
        factor : float
            scale / batch.
        first : int
            As for ``write``.

        Returns
        -------
        slopes : torch.Tensor
            The same memory.
        """
        if ignored is not None:
            probabilities.masked_fill_(ignored, 0)
        index, inside = self._index(probabilities, first)
        slopes = probabilities.take(index)
        hit = torch.zeros_like(self.special)
        hit[:, 0] = factor
        slopes -= _at(hit, inside)
        if self.slopes is not None:
            slopes *= _at(self.slopes, inside)
        probabilities.view(-1).scatter_(0, index, slopes)
        return probabilities

    def _index(
        self, block: torch.Tensor, first: int | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Where the special logits are in a block, and which these are."""
        if first is None and self.whole is not None:
            return self.whole, None
        batch, width = block.shape
        rows = torch.arange(0, batch * width, width, device=block.device)
        columns = self.places if first is None else self.places - first
        index = rows.unsqueeze(1) + columns
        if first is None:
            self.whole = index.view(-1)
            return self.whole, None
        inside = (columns >= 0) & (columns < width)
        return index[inside], inside


def _at(values: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
    return values.reshape(-1) if inside is None else values[inside]


def hardest_others(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    top_k: int,
    first: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The highest outputs of other classes than the target.

    Arguments
    ---------
    outputs : torch.Tensor
        Shape [batch, n].
    targets : torch.Tensor
        Shape [batch, 1].
    top_k : int
    first : int
        The class of the first column; None: these are all classes.

    Returns
    -------
    outputs, classes : torch.Tensor
        Shape [batch, at most top_k]; None where there are none.

    Example
    -------
    >>> hardest_others(torch.tensor([[0.3, 0.2, 0.1]]), torch.zeros(1, 1), 1)
    (tensor([[0.2000]]), tensor([[1]]))
    """
    width = outputs.shape[1]
    columns = torch.arange(width, device=outputs.device) + (first or 0)
    others = outputs.masked_fill(columns == targets, -torch.inf)
    # One class may be the target.
    k = min(top_k, width - (first is None))
    if k == 0:
        return None
    values, places = others.topk(k)
    return values, places + (first or 0)


def margin_cross_entropy(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    loss_fn: AdditiveMargin,
    shard: "Shard | None" = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss, and its slopes in place of the outputs.

    Arguments
    ---------
    outputs : torch.Tensor
        Shape [batch, classes], overwritten.
    targets : torch.Tensor
        Shape [batch, 1].
    loss_fn : AdditiveMargin
    shard : nnet.sharded.Shard
        The classes that these outputs are of; None: all.

    Returns
    -------
    loss : torch.Tensor
        A scalar.
    slopes : torch.Tensor
        Of the loss by the outputs, in their memory.
    """
    first = None if shard is None else shard.first
    hardest = None
    if loss_fn.top_k:
        hardest = hardest_others(outputs, targets, loss_fn.top_k, first)
    if shard is None:
        of_target = outputs.gather(1, targets)
    else:
        of_target = shard.of_targets(outputs, targets)
        hardest = shard.hardest(hardest, loss_fn.top_k)
    plan = MarginLogits(loss_fn, targets, of_target, hardest)
    logits, ignored = plan.write(outputs, first)
    top = logits.amax(1, keepdim=True)
    if shard is not None:
        top = shard.highest(top)
    exponentials = logits.sub_(top).exp_()
    total = exponentials.sum(1, keepdim=True)
    if shard is not None:
        total = shard.sum(total)
    loss = (total.log() + (top - plan.target)).mean()
    factor = loss_fn.scale / len(targets)
    probabilities = exponentials.mul_(factor / total)
    return loss, plan.differentiate(probabilities, ignored, factor, first)


class _MarginCrossEntropy(torch.autograd.Function):
    """``margin_cross_entropy`` of outputs that are not to be overwritten."""

    @staticmethod
    def forward(
        ctx: Any,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        loss_fn: AdditiveMargin,
    ) -> torch.Tensor:
        loss, slopes = margin_cross_entropy(outputs.clone(), targets, loss_fn)
        ctx.save_for_backward(slopes)
        return loss

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        refuse_second_derivative()
        (slopes,) = ctx.saved_tensors
        return slopes * gradient, None, None


def check_targets(
    targets: torch.Tensor, batch: int, classes: int
) -> torch.Tensor:
    """Checks the labels of a batch.

    Arguments
    ---------
    targets : torch.Tensor
        Shape [batch, 1].
    batch : int
        Number of rows, expected to be at least one.
    classes : int

    Returns
    -------
    targets : torch.Tensor
        As int64.

    Raises
    ------
    InputError
        If there is not one for each row, or one is not a class.

    Example
    -------
    >>> check_targets(torch.tensor([[2.0]]), batch=1, classes=3)
    tensor([[2]])
    """
    if batch == 0 or targets.shape != (batch, 1):
        raise InputError(
            f"there are {batch} outputs with targets of shape "
            f"{tuple(targets.shape)}: expected one target for each of at "
            "least one row"
        )
    targets = targets.long()
    check_labels(targets, classes)
    return targets


def check_labels(labels: torch.Tensor, classes: int) -> None:
    """Raises where a label is not one of the classes.

    Arguments
    ---------
    labels : torch.Tensor
        Integers of any shape.
    classes : int
        Number of classes.

    Raises
    ------
    InputError
        Names the first label outside [0, classes).

    Example
    -------
    >>> check_labels(torch.tensor([0, 2]), 3)
    """
    # A branch on data would break a compiled graph.
    if torch.compiler.is_compiling() or labels.numel() == 0:
        return
    low, high = labels.aminmax()
    if low < 0 or high >= classes:
        outside = (labels < 0) | (labels >= classes)
        raise InputError(
            f"label {labels[outside][0].item()} is outside [0, {classes}): "
            "out_n_neurons must be the number of training speakers"
        )
