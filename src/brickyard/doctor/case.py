"""What the ladder's questions are about: a model, its loss and one batch, always as copies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.doctor.observe.tensors import first_tensor

__all__ = ["Case", "Rung", "change_floats", "change_tensors", "drawn_sum", "leaf"]


@dataclass(frozen=True)
class Rung:
    """Hold what one question gave.

    Args:
        name: of the question.
        passed: whether it held; None when it does not apply here.
        seen: the evidence, in numbers.
        try_: what to change when it did not hold.
    """

    name: str
    passed: bool | None
    seen: str
    try_: str = ""


class Case:
    """Hold what the questions are about.

    Args:
        model: the network; never changed.
        loss: called with output, inputs and targets.
        x: inputs of one batch.
        y: targets.
        steps: of the trainings on a copy.
        seconds: that one training may take at the most; then it ends earlier, and says so.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any, Any], Tensor], x: Any, y: Any,
                 steps: int, seconds: float) -> None:  # fmt: skip
        self.model, self._loss, self._x, self._y = model, loss, x, y
        self.steps, self.seconds = steps, seconds
        self.targets = getattr(loss, "targets", True)  # whether it reads any
        self.fits: dict[str, tuple[float, float, int, float]] = {}

    @property
    def x(self) -> Any:
        """Return the inputs, fresh."""
        return _cloned(self._x)

    @property
    def y(self) -> Any:
        """Return the targets, fresh."""
        return _cloned(self._y)

    def copy(self, training: bool) -> nn.Module:
        """Return a copy of the model in one mode, without gradients."""
        made = copy.deepcopy(self.model).train(training)
        for p in made.parameters():
            p.grad = None
        return made

    def loss(self, output: Any, x: Any, y: Any) -> Tensor:
        """Return the loss of an output; never the module that training will use."""
        return self._loss(output, x, y)

    def fit(self, x: Any, rate: float) -> tuple[float, float, int]:
        """Train a copy on one batch; return first loss, last loss and the steps taken.

        Dropout is off: a network that cannot learn a batch without noise will not with it.

        Args:
            x: the inputs.
            rate: of Adam.
        """
        model = self.copy(True)
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
        params = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(params, lr=rate)
        first, last, taken, start = math.nan, math.nan, 0, perf_counter()
        for taken in range(1, self.steps + 1):
            optimizer.zero_grad()
            value = self.loss(model(_cloned(x)), _cloned(x), self.y)
            last = float(value.detach())
            first = last if taken == 1 else first
            if not math.isfinite(last) or perf_counter() - start > self.seconds:
                break
            value.backward()
            optimizer.step()
        return first, last, taken


def _cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _cloned(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_cloned, value))
    return type(value)(map(_cloned, value)) if isinstance(value, list | tuple) else value


@contextmanager
def leaf(case: Case) -> Iterator[tuple[nn.Module, Any, Callable[[], Tensor | None]]]:
    """Give a model in evaluation mode, inputs, and what to differentiate by after the call.

    That is the inputs themselves, or what the first embedding made of whole numbers.
    """
    model, x = case.copy(False), case.x
    given = first_tensor(x)
    if isinstance(given, Tensor) and given.is_floating_point():
        source = given.requires_grad_()
        yield model, x, lambda: source
        return
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        made = output.detach().requires_grad_() if not found else output
        found.append(made)
        return made

    first = next((m for m in model.modules() if isinstance(m, nn.Embedding)), None)
    handle = None if first is None else first.register_forward_hook(keep)
    try:
        yield model, x, lambda: found[0] if found else None
    finally:
        if handle is not None:
            handle.remove()


def drawn_sum(values: Tensor) -> Tensor:
    """Return a sum with random weights: a plain one is constant for a softmax or a norm."""
    return (values * torch.randn_like(values)).sum()


def change_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: change_tensors(v, change) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(change_tensors(v, change) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(change_tensors(v, change) for v in value)
    return value


def change_floats(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change_tensors(value, lambda t: change(t) if t.is_floating_point() else t)
