"""The classes behind the metrics of codes; apart because torchmetrics takes long to import."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ActiveLatents", "CodedError", "LatentKL"]

#: Variance of a latent's mean from which on it counts as used.
ACTIVE = 0.01


class _OfCodes(Metric):
    """Hold what the metrics of codes share: sums in float64, and a count of samples."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    count: Tensor

    def __init__(self, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def _any(self) -> None:
        if not int(self.count):
            raise RuntimeError("a metric has no value before its first update; call update() first")


class LatentKL(_OfCodes):
    """Sum the divergence of codes from the standard normal."""

    total: Tensor

    def __init__(self, outputs: int):
        super().__init__(outputs)
        self.add_state("total", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")

    def update(self, preds: Any, target: Tensor) -> None:
        """Take the task's codes and the samples."""
        mu, log_var = preds.mu.detach().double(), preds.log_var.detach().double()
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum()
        self.total += kl.to(self.total.device)
        self.count += len(mu)

    def compute(self) -> Tensor:
        """Return the nats a sample."""
        self._any()
        return self.total / self.count


class ActiveLatents(_OfCodes):
    """Sum means and their squares, latent by latent."""

    higher_is_better = True
    total: Tensor
    squares: Tensor

    def __init__(self, outputs: int):
        super().__init__(outputs)
        for name in ("total", "squares"):
            self.add_state(name, torch.zeros(outputs, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, preds: Any, target: Tensor) -> None:
        """Take the task's codes and the samples."""
        mu = preds.mu.detach().to(self.total.device).double()
        self.total += mu.sum(0)
        self.squares += mu.square().sum(0)
        self.count += len(mu)

    def compute(self) -> Tensor:
        """Return how many latents vary."""
        self._any()
        variance = self.squares / self.count - (self.total / self.count).square()
        return (variance > ACTIVE).sum().double()


class CodedError(_OfCodes):
    """Sum the squared errors of reconstructions."""

    total: Tensor

    def __init__(self, outputs: int):
        super().__init__(outputs)
        self.add_state("total", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")

    def update(self, preds: Any, target: Tensor) -> None:
        """Take the task's codes and the samples."""
        error = (preds.recon.detach().double() - target.detach().double()).square().sum()
        self.total += error.to(self.total.device)
        self.count += target.numel()

    def compute(self) -> Tensor:
        """Return the mean over all values."""
        self._any()
        return self.total / self.count
