"""The classes behind the metrics of sequences; apart because torchmetrics takes long to import."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

__all__ = ["EditDistance", "TokenLoss", "WholeSequences", "edit_distances"]


class TokenLoss(Metric):
    """Sum the surprise of tokens, in float64.

    Args:
        outputs: number of different tokens.
        classes: the tokens as text, by index, to count characters; empty to count tokens.
        bits: return bits a character instead of perplexity.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    nats: Tensor
    count: Tensor

    def __init__(self, outputs: int, classes: Sequence[str] = (), bits: bool = False):
        super().__init__()
        if classes and len(classes) != outputs:
            raise ValueError(f"there are {len(classes)} names for {outputs} tokens; give all")
        self.outputs, self.bits = outputs, bits
        self.lengths = torch.tensor([len(name) for name in classes]) if classes else None
        self.add_state("nats", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take logits (tokens, outputs) and the tokens that came (tokens,)."""
        if preds.ndim != 2 or preds.shape[1] != self.outputs or target.shape != preds.shape[:1]:
            raise ValueError(
                f"a metric of {self.outputs} tokens takes logits (tokens, {self.outputs}) and "
                f"indices (tokens,); got {tuple(preds.shape)} and {tuple(target.shape)}"
            )
        each = F.cross_entropy(preds.detach().float(), target, reduction="none")
        self.nats += each.sum(dtype=torch.double).to(self.nats.device)
        known = self.lengths is not None
        lengths = self.lengths[target.cpu()].sum() if known else target.numel()  # pyright: ignore
        self.count += int(lengths)

    def compute(self) -> Tensor:
        """Return perplexity, or bits a character."""
        if not int(self.count):
            raise RuntimeError("a metric has no value before its first update; call update() first")
        mean = self.nats / self.count
        return mean / math.log(2) if self.bits else mean.exp()


class EditDistance(Metric):
    """Sum the edit distances between read and true sequences.

    Args:
        outputs: number of different symbols.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    errors: Tensor
    symbols: Tensor
    right: Tensor
    count: Tensor

    def __init__(self, outputs: int):
        super().__init__()
        self.outputs = outputs
        for name in ("errors", "symbols", "right", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take read and true symbols, (N, any) and (N, any), -1 behind the last of each."""
        if preds.ndim != 2 or target.ndim != 2 or len(preds) != len(target):
            raise ValueError(
                "a metric of sequences takes read and true symbols (N, length), -1 behind the "
                f"last; got {tuple(preds.shape)} and {tuple(target.shape)}"
            )
        found = edit_distances(preds, target)
        self.errors += found.sum().to(self.errors.device)
        self.symbols += (target >= 0).sum().to(self.symbols.device)
        self.right += (found == 0).sum().to(self.right.device)
        self.count += len(found)

    def compute(self) -> Tensor:
        """Return the errors a true symbol over everything since the reset."""
        if not int(self.count):
            raise RuntimeError("a metric has no value before its first update; call update() first")
        return self.errors.double() / self.symbols.clamp_min(1)


class WholeSequences(EditDistance):
    """Count the sequences without an error.

    Args:
        outputs: number of different symbols.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the share of sequences without an error since the reset."""
        if not int(self.count):
            raise RuntimeError("a metric has no value before its first update; call update() first")
        return self.right.double() / self.count


def edit_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return how many insertions, deletions and replacements lead from each row to the other's.

    Args:
        a: symbols, shape (N, S), -1 behind the last.
        b: symbols, shape (N, T), -1 behind the last.

    Example:
        >>> edit_distances(torch.tensor([[3, 1, -1]]), torch.tensor([[1, 2]]))
        tensor([2])
    """
    ends = [(t >= 0).sum(1) for t in (a, b)]
    rows = int(ends[0].max()) if len(a) else 0
    width = int(ends[1].max()) if len(b) else 0
    last = torch.arange(width + 1, device=a.device).repeat(len(a), 1)
    found = torch.where(ends[0] == 0, ends[1], 0)
    for i in range(rows):
        row = torch.empty_like(last)
        row[:, 0] = i + 1
        for j in range(width):
            other = last[:, j] + (a[:, i] != b[:, j])
            row[:, j + 1] = torch.minimum(torch.minimum(last[:, j + 1], row[:, j]) + 1, other)
        last = row
        at_end = row.gather(1, ends[1][:, None]).squeeze(1)
        found = torch.where(ends[0] == i + 1, at_end, found)
    return found
