"""The margin softmax of very many classes, some of them at a time.

A [batch, classes] matrix never exists. The similarities of each chunk are
computed twice: for the sum of the softmax, and for the gradients.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.losses import as_column, explain_labels
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.nnet.similarity import InnerProduct, compare


def chunked_margin_softmax(
    embeddings: torch.Tensor,
    centers: torch.Tensor,
    targets: torch.Tensor,
    similarity: InnerProduct,
    loss_fn: AdditiveMargin,
    chunk_size: int,
) -> torch.Tensor:
    """``MarginSoftmax`` of embeddings [N, D] and centers [classes, K, D]."""
    if loss_fn.top_k:
        raise InputError(
            f"top_k is {loss_fn.top_k}, expected 0 with a chunk_size: the "
            "hardest speakers of all chunks are not known in one pass"
        )
    targets = as_column(targets, len(embeddings))
    loss_fn.count_use(embeddings)
    scale = loss_fn.scale
    try:
        own = centers.detach().index_select(0, targets.squeeze(1))
    except (IndexError, RuntimeError):
        explain_labels(targets, len(centers))
        raise
    with torch.no_grad():
        output = compare(similarity, embeddings, own).diagonal().unsqueeze(1)
        lowest = scale * loss_fn.on_target(output)[0]

    def scaled(outputs: torch.Tensor) -> torch.Tensor:
        logits = scale * outputs
        if loss_fn.real:
            logits = logits.masked_fill(logits < lowest, 0)
        return logits

    def chunk(
        x: torch.Tensor, part: torch.Tensor, first: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = compare(similarity, x, part)
        # No shape depends on the labels: where the target is in another chunk,
        # some column takes its place and keeps its value.
        column = targets - first
        here = (column >= 0) & (column < len(part))
        column = column.clamp(0, len(part) - 1)
        output = outputs.gather(1, column)
        logit = scaled(output).masked_fill(here, -math.inf)
        others = scaled(outputs).scatter(1, column, logit)
        return others.logsumexp(1, keepdim=True), output.masked_fill(~here, 0)

    others, output = _SumOfChunks.apply(
        chunk, chunk_size, embeddings, centers, *similarity.parameters()
    )
    logit = scale * loss_fn.on_target(output)[0]
    return (torch.logaddexp(others, logit) - logit).mean()


class _SumOfChunks(torch.autograd.Function):
    """log(sum(exp(logit))) of the other classes, and the targets' outputs."""

    @staticmethod
    def forward(
        ctx: Any,
        chunk: Callable,
        chunk_size: int,
        x: torch.Tensor,
        centers: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = x.new_full((len(x), 1), -math.inf)
        output = x.new_zeros(len(x), 1)
        for number, part in enumerate(centers.split(chunk_size)):
            others, own = chunk(x, part, number * chunk_size)
            total, output = torch.logaddexp(total, others), output + own
        ctx.options = chunk, chunk_size, parameters
        ctx.save_for_backward(x, centers, total)
        return total, output

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_total: torch.Tensor, by_output: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        x, centers, total = ctx.saved_tensors
        chunk, chunk_size, parameters = ctx.options
        inputs = [x.detach().requires_grad_(), *parameters]
        gradients = [torch.zeros_like(v) for v in inputs]
        by_centers = torch.empty_like(centers)
        for number, part in enumerate(centers.split(chunk_size)):
            part = part.detach().requires_grad_()
            first = number * chunk_size
            with torch.enable_grad():
                others, own = chunk(inputs[0], part, first)
            by_others = by_total * (others.detach() - total).exp()
            by_part, *more = torch.autograd.grad(
                [others, own], [part, *inputs], [by_others, by_output]
            )
            by_centers[first : first + chunk_size] = by_part
            for gradient, found in zip(gradients, more, strict=True):
                gradient += found
        return None, None, gradients[0], by_centers, *gradients[1:]
