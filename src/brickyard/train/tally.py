"""Measure the training batches themselves, from the outputs that training made anyway."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from brickyard.train.evaluate import Metric
from brickyard.train.tasks import Classification, Task

#: Outputs of the latest batches are kept up to this size; a checkpoint holds them too.
MOST_BYTES = 1 << 22


class Tally:
    """Keep the outputs of the latest training batches, and score them when asked.

    Nothing runs twice: these are the outputs that the loss was computed from, so dropout and
    augmentation were on, and the weights still moved between the batches.

    Args:
        task: turns outputs and targets into what metrics take.
        metrics: by name; they may be the evaluator's.
        most: bytes of outputs and targets that are kept; the newest batch always is.
    """

    def __init__(self, task: Task, metrics: Mapping[str, Metric], most: int = MOST_BYTES):
        self.task, self.metrics, self.most = task, dict(metrics), most
        self._kept: deque[tuple[Tensor, Tensor]] = deque()
        self._bytes = 0

    def add(self, output: Any, y: Tensor) -> None:
        """Take a batch; mixed labels have no right answer to score, and are left out."""
        if not isinstance(output, Tensor):
            return
        if isinstance(self.task, Classification) and y.is_floating_point():
            return
        self._kept.append((output.detach(), y))
        self._bytes += output.nbytes + y.nbytes
        while self._bytes > self.most and len(self._kept) > 1:
            self._bytes -= sum(t.nbytes for t in self._kept.popleft())

    def compute(self) -> dict[str, float]:
        """Return every metric over the batches since the last call; empty without batches."""
        if not self._kept:
            return {}
        output, y = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        self._kept.clear()
        self._bytes = 0
        values = {}
        for name, metric in self.metrics.items():
            metric.reset()
            metric.update(*self.task.scored(output, y))
            values[name] = float(metric.compute())
        return values

    def state_dict(self) -> list[list[Tensor]]:
        """Return the batches that are not scored yet."""
        return [[output.clone(), y.clone()] for output, y in self._kept]

    def load_state_dict(self, state: list[list[Tensor]]) -> None:
        """Put back what ``state_dict`` returned."""
        self._kept = deque((output, y) for output, y in state)
        self._bytes = sum(output.nbytes + y.nbytes for output, y in self._kept)
