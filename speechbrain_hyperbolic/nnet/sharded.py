"""The loss of ``nnet.fused`` with the classes spread over processes.

A process has the centres of some classes. It compares the embeddings of all
processes with these, and the softmax needs little of the others: of each row
the output of the target, the hardest others, the highest logit and the sum.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from speechbrain_hyperbolic.distributed import (
    rows_of_processes,
    tensors_of_processes,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import refuse_second_derivative
from speechbrain_hyperbolic.nnet.fused import margin_softmax
from speechbrain_hyperbolic.nnet.losses import check_targets
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin

if TYPE_CHECKING:  # it is above this module
    from speechbrain_hyperbolic.lobes.similarity import Dot


class Shard:
    """The classes that this process has, and what it asks the others.

    They follow each other, and their numbers differ by one at most. All
    processes call the same methods in the same order. Without a process group
    it's all classes, and there is nobody to ask.

    Arguments
    ---------
    classes : int
        Of all processes.

    Raises
    ------
    InputError
        If there are fewer classes than processes.

    Example
    -------
    >>> shard = Shard(10)
    >>> shard.first, shard.last, shard.parts
    (0, 10, 1)
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.part, self.parts = 0, 1
        if distributed.is_available() and distributed.is_initialized():
            self.part = distributed.get_rank()
            self.parts = distributed.get_world_size()
        if classes < self.parts:
            raise InputError(
                f"out_neurons is {classes}, expected at least one class for "
                f"each of {self.parts} processes: use CentreClassifier"
            )
        self.first, self.last = self.bounds[self.part : self.part + 2]

    @property
    def bounds(self) -> list[int]:
        """The first class of each process, and the number of classes."""
        size, larger = divmod(self.classes, self.parts)
        return [
            part * size + min(part, larger) for part in range(self.parts + 1)
        ]

    def _reduce(
        self, value: torch.Tensor, op: "distributed.ReduceOp.RedOpType"
    ) -> torch.Tensor:
        if self.parts > 1:
            value = value.clone(memory_format=torch.contiguous_format)
            distributed.all_reduce(value, op)
        return value

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over the processes."""
        return self._reduce(value, distributed.ReduceOp.SUM)

    def highest(self, value: torch.Tensor) -> torch.Tensor:
        """The maximum over the processes."""
        return self._reduce(value, distributed.ReduceOp.MAX)

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """The rows of all processes.

        Arguments
        ---------
        rows : torch.Tensor
            Shape [N, ...], N the process's own.

        Returns
        -------
        rows : torch.Tensor
            Those of the first process, of the second and so on.
        counts : list of int
            How many are of each.
        """
        if self.parts == 1:
            return rows, [len(rows)]
        count = torch.tensor([len(rows)], device=rows.device)
        counts = rows_of_processes(count).tolist()
        # The processes exchange blocks of one size.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        blocks = zip(tensors_of_processes(padded), counts, strict=True)
        return torch.cat([block[:count] for block, count in blocks]), counts

    def of_targets(
        self, outputs: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The outputs of the targets, whoever has their classes.

        Arguments
        ---------
        outputs : torch.Tensor
            Of these classes, shape [batch, n].
        targets : torch.Tensor
            Shape [batch, 1].

        Returns
        -------
        outputs : torch.Tensor
            Shape [batch, 1].
        """
        columns = targets - self.first
        here = (columns >= 0) & (columns < outputs.shape[1])
        found = outputs.gather(1, columns.clamp(0, outputs.shape[1] - 1))
        return self.sum(found.masked_fill_(~here, 0))

    def hardest(
        self, found: tuple[torch.Tensor, torch.Tensor] | None, top_k: int
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Of the hardest others of each process the hardest.

        Arguments
        ---------
        found : tuple of torch.Tensor
            As ``hardest_others`` gives it.
        top_k : int

        Returns
        -------
        outputs, classes : torch.Tensor
            Shape [batch, top_k]: -infinity and class -1 where there are fewer.
            None without a penalty.
        """
        if not top_k:
            return None
        assert found is not None
        values, classes = (
            torch.nn.functional.pad(of, (0, top_k - of.shape[1]), value=fill)
            for of, fill in zip(found, (-torch.inf, -1), strict=True)
        )
        if self.parts > 1:
            values, classes = (
                torch.cat(tensors_of_processes(of), 1)
                for of in (values, classes)
            )
        values, order = values.topk(top_k)
        # The target is among those that are found, as -infinity.
        none = values == -torch.inf
        return values, classes.gather(1, order).masked_fill(none, -1)

    def outputs(
        self,
        embeddings: torch.Tensor,
        compare: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Embeddings against the classes of all processes.

        Arguments
        ---------
        embeddings : torch.Tensor
            The process's own, shape [batch, D].
        compare : callable
            From embeddings [N, D] to outputs [N, n] of this process's classes.

        Returns
        -------
        outputs : torch.Tensor
            Shape [batch, classes].
        """
        if self.parts == 1:
            return compare(embeddings)
        rows, counts = self.gather(embeddings)
        widths = torch.tensor(self.bounds).diff().tolist()
        for part, asked in enumerate(rows.split(counts)):
            found = compare(asked)
            found = torch.nn.functional.pad(
                found, (0, max(widths) - found.shape[1])
            )
            blocks = None
            if part == self.part:
                blocks = [torch.empty_like(found) for _ in widths]
            distributed.gather(found, blocks, dst=part)
            if blocks is not None:
                pairs = zip(blocks, widths, strict=True)
                own = torch.cat([block[:, :width] for block, width in pairs], 1)
        return own


class _Gather(torch.autograd.Function):
    """The rows of all processes, each of which has a part of the gradient."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, shard: Shard) -> torch.Tensor:
        gathered, counts = shard.gather(rows)
        start = sum(counts[: shard.part])
        ctx.shard, ctx.own = shard, slice(start, start + len(rows))
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        refuse_second_derivative()
        whole = ctx.shard.sum(gradient)
        # DistributedDataParallel takes the mean of the encoder's gradients.
        return whole[ctx.own] * ctx.shard.parts, None


def sharded_margin_softmax(
    embeddings: torch.Tensor,
    centres: torch.Tensor,
    targets: torch.Tensor,
    similarity: "Dot",
    loss_fn: AdditiveMargin,
    shard: Shard,
    sub_centres: int = 1,
    chunk_size: int | None = None,
    negatives: int | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Mean loss of the batches of all processes: the same value on each.

    The gradients by the centres are those of one process with all classes and
    rows. Those by the embeddings are ``shard.parts`` times these, since
    DistributedDataParallel averages what the encoder makes of them. Those by
    parameters of the similarity are a part: the sum over the processes is the
    gradient. The gradient by the loss has to be the same on each.

    Source of the negatives: An et al., "Killing Two Birds with One Stone:
    Efficient and Robust Training of Face Recognition CNNs by Partial FC", CVPR
    2022, arXiv 2203.15565.

    Arguments
    ---------
    embeddings : torch.Tensor
        The process's own, shape [batch, D], float32 or float64.
    centres : torch.Tensor
        Of the shard's classes, shape [n * sub_centres, D].
    targets : torch.Tensor
        Of the process's own embeddings, in [0, classes), shape [batch, 1].
    similarity : torch.nn.Module
        See ``lobes.similarity``.
    loss_fn : AdditiveMargin
        See ``nnet.margins``.
    shard : Shard
    sub_centres : int
        Centres of a class, of which the most similar counts.
    chunk_size : int
        How many classes are worked on at a time; None: the shard's.
    negatives : int
        How many of the shard's classes, drawn at random, count beside those
        of the labels; None: all.
    generator : torch.Generator
        On the CPU, to draw them.

    Returns
    -------
    loss : torch.Tensor
        A scalar.

    Raises
    ------
    InputError
        If a label is not a class, or there is not one for each embedding.

    Example
    -------
    >>> from speechbrain_hyperbolic.lobes.similarity import ClippedDistance
    >>> from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
    >>> sharded_margin_softmax(
    ...     torch.randn(4, 192),
    ...     torch.randn(10, 192),
    ...     torch.zeros(4, 1),
    ...     ClippedDistance(c=3.0),
    ...     AdditiveMargin(margin=0.2, scale=30.0),
    ...     Shard(10),
    ... ).shape
    torch.Size([])
    """
    targets = check_targets(targets, len(embeddings), shard.classes)
    if shard.parts > 1:
        embeddings = _Gather.apply(embeddings, shard)
        targets, _ = shard.gather(targets)
    if negatives is not None:
        chosen, targets = draw_classes(shard, targets, negatives, generator)
        rows = chosen * sub_centres
        if sub_centres > 1:
            every = torch.arange(sub_centres, device=rows.device)
            rows = (rows.unsqueeze(1) + every).flatten()
        centres = centres.index_select(0, rows)
    return margin_softmax(
        embeddings,
        centres,
        targets,
        similarity,
        loss_fn,
        sub_centres,
        chunk_size,
        shard,
    )


def draw_classes(
    shard: Shard,
    targets: torch.Tensor,
    negatives: int,
    generator: torch.Generator | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The shard's classes that count in a step.

    Arguments
    ---------
    shard : Shard
    targets : torch.Tensor
        Of all processes, shape [batch, 1].
    negatives : int
        How many to draw; all where there are not as many.
    generator : torch.Generator

    Returns
    -------
    chosen : torch.Tensor
        Classes less ``shard.first``, those of the labels among them, sorted.
    targets : torch.Tensor
        Those that the shard has, as ``shard.first`` and the place in
        ``chosen``; the others as they were.

    Example
    -------
    >>> generator = torch.Generator().manual_seed(0)
    >>> labels = torch.tensor([[7], [3]])
    >>> chosen, targets = draw_classes(Shard(10), labels, 2, generator)
    >>> len(chosen), chosen[targets].tolist()
    (4, [[7], [3]])
    """
    columns = targets - shard.first
    count = shard.last - shard.first
    here = (columns >= 0) & (columns < count)
    own = columns[here].unique()
    # Of that many at least so many are not among the own.
    drawn = torch.randperm(count, generator=generator)
    drawn = drawn[: negatives + len(own)].to(own.device)
    chosen = torch.cat([own, drawn[~torch.isin(drawn, own)][:negatives]])
    chosen = chosen.sort().values
    place = torch.searchsorted(chosen, columns.clamp(0, count - 1))
    return chosen, torch.where(here, shard.first + place, targets)
