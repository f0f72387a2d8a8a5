"""Small questions about tensors, at bounded cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from brickyard.doctor.thresholds import ELEMENTS

try:
    from torch._C._functorch import peek_interpreter_stack
except ImportError:  # another torch: nothing says so, errors stay inside

    def peek_interpreter_stack() -> Any:
        """Return nothing."""
        return None


def transformed() -> bool:
    """Say whether a transform of torch.func (vmap, grad) is at work: its values are hidden."""
    return peek_interpreter_stack() is not None


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor, also of a sparse one."""
    if tensor.is_sparse:
        return tensor.coalesce().values()
    return tensor


def any_nonzero(tensor: torch.Tensor) -> bool:
    """Say whether any element is not zero; NaN is not zero."""
    tensor = dense(tensor.detach())
    return tensor.numel() > 0 and bool(tensor.any())


def sample(tensor: torch.Tensor, most: int = ELEMENTS) -> torch.Tensor:
    """Return some elements at a fixed distance, as a view where possible."""
    flat = tensor.detach().reshape(-1)
    count = flat.numel()
    if count <= most:
        return flat
    stride = count // most
    return flat[: most * stride : stride]


def length(values: torch.Tensor) -> float:
    """Return the Euclidean norm of a vector; a dot product takes a fifth of a norm's time."""
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    square = values.dot(values).item() if values.is_floating_point() else 0.0
    if 1e-30 < square < math.inf:  # otherwise it overflowed, or there is something to look at
        return math.sqrt(square)
    values = values if values.is_floating_point() or values.is_complex() else values.float()
    return torch.linalg.vector_norm(values).item()


def same_rows(tensor: torch.Tensor) -> bool:
    """Say whether all rows are equal; zeros count."""
    rows = tensor.detach().flatten(1)
    return bool((rows[:1] == rows).all())


def finite(tensor: torch.Tensor) -> bool:
    """Say whether every element is finite."""
    tensor = dense(tensor.detach())
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    total = tensor.sum().item()  # in a tenth of the time; its own overflow makes it doubtful
    return total - total == 0.0 or bool(torch.isfinite(tensor).all())


def first_tensor(value: Any) -> torch.Tensor | None:
    """Return the first tensor in a nest of tuples, lists, dicts and objects with fields."""
    return next(iter(tensors(value)), None)


def tensors(value: Any, depth: int = 4) -> list[torch.Tensor]:
    """Return the tensors in a nest of tuples, lists, dicts and dataclass-like objects."""
    if isinstance(value, torch.Tensor):
        return [value]
    if depth == 0 or value is None:
        return []
    if isinstance(value, list | tuple):
        return [t for v in value for t in tensors(v, depth - 1)]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v, depth - 1)]
    fields = getattr(value, "__dataclass_fields__", None)
    if fields:
        return [t for name in fields for t in tensors(getattr(value, name, None), depth - 1)]
    return []


def with_tensors(value: Any, change: Any) -> Any:
    """Return the nest with every tensor replaced by ``change(tensor)``."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(with_tensors(v, change) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(with_tensors(v, change) for v in value)
    if isinstance(value, dict):
        return {k: with_tensors(v, change) for k, v in value.items()}
    return value


def fingerprint(params: list[torch.Tensor], most: int = 64) -> tuple[float, ...]:
    """Return a few elements of every tensor: equal if and (nearly) only if nothing changed."""
    found: list[float] = []
    for p in params:
        found += [float(v) for v in sample(p, most).double().tolist()]
    return tuple(found)
