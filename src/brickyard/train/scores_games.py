"""The classes behind the metrics of generated samples and of episodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["Coverage", "MeanReturn", "SlicedDistance"]

#: Directions at a time, so that the projections of many samples fit in memory.
_AT_A_TIME = 64


class _TwoSets(Metric):
    """Keep generated and real samples until they are compared."""

    full_state_update = False
    is_differentiable = False
    fake: list[Tensor]
    real: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
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

    def sets(self) -> tuple[Tensor, Tensor]:
        """Return both sets since the reset, (N, features) each."""
        if not self.fake:
            raise RuntimeError("a metric has no value before its first update; call update() first")
        return dim_zero_cat(self.fake), dim_zero_cat(self.real)


class SlicedDistance(_TwoSets):
    """Measure how far two sets of samples are apart along random directions.

    Args:
        projections: number of directions.
        seed: draws them.
    """

    higher_is_better = False

    def __init__(self, projections: int, seed: int):
        super().__init__()
        if projections < 1:
            raise ValueError(f"projections must be 1 or more; got {projections}")
        self.projections, self.seed = projections, seed

    def compute(self) -> Tensor:
        """Return the distance over everything since the reset."""
        fake, real = self.sets()
        generator = torch.Generator().manual_seed(self.seed)
        directions = torch.randn(fake.shape[1], self.projections, generator=generator)
        directions /= directions.norm(dim=0)
        total = torch.zeros((), dtype=torch.double)
        for some in directions.split(_AT_A_TIME, 1):
            apart = (fake @ some).sort(0).values - (real @ some).sort(0).values
            total += apart.double().square().mean(0).sum()
        return (total / self.projections).sqrt()


class Coverage(_TwoSets):
    """Count the real samples that have a generated one nearer than their own neighbours.

    Args:
        neighbors: which of the own neighbours bounds the surroundings.
    """

    higher_is_better = True

    def __init__(self, neighbors: int):
        super().__init__()
        if neighbors < 1:
            raise ValueError(f"neighbors must be 1 or more; got {neighbors}")
        self.neighbors = neighbors

    def compute(self) -> Tensor:
        """Return the share over everything since the reset."""
        fake, real = self.sets()
        if len(real) <= self.neighbors:
            raise ValueError(
                f"coverage with neighbors={self.neighbors} needs more samples than that; got "
                f"{len(real)}"
            )
        apart = torch.cdist(real, real).fill_diagonal_(torch.inf)
        around = apart.kthvalue(self.neighbors, dim=1).values
        return (torch.cdist(real, fake).amin(1) < around).double().mean()


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
