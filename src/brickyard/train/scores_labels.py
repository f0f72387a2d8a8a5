"""The classes behind the metrics of labels; apart because torchmetrics takes long to import."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["AveragePrecision", "LabelF1"]


class AveragePrecision(Metric):
    """Keep all scores and targets, and rank them at the end.

    Args:
        outputs: number of classes or labels; 1 for a single logit.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    scores: list[Tensor]
    targets: list[Tensor]

    def __init__(self, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take logits (N, outputs), and class indices (N,) or labels (N, outputs)."""
        preds, target = preds.detach().cpu(), target.detach().cpu()
        preds = preds.reshape(len(target), -1)
        if preds.shape[1] != self.outputs or target.shape not in (preds.shape, preds.shape[:1]):
            raise ValueError(
                f"a metric of {self.outputs} outputs takes logits (N, {self.outputs}), and indices "
                f"(N,) or labels (N, {self.outputs}); got {tuple(preds.shape)} and "
                f"{tuple(target.shape)}"
            )
        preds = preds if preds.dtype == torch.double else preds.float()
        if target.ndim == 1 and self.outputs == 2:
            preds = preds[:, 1:] - preds[:, :1]  # ranks as the probability does
        elif target.ndim == 1 and self.outputs > 2:
            preds = preds.softmax(1)
            target = target[:, None] == torch.arange(self.outputs)
        self.scores.append(preds)
        self.targets.append(target.reshape(preds.shape) > 0.5)

    def compute(self) -> Tensor:
        """Return the mean over labels that some sample has; NaN where none has."""
        if not len(self.targets):
            raise RuntimeError("a metric has no value before its first update; call update() first")
        scores, target = dim_zero_cat(self.scores), dim_zero_cat(self.targets)
        each = [_average_precision(scores[:, i], target[:, i]) for i in range(scores.shape[1])]
        return torch.stack(each).nanmean()


def _average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    if not bool(positive.any()) or bool(scores.isnan().any()):
        return torch.tensor(torch.nan, dtype=torch.double)
    order = scores.argsort(descending=True, stable=True)
    scores, positive = scores[order], positive[order].double()
    hits = positive.cumsum(0)
    ends = torch.cat([scores[1:] != scores[:-1], torch.tensor([True])])  # of equal scores the last
    hits = hits[ends]
    said = torch.arange(1, len(scores) + 1, dtype=torch.double)[ends]
    recall = hits / hits[-1]
    return (torch.diff(recall, prepend=torch.zeros(1, dtype=torch.double)) * hits / said).sum()


class LabelF1(Metric):
    """Count hits, said and true labels.

    Args:
        outputs: number of labels.
        average: ``"macro"`` or ``"micro"``.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    hits: Tensor
    said: Tensor
    true: Tensor

    def __init__(self, outputs: int, average: str):
        super().__init__()
        self.outputs, self.average = outputs, average
        for name in ("hits", "said", "true"):
            self.add_state(name, torch.zeros(outputs, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take logits and labels, both (N, outputs)."""
        if preds.shape != target.shape or preds.ndim != 2 or preds.shape[1] != self.outputs:
            raise ValueError(
                f"a metric of {self.outputs} labels takes logits and labels (N, {self.outputs}); "
                f"got {tuple(preds.shape)} and {tuple(target.shape)}"
            )
        said, true = preds.detach() > 0, target.detach() > 0.5
        for state, found in ((self.hits, said & true), (self.said, said), (self.true, true)):
            state += found.sum(0).to(state.device)

    def compute(self) -> Tensor:
        """Return the score over everything since the reset; NaN where no label was met."""
        hits, sizes = self.hits.double(), (self.said + self.true).double()
        if self.average == "micro":
            return 2 * hits.sum() / sizes.sum()
        return (2 * hits / sizes)[sizes > 0].mean()
