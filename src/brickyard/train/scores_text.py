"""The classes behind the metrics of sequences; apart because torchmetrics takes long to import."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

__all__ = ["TokenLoss"]


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
