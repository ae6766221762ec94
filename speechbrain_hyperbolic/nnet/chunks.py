"""The margin softmax of very many classes, some of them at a time.

A [batch, classes] matrix never exists. The similarities of each chunk are
computed twice: for the sum of the softmax, and for the gradients.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.losses import as_column, explain_labels
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.nnet.similarity import compare


def chunked_margin_softmax(
    embeddings: torch.Tensor,
    centers: torch.Tensor,
    targets: torch.Tensor,
    similarity: torch.nn.Module,
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
    inputs = embeddings, centers, *similarity.parameters()
    options = targets, similarity, loss_fn, chunk_size
    return _ChunkedSoftmax.apply(*options, *inputs)


def _chunks(
    centers: torch.Tensor, targets: torch.Tensor, size: int
) -> Iterable[tuple[torch.Tensor, ...]]:
    """Some centers; the targets' columns among them; and which are there.

    No shape depends on the labels: where a target is not there, the first
    column takes its place, and must keep its value.
    """
    first = torch.arange(0, len(centers), size, device=targets.device)
    columns = targets - first.view(-1, 1, 1)
    here = (columns >= 0) & (columns < size)
    return zip(centers.split(size), columns * here, here, strict=True)


class _ChunkedSoftmax(torch.autograd.Function):
    """The mean of log(sum_j exp(z_j)) - z_target over logits z."""

    @staticmethod
    def forward(
        ctx: Any,
        targets: torch.Tensor,
        similarity: torch.nn.Module,
        loss_fn: AdditiveMargin,
        chunk_size: int,
        x: torch.Tensor,
        centers: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        try:
            own = centers.index_select(0, targets.squeeze(1))
        except (IndexError, RuntimeError):
            explain_labels(targets, len(centers))
            raise
        output = compare(similarity, x, own).diagonal().unsqueeze(1)
        output, slopes = loss_fn.on_target(output)
        target = loss_fn.scale * output
        highest, shares = [], []
        for part, column, here in _chunks(centers, targets, chunk_size):
            logits = loss_fn.scale * compare(similarity, x, part)
            own = logits.gather(1, column)
            logits.scatter_(1, column, torch.where(here, target, own))
            if loss_fn.real:
                logits.masked_fill_(logits < target, 0)
            highest.append(logits.amax(1))
            shares.append(logits.softmax(1).amax(1))
        # A chunk's log(sum exp) is any logit less the log of its share.
        log_totals = torch.stack(highest) - torch.stack(shares).log()
        log_total = log_totals.logsumexp(0).unsqueeze(1)
        by_target = torch.expm1(target - log_total)
        if slopes is not None:
            by_target *= slopes
        ctx.options = similarity, loss_fn, chunk_size, parameters
        ctx.save_for_backward(x, centers, targets, target, log_total, by_target)
        return (log_total - target).mean()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        x, centers, targets, target, log_total, by_target = ctx.saved_tensors
        similarity, loss_fn, chunk_size, parameters = ctx.options
        factor = gradient * (loss_fn.scale / len(x))
        inputs = [x.detach().requires_grad_(), *parameters]
        gradients = [torch.zeros_like(v) for v in inputs]
        by_centers = torch.empty_like(centers)
        chunks = _chunks(centers, targets, chunk_size)
        pairs = zip(by_centers.split(chunk_size), chunks, strict=True)
        for by_part, (part, column, here) in pairs:
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                outputs = compare(similarity, inputs[0], part)
            logits = loss_fn.scale * outputs.detach()
            rows = (logits - log_total).exp_()
            if loss_fn.real:
                rows.masked_fill_(logits < target, 0)
            own = rows.gather(1, column)
            rows.scatter_(1, column, torch.where(here, by_target, own))
            found = torch.autograd.grad(outputs, [part, *inputs], rows)
            torch.mul(factor, found[0], out=by_part)
            for total, by_input in zip(gradients, found[1:], strict=True):
                total.addcmul_(factor, by_input)
        nothing = (None,) * 4
        return *nothing, gradients[0], by_centers, *gradients[1:]
