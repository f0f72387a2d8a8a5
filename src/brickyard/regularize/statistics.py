"""Measure batch norm's running statistics anew, for weights that no training step has seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

__all__ = ["recalibrate", "statistics"]


def statistics(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the running statistics of batch norms."""
    for prefix, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for own in ("running_mean", "running_var"):
                buffer = getattr(module, own)
                if buffer is not None:
                    yield f"{prefix}.{own}" if prefix else own, buffer


def recalibrate(model: nn.Module, inputs: Iterable[Tensor]) -> bool:
    """Measure batch norm's running statistics anew, as plain means over batches.

    ``torch.optim.swa_utils.update_bn`` over the batches of full size (a smaller last one would
    count as much as the others); random numbers and each module's mode are as before afterwards.

    Args:
        model: whose statistics; its other modules run in training mode, as in training.
        inputs: batches, first of them of full size.

    Returns:
        Whether the model has running statistics; without, no batch is taken.

    Raises:
        ValueError: there was no batch.
    """
    if not any(True for _ in statistics(model)):
        return False
    modes = [(module, module.training) for module in model.modules()]
    taken = 0

    def whole() -> Iterator[Tensor]:
        nonlocal taken
        size = 0
        for x in inputs:
            size = size or len(x)
            if len(x) == size:
                taken += 1
                yield x

    try:
        devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
        with torch.random.fork_rng([d.index for d in devices]), torch.no_grad():
            update_bn(whole(), model)
    finally:
        for module, training in modes:
            module.training = training
    if not taken:
        raise ValueError("batch norm's statistics need a batch at least; got none")
    return True
