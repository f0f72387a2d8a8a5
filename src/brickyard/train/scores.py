"""The classes behind the metrics' cards: torchmetrics' interface, exact sums, no surprises.

Apart from ``metrics`` because importing torchmetrics takes seconds. They differ from torchmetrics'
own classes where those depend on how the data was cut into batches, or lose digits:

- scores are logits, always; torchmetrics looks at each batch and guesses whether they are.
- a class that no target has leaves averages over classes alone (scikit-learn's rule for recall).
- sums are kept in float64: r2 of targets around 10,000 with spread 1 is right to nine digits.

States are small and stay on the CPU unless the metric is moved; batches may come from any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["AreaUnderRoc", "ClassCounts", "ErrorMean", "Explained"]


class ClassCounts(Metric):
    """Count, by class, the targets, the predictions and the hits; ``of`` makes a score of them.

    Args:
        outputs: number of classes, or 1 for a single logit (class 1 against class 0).
        of: from hits, predicted and actual counts, each (classes,), to the score.
        top_k: a hit is a target among the ``top_k`` highest scores.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    hits: Tensor
    predicted: Tensor
    actual: Tensor

    def __init__(
        self, outputs: int, of: Callable[[Tensor, Tensor, Tensor], Tensor], top_k: int = 1
    ):
        super().__init__()
        self.classes = _classes(outputs)
        if not 1 <= top_k < self.classes:
            raise ValueError(
                f"top_k must be 1 or more and below the number of classes; got {top_k} of "
                f"{self.classes}, with which every prediction would be right"
            )
        self.outputs, self.top_k, self.of = outputs, top_k, of
        for name in ("hits", "predicted", "actual"):
            self.add_state(name, torch.zeros(self.classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take logits (N, classes), or (N,) or (N, 1) for one output, and class indices (N,)."""
        preds, target = _check_classes(preds, target, self.outputs)
        if self.top_k == 1:
            best = preds.argmax(1, keepdim=True)
        else:  # stable: of equal scores the first class wins, as in argmax
            best = preds.argsort(dim=1, descending=True, stable=True)[:, : self.top_k]
        right = (best == target[:, None]).any(1)
        for state, picked in (
            (self.hits, target[right]),
            (self.predicted, best[:, 0]),
            (self.actual, target),
        ):
            state += torch.bincount(picked, minlength=self.classes).to(state.device)

    def compute(self) -> Tensor:
        """Return the score over everything since the reset."""
        _check_any(int(self.actual.sum()))
        counts = (self.hits.double(), self.predicted.double(), self.actual.double())
        return self.of(*counts)


class AreaUnderRoc(Metric):
    """Compute the area under the ROC curve from ranks, exactly, ties counted half.

    Args:
        outputs: number of classes, or 1 for a single logit.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    scores: list[Tensor]
    targets: list[Tensor]

    def __init__(self, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.classes = _classes(outputs)
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take logits (N, classes), or (N,) or (N, 1) for one output, and class indices (N,)."""
        preds, target = _check_classes(preds, target, self.outputs)
        if self.classes == 2:  # the difference ranks as the probability does, without rounding
            scores = preds[:, 1:] - preds[:, :1]
        else:
            scores = preds.softmax(1)
        self.scores.append(scores.cpu())
        self.targets.append(target.cpu())

    def compute(self) -> Tensor:
        """Return the area; the mean over classes that have both members and others, or NaN."""
        _check_any(len(self.targets))
        scores, target = dim_zero_cat(self.scores), dim_zero_cat(self.targets)
        first = 1 if self.classes == 2 else 0
        areas = [_area(scores[:, i], target == first + i) for i in range(scores.shape[1])]
        return torch.stack(areas).nanmean()


class ErrorMean(Metric):
    """Average a function of the error over all elements.

    Args:
        error: from predictions minus targets to what is averaged, element by element.
        final: from the mean to the score, such as the square root.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(
        self, error: Callable[[Tensor], Tensor], final: Callable[[Tensor], Tensor] | None = None
    ):
        super().__init__()
        self.error, self.final = error, final
        self.add_state("total", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take predictions and targets of one shape."""
        preds, target = _check_values(preds, target, self.total.device)
        self.total += self.error(preds - target).sum()
        self.count += target.numel()

    def compute(self) -> Tensor:
        """Return the mean over everything since the reset."""
        _check_any(int(self.count))
        mean = self.total / self.count
        return self.final(mean) if self.final else mean


class Explained(Metric):
    """Compute the share of the targets' variance that the predictions explain.

    Args:
        outputs: number of values a sample; the shares are averaged over them.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    count: Tensor
    total: Tensor
    squares: Tensor
    residual: Tensor

    def __init__(self, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        for name in ("total", "squares", "residual"):
            self.add_state(name, torch.zeros(outputs, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take predictions and targets of one shape: (N, outputs), or (N,) for one output."""
        preds, target = _check_values(preds, target, self.total.device)
        if target.numel() != len(target) * self.outputs:
            raise ValueError(
                f"r2 for {self.outputs} outputs takes (N, {self.outputs}); got "
                f"{tuple(target.shape)}"
            )
        preds, target = preds.reshape(-1, self.outputs), target.reshape(-1, self.outputs)
        self.count += len(target)
        self.total += target.sum(0)
        self.squares += target.square().sum(0)
        self.residual += (target - preds).square().sum(0)

    def compute(self) -> Tensor:
        """Return the share; NaN below two samples or where an output's targets are all equal."""
        _check_any(int(self.count))
        spread = self.squares - self.total.square() / self.count
        # Differences below the sums' rounding error are no variance.
        known = spread > 1e-14 * self.squares
        share = 1 - self.residual / torch.where(known, spread, torch.nan)
        return share.mean()


def _classes(outputs: int) -> int:
    if outputs < 1:
        raise ValueError(f"outputs must be 1 or more; got {outputs}")
    return max(outputs, 2)


def _check_classes(preds: Tensor, target: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) in float32 or better, and indices (N,) in range."""
    preds, target = preds.detach(), target.detach()
    if outputs == 1 and preds.numel() == len(preds):
        flat = preds.reshape(-1, 1)
        preds = torch.cat([torch.zeros_like(flat), flat], 1)  # logit z: probabilities of (0, z)
        target = target.reshape(-1) if target.numel() == len(target) else target
    classes = max(outputs, 2)
    if preds.ndim != 2 or preds.shape[1] != classes or target.shape != preds.shape[:1]:
        raise ValueError(
            f"a metric of {outputs} outputs takes logits (N, {outputs}) and class indices (N,); "
            f"got {tuple(preds.shape)} and {tuple(target.shape)}"
        )
    if target.is_floating_point() and bool((target != target.round()).any()):
        raise ValueError("a metric takes class indices, not probabilities, as targets")
    target = target.long()
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < classes:
        raise ValueError(
            f"class indices must be 0 to {classes - 1}; got {int(target.min())} to "
            f"{int(target.max())}"
        )
    return (preds if preds.dtype == torch.double else preds.float()), target


def _check_values(preds: Tensor, target: Tensor, device: Any) -> tuple[Tensor, Tensor]:
    if preds.shape != target.shape:
        raise ValueError(
            "predictions and targets must have the same shape (broadcasting would compare each "
            f"with each); got {tuple(preds.shape)} and {tuple(target.shape)}"
        )
    return preds.detach().to(device).double(), target.detach().to(device).double()


def _check_any(count: int) -> None:
    if count == 0:
        raise RuntimeError("a metric has no value before its first update; call update() first")


def _area(scores: Tensor, positive: Tensor) -> Tensor:
    """Return Mann and Whitney's U over its largest value: P(score of a positive > negative)."""
    members = int(positive.sum())
    others = len(positive) - members
    if not members or not others or bool(scores.isnan().any()):
        return torch.tensor(torch.nan, dtype=torch.double)
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    rank = (last - (counts - 1) / 2)[place]  # ties share their mean rank
    return (rank[positive].sum() - members * (members + 1) / 2) / (members * others)
