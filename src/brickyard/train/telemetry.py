"""How large gradients, steps and weights are, layer by layer, from the optimizer's own pass."""

from __future__ import annotations

import math
import statistics
from typing import Any

from torch.distributed.tensor import DTensor

from brickyard.optim import Optimizer

__all__ = ["Telemetry"]


class Telemetry:
    """Ask the optimizer for norms at some of the steps that are logged.

    Math:
        ratio of a layer = ||w_new - w_old|| / ||w_new||, for weights with two dimensions or more

    Norms come out of the pass that takes the step, so such a step takes a tenth to a quarter
    longer; that is why nobody gets them unasked. It runs another kernel, whose rounding may differ
    in the last bit.

    Args:
        optimizer: one of brickyard's.
        every: steps between two looks, a multiple of those between the training rows.
        total: steps of the run; at the last one there is a look, too.

    Raises:
        TypeError: the optimizer makes no norms.
        ValueError: its parameters are cut over processes, so that each knows only its part.

    Example:
        >>> import torch
        >>> from brickyard.optim import SGD
        >>> layer = torch.nn.Linear(3, 2)
        >>> watch = Telemetry(SGD(layer.parameters(), lr=0.1), every=1, total=1)
        >>> layer(torch.ones(1, 3)).sum().backward()
        >>> watch.before(1)
        >>> watch.optimizer.step()
        >>> sorted(watch.values())
        ['update_ratio', 'update_ratio_high', 'update_ratio_low']
    """

    def __init__(self, optimizer: Any, every: int, total: int):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"telemetry needs an optimizer that makes norms in its own pass; "
                f"{type(optimizer).__name__} does not: leave telemetry out, or take adamw or sgd"
            )
        params = [p for group in optimizer.param_groups for p in group["params"]]
        if any(isinstance(p, DTensor) for p in params):
            raise ValueError("telemetry knows no sums over processes: leave it out with shards")
        self.optimizer, self.every, self.total = optimizer, every, total
        self.layers: dict[str, dict[str, float]] = {}
        self._layers = [p.ndim > 1 for p in params]

    def before(self, step: int) -> None:
        """Ask for norms if ``step``, which is about to be taken, is one to look at."""
        self.optimizer.telemetry = step % self.every == 0 or step >= self.total

    def values(self) -> dict[str, float]:
        """Return the median, lowest and highest ratio over the layers; empty after a skipped step.

        The optimizer stops making norms until the next call of ``before``. The norms of every
        parameter are in ``layers`` then: ``grad_norm`` (what the optimizer was given: clipped, and
        without a loss scale), ``update_norm``, ``param_norm`` and ``update_ratio``.
        """
        self.layers = {}
        if not self.optimizer.telemetry or self.optimizer.last_skipped:
            return {}
        self.layers = self.optimizer.norms()
        self.optimizer.telemetry = False
        ratios = []
        for norms, layer in zip(self.layers.values(), self._layers, strict=True):
            size = norms.get("param_norm", 0.0)
            if size > 0.0 and math.isfinite(size):
                norms["update_ratio"] = norms["update_norm"] / size
                if layer:
                    ratios.append(norms["update_ratio"])
        if not ratios:
            return {}
        return {
            "update_ratio": statistics.median(ratios),
            "update_ratio_low": min(ratios),
            "update_ratio_high": max(ratios),
        }
