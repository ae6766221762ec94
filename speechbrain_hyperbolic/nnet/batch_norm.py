"""Batch norm over the batches of all processes, on the CPU too.

PyTorch's SyncBatchNorm is for GPUs only, and batch norm over each process'
own part of a batch is another training than that of one process.
"""

from typing import Any

import torch
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase


class ProcessBatchNorm(_NormBase):
    """A batch norm of torch whose batch is that of all processes.

    It has the parameters and the state dict of the one that it replaces.
    While it trains, each process of the default group has to call it.

    Arguments
    ---------
    batch_norm : torch.nn.BatchNorm1d, BatchNorm2d or BatchNorm3d
        Its parameters are taken over, not copied.

    Example
    -------
    >>> stock = torch.nn.BatchNorm1d(3)
    >>> x = torch.randn(4, 3, 10)
    >>> stock.eval()(x).equal(ProcessBatchNorm(stock).eval()(x))
    True
    """

    def __init__(self, batch_norm: _BatchNorm) -> None:
        super().__init__(
            batch_norm.num_features,
            batch_norm.eps,
            batch_norm.momentum,
            affine=False,
            track_running_stats=False,
        )
        self.affine = batch_norm.affine
        self.track_running_stats = batch_norm.track_running_stats
        self._parameters = batch_norm._parameters
        self._buffers = batch_norm._buffers
        self.training = batch_norm.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises each channel.

        Arguments
        ---------
        x : torch.Tensor
            Shape [batch, channels, ...].

        Returns
        -------
        normalised : torch.Tensor
            Of the same shape and dtype.
        """
        if not self.training:
            return torch.nn.functional.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=self.running_mean is None,
                eps=self.eps,
            )
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance, count = _moments(values)
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach(), count)
        channels = (1, -1) + (1,) * (x.ndim - 2)
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        normalised = (values - mean.view(channels)) * scale.view(channels)
        if self.bias is not None:
            normalised = normalised + self.bias.view(channels)
        return normalised.to(x.dtype)

    def _track(
        self, mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor
    ) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        weight = self.momentum
        if weight is None:  # the mean of all batches
            weight = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean), weight)
        unbiased = variance * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var), weight)


def _moments(
    x: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel over all processes, and how many
    values a channel has.
    """
    dims = [dim for dim in range(x.ndim) if dim != 1]
    variance, mean = torch.var_mean(x, dims, correction=0)
    count = mean.new_full((1,), x.numel() / x.shape[1])
    # Each process fills in its row, so that their sum has the rows of all.
    # Of moments, since a sum of squares would cancel in float32.
    rows = torch.zeros(
        distributed.get_world_size(), 2 * len(mean) + 1, dtype=x.dtype
    ).to(x.device)
    own = torch.cat([mean, variance, count])
    number = torch.tensor([distributed.get_rank()], device=x.device)
    rows = _SumOverProcesses.apply(rows.index_copy(0, number, own[None]))
    means, variances, counts = rows.split([len(mean), len(mean), 1], 1)
    count = counts.sum()
    shares = counts / count
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean) ** 2)).sum(0)
    return mean, variance, count.detach()


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        # Each process' loss depends on the values of all.
        return _SumOverProcesses.apply(gradient.contiguous())


def use_process_batch_norm(module: torch.nn.Module) -> None:
    """Replaces the batch norms in a module.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place.

    Example
    -------
    >>> model = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    >>> use_process_batch_norm(model)
    >>> type(model[0]).__name__, list(model.state_dict())[:2]
    ('ProcessBatchNorm', ['0.weight', '0.bias'])
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, ProcessBatchNorm(child))
