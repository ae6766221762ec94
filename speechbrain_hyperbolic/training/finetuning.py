"""An optimizer that spares a pretrained module."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.errors import check_positive


def fine_tuning_optimizer(
    params: Iterable,
    opt_class: Callable[..., torch.optim.Optimizer],
    module: torch.nn.Module,
    epoch_counter: EpochCounter,
    freeze: int = 0,
    lr_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """An ``opt_class`` that freezes a module for some epochs, and then trains
    it at a learning rate of its own.

    The module, for example the encoder, gets no gradient in the first
    ``freeze`` epochs, and its batch norm stays as it is. Then its rate is
    ``lr_factor`` times that of the other parameters.

    Example
    -------
    >>> model, counter = torch.nn.Linear(2, 2), EpochCounter(limit=3)
    >>> optimizer = fine_tuning_optimizer(
    ...     model.parameters(), torch.optim.SGD, model, counter, freeze=2
    ... )
    >>> [model(torch.ones(1, 2)).requires_grad for epoch in counter]
    [False, False, True]
    """
    check_positive("lr_factor", lr_factor)
    own = [p for p in module.parameters() if p.requires_grad]
    ids = set(map(id, own))
    groups: list[dict[str, Any]] = []
    given = list(params)
    for group in given if isinstance(given[0], dict) else [{"params": given}]:
        for is_own in (False, True):
            members = [p for p in group["params"] if (id(p) in ids) == is_own]
            groups.append({**group, "params": members})
    optimizer = opt_class(groups)

    @torch.compiler.disable
    def freeze_or_not(*_: Any) -> None:
        frozen = epoch_counter.current <= freeze
        if frozen:
            module.eval()
        for parameter in own:
            parameter.requires_grad_(not frozen)

    def lower(optimizer: Any, *_: Any) -> None:
        for group in optimizer.param_groups[1::2]:
            group["full_lr"], group["lr"] = group["lr"], group["lr"] * lr_factor

    def restore(optimizer: Any, *_: Any) -> None:
        for group in optimizer.param_groups[1::2]:
            group["lr"] = group.pop("full_lr")

    # Hooks, since the Brain sets one rate for all groups and, as each epoch
    # begins, the training mode
    module.register_forward_pre_hook(freeze_or_not)
    optimizer.register_step_pre_hook(lower)
    optimizer.register_step_post_hook(restore)
    return optimizer
