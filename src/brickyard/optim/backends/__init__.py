"""Backends: four ways to run one plan, and the choice between them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch

from brickyard.clip.norms import is_sharded
from brickyard.compiler import BuildError
from brickyard.optim.plan import Plan
from brickyard.optim.rule import Slot

NAMES = ("auto", "native", "foreach", "compiled", "eager")
_SAID: set[str] = set()


class Run(Protocol):
    """Run one plan over one bucket.

    ``programs`` are the plan's host programs by stage; ``name`` and ``why`` say for ``explain``
    which backend it is and why not another.
    """

    plan: Plan
    programs: list[Any]
    name: str
    why: str

    def stage(self, stage: int, scalars: Sequence[float], totals: Mapping[Any, float]) -> Mapping[
            Any, float]:  # fmt: skip
        """Run one stage; return this bucket's share of the sums over all tensors."""
        ...

    def outputs(self) -> Mapping[str, list[float]]:
        """Return the sums per tensor that the plan was asked for."""
        ...


def choose(backend: str, plan: Plan, bucket: Any) -> Run:
    """Return the run of the best backend that can do it, at most the one asked for.

    Args:
        backend: one of ``NAMES``.
        plan: what to run.
        bucket: on what.
    """
    if hasattr(bucket, "placements"):
        from brickyard.optim.backends import sharded

        return sharded.choose(backend, plan, bucket)
    return choose_plain(backend, plan, bucket)


def choose_plain(backend: str, plan: Plan, bucket: Any) -> Run:
    """Return the run of the best backend on the tensors of a bucket as they are.

    Args:
        backend: one of ``NAMES``.
        plan: what to run.
        bucket: on what.
    """
    from brickyard.optim.backends.eager import EagerRun
    from brickyard.optim.backends.foreach import ForeachRun
    from brickyard.optim.backends.native import NativeRun, obstacle

    if backend == "eager":
        return EagerRun(plan, bucket)
    if backend == "compiled":
        from brickyard.optim.backends.compiled import CompiledRun

        return CompiledRun(plan, bucket)
    why = "asked for"
    if backend in ("auto", "native"):
        why = obstacle(plan, bucket.params[0])
        if not why:
            try:
                return NativeRun(plan, bucket)
            except BuildError as error:
                why = str(error)
                say_once(f"brickyard's native optimizers are off, foreach runs instead: {why}")
    run = ForeachRun(plan, bucket)
    run.why = why
    return run


def choose_all(backend: str, plans: Sequence[Plan], buckets: Sequence[Any]) -> list[Run]:
    """Return the runs of several plans; what must be compiled is compiled side by side.

    Args:
        backend: one of ``NAMES``.
        plans: what to run.
        buckets: on what, each.
    """
    if len(plans) < 2 or backend not in ("auto", "native"):
        return [choose(backend, *pair) for pair in zip(plans, buckets, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(choose, [backend] * len(plans), plans, buckets))


def say_once(text: str) -> None:
    """Warn once per process."""
    if text not in _SAID:
        _SAID.add(text)
        warnings.warn(text, stacklevel=2)


def slot_like(slot: Slot, p: torch.Tensor, dtype: torch.dtype, empty: bool = False) -> torch.Tensor:
    """Return a slot's first value for a parameter (or memory for it).

    Args:
        slot: name and init.
        p: the parameter.
        dtype: storage type of the slot.
        empty: leave the values undefined.
    """
    p = p.detach()
    if slot.init in ("rows", "cols"):
        if p.ndim < 2:
            raise ValueError(
                f"{slot.name} has one value per row or column of a matrix, which a parameter of "
                f"shape {tuple(p.shape)} is not: use where='matrices'"
            )
        shape = (*p.shape[:-1], 1) if slot.init == "rows" else (*p.shape[:-2], 1, p.shape[-1])
        if is_sharded(p):
            from brickyard.optim.backends.sharded import new_rows

            return new_rows(shape, p, dtype)
        return torch.zeros(shape, dtype=dtype, device=p.device)
    if empty:
        return torch.empty_like(p, dtype=dtype)
    if slot.init == "param":
        return torch.empty_like(p, dtype=dtype).copy_(p)
    return torch.full_like(p, 1.0 if slot.init == "ones" else 0.0, dtype=dtype)


def put(value: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """Copy a saved tensor into a slot, whichever of the two is cut over processes."""
    if is_sharded(into) or is_sharded(value):
        from brickyard.optim.backends.sharded import cut_like

        value = cut_like(value, into)
    return into.copy_(value)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of arithmetic for a storage type: fp64 for fp64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def size_of(name: str, p: torch.Tensor) -> float:
    """Return a tensor's number of elements, rows and so on, by the name of a ``size`` node."""
    rows, cols = (p.shape[-2], p.shape[-1]) if p.ndim > 1 else (1, p.numel())
    return float({"numel": p.numel(), "rows": rows, "cols": cols,
                  "row_count": p.numel() // max(cols, 1), "col_count": p.numel() // max(rows, 1),
                  "matrices": p.numel() // max(rows * cols, 1)}[name])  # fmt: skip


def layout(p: Any) -> Any:
    """Return a DTensor's mesh and how it is cut; None for other tensors."""
    return (p.device_mesh, p.placements) if is_sharded(p) else None


def sharded_bucket() -> Any:
    """Return the kind of bucket that holds DTensors; what defines them is loaded by now."""
    from brickyard.optim.backends.sharded import ShardedBucket

    return ShardedBucket
