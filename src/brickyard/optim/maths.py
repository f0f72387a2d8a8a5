"""What a rule may call beside torch: these work on numbers, on tensors and while tracing.

A hyperparameter is a number on the host, evaluated in float64 once per step. Python's ``if``,
``min`` and ``math.sqrt`` cannot be traced; ``when``, ``minimum`` and ``sqrt`` here can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Proxy

from brickyard.optim import ops

__all__ = ["guard", "maximum", "minimum", "per_matrix", "sqrt", "total", "unit_sum", "when"]


def _traced(*values: Any) -> Proxy | None:
    return next((v for v in values if isinstance(v, Proxy)), None)


def _record(proxy: Proxy, function: Callable[..., Any], *args: Any) -> Any:
    return proxy.tracer.create_proxy("call_function", function, args, {})


def when(condition: Any, yes: Any, no: Any) -> Any:
    """Return ``yes`` where the condition holds, else ``no``.

    Args:
        condition: a comparison of hyperparameters (decided once per step) or of tensors.
        yes: number or tensor.
        no: number or tensor.
    """
    found = _traced(condition, yes, no)
    if found is not None:
        return _record(found, when, condition, yes, no)
    if isinstance(condition, torch.Tensor):
        return torch.where(condition, yes, no)
    return yes if condition else no


def sqrt(x: Any) -> Any:
    """Return the square root; NaN of negative numbers, never an error."""
    if _traced(x) is not None:
        return _record(x, sqrt, x)
    return torch.sqrt(x) if isinstance(x, torch.Tensor) else ops.root(x)


def maximum(a: Any, b: Any) -> Any:
    """Return the larger of two numbers or tensors; NaN when one is."""
    return _pair(maximum, torch.maximum, ops.larger, a, b)


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller of two numbers or tensors; NaN when one is."""
    return _pair(minimum, torch.minimum, ops.smaller, a, b)


def _pair(own: Callable[..., Any], torchs: Callable[..., Any], host: Callable[..., Any],
          a: Any, b: Any) -> Any:  # fmt: skip
    found = _traced(a, b)
    if found is not None:
        return _record(found, own, a, b)
    tensor = next((v for v in (a, b) if isinstance(v, torch.Tensor)), None)
    if tensor is None:
        return host(a, b)
    return torchs(*(torch.as_tensor(v, dtype=tensor.dtype, device=tensor.device) for v in (a, b)))


def unit_sum(x: Any) -> Any:
    """Return the sum over all dimensions but the first: one value per output unit of a layer.

    A vector or a single number is one unit.

    Args:
        x: the tensor.

    Example:
        >>> unit_sum(torch.ones(2, 3, 5)).flatten().tolist()
        [15.0, 15.0]
    """
    found = _traced(x)
    if found is not None:
        return _record(found, unit_sum, x)
    return x.sum(tuple(range(1, x.ndim)) if x.ndim > 1 else tuple(range(x.ndim)), keepdim=True)


class IncompleteError(Exception):
    """A sum over all tensors is not known yet: the pass stops here and is repeated."""


class Totals:
    """Collect sums over all tensors while the reference backend runs a rule tensor by tensor.

    ``total`` called for the n-th time in one pass gives the n-th known sum; where that is not known
    yet it notes the tensor's share and stops the pass.
    """

    def __init__(self) -> None:
        self.known: dict[Any, float] = {}
        self.open: dict[Any, float] = {}
        self.place: Any = None
        self._calls = 0

    def begin(self, place: Any) -> None:
        """Start the pass over one piece of the chain for one tensor."""
        self.place, self._calls = place, 0

    def ask(self, share: Any) -> float:
        """Return the sum that this call stands for, or note the share and stop."""
        key, self._calls = (self.place, self._calls), self._calls + 1
        if key in self.known:
            return self.known[key]
        self.open[key] = self.open.get(key, 0.0) + float(share)
        raise IncompleteError

    def close(self) -> bool:
        """Make the noted sums known; return whether there were any."""
        self.known.update(self.open)
        found, self.open = bool(self.open), {}
        return found


#: The totals of the reference backend's running step; None outside of it.
CURRENT: list[Totals] = []


def total(share: Any) -> Any:
    """Return the sum of one number per tensor over all tensors of the optimizer.

    Args:
        share: what this tensor contributes, for example ``(u * u).sum()``.

    Example:
        >>> float(total(torch.tensor(2.0)))  # outside of an optimizer: this tensor is all there is
        2.0
    """
    found = _traced(share)
    if found is not None:
        return _record(found, total, share)
    return CURRENT[-1].ask(share) if CURRENT else float(share)


def guard(condition: Any, error: str = "") -> None:
    """Skip the whole step, which then changes and counts nothing, unless the condition holds.

    Args:
        condition: of hyperparameters and totals.
        error: raise this instead of skipping.
    """
    found = _traced(condition)
    if found is not None:
        _record(found, guard, condition, error)
    # Numbers need nothing: the engine asks the host program, whatever the backend, before it.


def per_matrix(function: Callable[[torch.Tensor], torch.Tensor], x: Any) -> Any:
    """Apply a function of a whole tensor, such as a matrix product, between two native passes.

    Args:
        function: takes and returns one tensor, of one shape; it must not change its argument.
        x: the tensor.
    """
    found = _traced(x)
    if found is not None:
        return _record(found, per_matrix, function, x)
    return function(x)
