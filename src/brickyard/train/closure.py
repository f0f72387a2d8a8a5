"""Optimizers that ask for gradients themselves: which they are, and random numbers that repeat."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.optim import Optimizer

from brickyard.optim import NAG


class NonFinite(Exception):  # noqa: N818  a signal inside a step, never seen by users
    """The gradients are not finite, so the optimizer must not step."""


def innermost(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that takes the steps, inside of wrappers such as Lookahead."""
    while isinstance(getattr(optimizer, "inner", None), Optimizer):
        optimizer = optimizer.inner  # pyright: ignore[reportAttributeAccessIssue]
    return optimizer


def needs_closure(optimizer: Optimizer) -> bool:
    """Say whether ``step`` cannot do without a closure."""
    inner = innermost(optimizer)
    if isinstance(inner, NAG):
        return True
    closure = inspect.signature(inner.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


class Repeatable:
    """Give every run of a closure the random numbers that the first one had.

    Args:
        device: where the model draws, besides the CPU.
    """

    def __init__(self, device: torch.device):
        self._module = None if device.type == "cpu" else torch.get_device_module(device)
        self._states: list[Tensor] = []

    def start(self) -> None:
        """Begin a run: remember the random numbers' state, or go back to it."""
        if not self._states:
            self._states = [torch.get_rng_state()]
            if self._module is not None:
                self._states.append(self._module.get_rng_state())
            return
        torch.set_rng_state(self._states[0])
        if self._module is not None:
            self._module.set_rng_state(self._states[1])
