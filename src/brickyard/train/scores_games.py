"""The classes behind the metrics of generated samples and of episodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["MeanReturn", "SlicedDistance"]

#: Directions at a time, so that the projections of many samples fit in memory.
_AT_A_TIME = 64


class SlicedDistance(Metric):
    """Measure how far two sets of samples are apart along random directions.

    Args:
        projections: number of directions.
        seed: draws them.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    fake: list[Tensor]
    real: list[Tensor]

    def __init__(self, projections: int, seed: int):
        super().__init__()
        if projections < 1:
            raise ValueError(f"projections must be 1 or more; got {projections}")
        self.projections, self.seed = projections, seed
        self.add_state("fake", [], dist_reduce_fx="cat")
        self.add_state("real", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take generated and real samples, (N, ...) each."""
        if preds.shape != target.shape:
            raise ValueError(
                "generated and real samples must have the same shape and number; got "
                f"{tuple(preds.shape)} and {tuple(target.shape)}"
            )
        self.fake.append(preds.detach().flatten(1).float().cpu())
        self.real.append(target.detach().flatten(1).float().cpu())

    def compute(self) -> Tensor:
        """Return the distance over everything since the reset."""
        if not self.fake:
            raise RuntimeError("a metric has no value before its first update; call update() first")
        fake, real = dim_zero_cat(self.fake), dim_zero_cat(self.real)
        generator = torch.Generator().manual_seed(self.seed)
        directions = torch.randn(fake.shape[1], self.projections, generator=generator)
        directions /= directions.norm(dim=0)
        total = torch.zeros((), dtype=torch.double)
        for some in directions.split(_AT_A_TIME, 1):
            apart = (fake @ some).sort(0).values - (real @ some).sort(0).values
            total += apart.double().square().mean(0).sum()
        return (total / self.projections).sqrt()


class MeanReturn(Metric):
    """Average the returns of episodes."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take the returns of episodes (N,) and the episodes' seeds, which are not looked at."""
        self.total += preds.detach().double().sum().cpu()
        self.count += preds.numel()

    def compute(self) -> Tensor:
        """Return the mean over everything since the reset."""
        if not int(self.count):
            raise RuntimeError("a metric has no value before its first update; call update() first")
        return self.total / self.count
