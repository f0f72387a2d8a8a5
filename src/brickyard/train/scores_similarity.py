"""The class behind the metrics of points; apart because torchmetrics takes long to import."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["Neighbours"]

#: So many samples are compared with each other; the time goes with the square.
MOST = 10_000
_CHUNK = 1024


class Neighbours(Metric):
    """Let the nearest other points name each point's class.

    Args:
        k: how many vote.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    points: list[Tensor]
    labels: list[Tensor]

    def __init__(self, k: int):
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        self.k = k
        self.add_state("points", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take points (N, size) and class indices (N,)."""
        if preds.ndim != 2 or target.shape != preds.shape[:1] or target.is_floating_point():
            raise ValueError(
                "a metric of points takes points (N, size) and class indices (N,); got "
                f"{tuple(preds.shape)} and {target.dtype} {tuple(target.shape)}"
            )
        self.points.append(F.normalize(preds.detach().float(), dim=1).cpu())
        self.labels.append(target.detach().cpu())

    def compute(self) -> Tensor:
        """Return the share of points that are named rightly; NaN of a single point."""
        if not len(self.labels):
            raise RuntimeError("a metric has no value before its first update; call update() first")
        points, labels = dim_zero_cat(self.points)[:MOST], dim_zero_cat(self.labels)[:MOST]
        if len(labels) < 2:
            return torch.tensor(torch.nan)
        _, labels = labels.unique(return_inverse=True)
        k, right = min(self.k, len(labels) - 1), 0
        for start in range(0, len(points), _CHUNK):
            part = points[start : start + _CHUNK] @ points.T
            rows = torch.arange(len(part))
            part[rows, rows + start] = -torch.inf
            cosine, index = part.topk(k, 1)
            votes = torch.zeros(len(part), int(labels.max()) + 1)
            votes.scatter_add_(1, labels[index], cosine.clamp_min(0) + 1e-9)
            right += int((votes.argmax(1) == labels[start : start + _CHUNK]).sum())
        return torch.tensor(right / len(labels), dtype=torch.double)
