"""Evaluate a model on held-out data: in eval mode, without gradients, and back as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.train.data import Batches, TensorBatches
from brickyard.train.tasks.base import Task

if TYPE_CHECKING:
    from brickyard.train.ranks import Ranks

Batch = tuple[Tensor, Tensor]
#: Samples that a task shows in the report.
SHOWN = 8
#: Outputs of an evaluation beyond this are not kept for the page.
_MOST_BYTES = 16 * 2**20


class Metric(Protocol):
    """What torchmetrics' metrics have."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take a batch."""

    def compute(self) -> Tensor:
        """Return the value over all batches since the reset."""
        ...

    def reset(self) -> None:
        """Forget."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode without gradients; afterwards each module is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


class Evaluator:
    """Compute loss and metrics over a split.

    Args:
        batches: the split's batches, in order.
        loss: called by the task; averaged over what the task weighs batches by.
        task: turns outputs and targets into what loss and metrics take.
        metrics: by name.
        monitor: name of the value that picks the best checkpoint.
        mode: ``"min"`` or ``"max"``: what is good for ``monitor``.
        autocast: context of the forward pass.
        picture: shape (H, W) or (C, H, W) of the pictures that flat samples hold.
    """

    def __init__(
        self,
        batches: Batches,
        loss: Callable[..., Tensor],
        task: Task,
        metrics: Mapping[str, Metric] | None = None,
        monitor: str = "loss",
        mode: str = "min",
        autocast: AbstractContextManager[Any] | None = None,
        picture: Sequence[int] | None = None,
    ):
        self.batches = batches
        self.loss = loss
        self.task = task
        self.metrics = dict(metrics or {})
        self.monitor = monitor
        self.mode = mode
        self.autocast = autocast or nullcontext()
        self.picture = tuple(picture or ())
        #: Outputs of the latest run, and of the one that :meth:`keep` was called after.
        self._latest: list[Tensor] = []
        self._kept: tuple[int, list[Tensor]] = (-1, [])
        #: The processes that each have a part of every batch; torchmetrics adds its sums up itself.
        self.ranks: Ranks | None = None

    def better(self, value: float, than: float) -> bool:
        """Say whether ``value`` beats ``than``; a NaN never does, and is beaten by any number."""
        if than != than:
            return value == value
        return value < than if self.mode == "min" else value > than

    def run(self, model: nn.Module) -> dict[str, float]:
        """Return the mean loss and every metric over the split."""
        total, samples = 0.0, 0.0
        # what is read from a dataset may differ the next time, and others have the other parts
        repeats = isinstance(self.batches, TensorBatches) and self.ranks is None
        self._latest, room = [], _MOST_BYTES if repeats else -1.0
        self.task.evaluating()
        for metric in self.metrics.values():
            metric.reset()
        if self.ranks is not None:
            self.ranks.level(model)
        with evaluating(model):
            for x, y in self.batches.epoch(0):
                with self.autocast:
                    output = self.task.forward(model, x)
                    room -= _bytes(output)
                    if room > 0:  # a copy: a view keeps more alive, and metrics may write into it
                        self._latest.append(output.clone())
                    else:
                        self._latest.clear()
                    if not getattr(self.batches, "counts", True):  # another process has it
                        continue
                    if self.task.held_out_loss:
                        weight = self.task.weigh(y)
                        total += float(self.task.loss(self.loss, output, x, y)) * weight
                        samples += weight
                for metric in self.metrics.values():
                    if on_model := getattr(metric, "update_on", None):
                        with self.autocast:
                            on_model(model, x, y)
                    else:
                        metric.update(*self.task.scored(output, y))
            if self.ranks is not None:
                self.ranks.settle()
                total, samples = self.ranks.total([total, samples])
            values = {name: float(metric.compute()) for name, metric in self.metrics.items()}
        return {"loss": total / samples, **values} if self.task.held_out_loss else values

    def keep(self, step: int) -> None:
        """Keep the outputs of the latest run, if they are small: :meth:`inspect` may want them.

        Args:
            step: what to ask for them by.
        """
        self._kept = (step, self._latest)

    def inspect(
        self, model: nn.Module, worst: int = 24, step: int | None = None
    ) -> dict[str, np.ndarray]:
        """Return what the task tells of every sample, and the images with the greatest loss.

        Args:
            model: the network, usually with its best weights.
            worst: how many images with the greatest loss to keep.
            step: that its weights are of; outputs kept for it are not computed again.
        """
        known = list(self._kept[1]) if step == self._kept[0] else []
        rows: list[dict[str, Tensor]] = []
        images: list[Tensor] = []
        self.task.evaluating()
        with evaluating(model):
            hardest: list[Batch] = []
            for x, y in self.batches.epoch(0):
                with self.autocast:
                    output = known.pop(0) if known else self.task.forward(model, x)
                rows.append(self.task.inspect(output, y))
                if not rows[-1]:
                    return self._show(model, x[:SHOWN], y[:SHOWN])
                hard = rows[-1]["loss"].argsort(descending=True)[:SHOWN]
                hardest.append((x[hard], y[hard]))
                if self.picture and x.ndim == 2:
                    x = x.reshape(len(x), -1, *self.picture[-2:])
                if _is_image(x):
                    images.append(x[rows[-1]["loss"].argsort(descending=True)[:worst]].cpu())
            shown = self._hardest(model, rows, hardest)
        found = {key: torch.cat([row[key] for row in rows]).cpu().numpy() for key in rows[0]}
        if images:
            # Each batch kept its own worst; the split's worst are among them.
            kept = torch.cat(
                [row["loss"].argsort(descending=True)[:worst] + start
                 for row, start in zip(rows, _starts(rows), strict=True)]
            )  # fmt: skip
            order = torch.from_numpy(found["loss"])[kept.cpu()].argsort(descending=True)[:worst]
            found["worst_index"] = kept.cpu()[order].numpy()
            found["worst_images"] = _pictures(torch.cat(images)[order])
        return {**found, **shown}

    def _hardest(
        self, model: nn.Module, rows: list[dict[str, Tensor]], hardest: list[Batch]
    ) -> dict[str, np.ndarray]:
        """Return what the task shows of the samples with the greatest loss."""
        losses = torch.cat([row["loss"].sort(descending=True).values[:SHOWN] for row in rows])
        x, y = (torch.cat(parts) for parts in zip(*hardest, strict=True))
        pick = losses.argsort(descending=True)[:SHOWN].to(x.device)
        return self._show(model, x[pick], y[pick])

    def _show(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, np.ndarray]:
        shown = self.task.show(model, x, y)
        return {f"shown_{name}": np.asarray(value) for name, value in shown.items()}


def _bytes(output: Any) -> float:
    """Return the size of an output that is one tensor; others are not kept."""
    return output.numel() * output.element_size() if isinstance(output, Tensor) else math.inf


def _starts(rows: list[dict[str, Tensor]]) -> list[int]:
    sizes = [len(row["loss"]) for row in rows]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _is_image(x: Tensor) -> bool:
    return x.ndim == 4 and x.shape[1] in (1, 3) and min(x.shape[2:]) >= 4


def _pictures(x: Tensor) -> np.ndarray:
    """Return images (M, C, H, W) of any range as uint8 (M, H, W) or (M, H, W, 3)."""
    flat = x.float().flatten(1)
    low, high = flat.min(1).values, flat.max(1).values
    scale = (high - low).clamp_min(1e-8)
    unit = (x.float() - low[:, None, None, None]) / scale[:, None, None, None]
    pixels = (unit * 255).round().to(torch.uint8)
    return (pixels[:, 0] if x.shape[1] == 1 else pixels.permute(0, 2, 3, 1)).numpy()
