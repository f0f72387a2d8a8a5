"""The class behind the metrics of masks; apart because torchmetrics takes long to import."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["RegionCounts"]


class RegionCounts(Metric):
    """Count hits, predicted and true pixels of every class.

    Args:
        outputs: number of classes.
        of: from the three counts, each (classes,), to the score.
        background: keep class 0.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    hits: Tensor
    predicted: Tensor
    actual: Tensor

    def __init__(
        self, outputs: int, of: Callable[[Tensor, Tensor, Tensor], Tensor], background: bool
    ):
        super().__init__()
        self.outputs, self.of, self.background = outputs, of, background
        for name in ("hits", "predicted", "actual"):
            self.add_state(name, torch.zeros(outputs, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take predicted and true classes of pixels, both of one shape."""
        if preds.shape != target.shape or preds.is_floating_point():
            raise ValueError(
                "a metric of masks takes predicted and true class indices of one shape; got "
                f"{preds.dtype} {tuple(preds.shape)} and {tuple(target.shape)}"
            )
        preds, target = preds.flatten(), target.flatten()
        pairs = (
            (self.hits, target[preds == target]), (self.predicted, preds), (self.actual, target),
        )  # fmt: skip
        for state, picked in pairs:
            state += torch.bincount(picked, minlength=self.outputs).to(state.device)

    def compute(self) -> Tensor:
        """Return the score over everything since the reset; NaN where no class is left."""
        if not int(self.actual.sum()):
            raise RuntimeError("a metric has no value before its first update; call update() first")
        first = 0 if self.background else 1
        return self.of(*(t.double()[first:] for t in (self.hits, self.predicted, self.actual)))
