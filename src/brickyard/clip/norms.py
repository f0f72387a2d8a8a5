"""Norms of gradients, right for half precision, for several devices, and across shards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from brickyard.clip import _native

__all__ = ["is_sharded", "joint_norm", "local", "multiply", "tensor_norms", "unit_norms"]

_HALF = (torch.float16, torch.bfloat16)


def joint_norm(grads: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all gradients taken together, in fp32 at least.

    Args:
        grads: tensors of any shapes; several devices or types are fine, and so are DTensors, whose
            norm is that of all their shards (one collective for each mesh dimension).
    """
    if not grads:
        return torch.zeros(())
    if _native.usable(grads):
        return torch.tensor(_native.norms(grads)[0], dtype=torch.float32, device="cpu")
    first = grads[0]
    if not any(map(is_sharded, grads)) and all(
        g.device == first.device and g.dtype == first.dtype for g in grads
    ):
        return torch.linalg.vector_norm(torch.stack(_norms(grads)))
    return torch.linalg.vector_norm(tensor_norms(grads))


def tensor_norms(grads: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of each gradient, in one tensor on the first one's device.

    Args:
        grads: tensors of any shapes; of DTensors, the norm over all shards.
    """
    if not grads:
        return torch.zeros(0)
    if _native.usable(grads):
        return torch.tensor(_native.norms(grads)[1], dtype=torch.float32, device="cpu")
    found: list[Tensor] = [torch.empty(0)] * len(grads)
    for bucket, places in _buckets(grads).items():
        many = [local(_complete(grads[i])) for i in places]
        norms = torch.stack(_norms(many))
        if bucket[2] is not None:
            squares = norms.double().square()
            _sum_over(squares, *bucket[2:])
            norms = squares.sqrt().to(norms.dtype)
        for i, norm in zip(places, norms.unbind(), strict=True):
            found[i] = norm
    kinds = {norm.dtype for norm in found}
    wide = torch.float64 if torch.float64 in kinds else torch.float32
    return torch.stack([norm.to(found[0].device, wide) for norm in found])


def unit_norms(t: Tensor, unitwise: bool = True, like: Tensor | None = None) -> Tensor:
    """Return the norms of a tensor's units, broadcastable against it (its shard, of a DTensor).

    A unit is a slice along the first dimension; a vector or a number is one unit, and so is every
    tensor with ``unitwise=False``.

    Args:
        t: a gradient or parameter.
        unitwise: by slices, or the tensor as a whole.
        like: take this DTensor's layout.
    """
    if is_sharded(t) and like is not None and is_sharded(like):
        t = t.redistribute(like.device_mesh, like.placements)  # pyright: ignore
    t = _complete(t)
    rows = unitwise and t.ndim > 1
    own = local(t)
    axes = tuple(range(1 if rows else 0, own.ndim))
    wide = torch.promote_types(t.dtype, torch.float32)
    norms = torch.linalg.vector_norm(own, dim=axes, keepdim=True, dtype=wide) if axes else (
        own.abs().to(wide))  # fmt: skip
    if not is_sharded(t):
        return norms
    mesh, cut = _layout(t)
    across = tuple(i for i in cut if not (rows and t.placements[i].dim == 0))  # pyright: ignore
    squares = norms.double().square()
    _sum_over(squares, mesh, across)
    return squares.sqrt().to(wide)


def is_sharded(t: Tensor) -> bool:
    """Say whether a tensor is a DTensor, without loading what defines them."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(t, module.DTensor)


def local(t: Tensor) -> Tensor:
    """Return a DTensor's own shard, which shares its memory; other tensors as they are."""
    return t.to_local() if is_sharded(t) else t  # pyright: ignore[reportAttributeAccessIssue]


def multiply(grads: Sequence[Tensor], factors: Any) -> None:
    """Multiply gradients in place.

    Args:
        grads: of any kind; of DTensors, the shards.
        factors: a number or a tensor for all, or a list with one number for each.
    """
    twice = len({g.data_ptr() for g in grads}) < len(grads) if _native.usable(grads) else True
    if not isinstance(factors, Tensor) and not twice:
        _native.scale(grads, factors if isinstance(factors, list) else [factors])
        return
    own: Any = [local(g) for g in grads]
    torch._foreach_mul_(own, factors)  # pyright: ignore[reportPrivateImportUsage]


def _norms(grads: Sequence[Tensor]) -> list[Tensor]:
    """Return the norms of tensors of one device and type, in fp32 at least."""
    many: Any = grads
    if grads[0].dtype in _HALF:  # squares of 300 already overflow in fp16
        return list(torch._foreach_norm(many, 2, torch.float32))  # pyright: ignore[reportPrivateImportUsage]
    return list(torch._foreach_norm(many))  # pyright: ignore[reportPrivateImportUsage]


def _buckets(grads: Sequence[Tensor]) -> dict[tuple[Any, ...], list[int]]:
    """Return places of gradients by device, type, mesh and the mesh dimensions they are cut over.

    The order is that of the gradients, so that all processes agree on the order of collectives.
    """
    found: dict[tuple[Any, ...], list[int]] = {}
    for i, g in enumerate(grads):
        mesh, cut = _layout(g) if is_sharded(g) else (None, ())
        found.setdefault((g.device, g.dtype, mesh, cut), []).append(i)
    return found


def _layout(t: Any) -> tuple[Any, tuple[int, ...]]:
    """Return a DTensor's mesh and the mesh dimensions over which it is cut into pieces."""
    whole = [p.is_replicate() or p.is_partial() for p in t.placements]
    return t.device_mesh, tuple(i for i, same in enumerate(whole) if not same)


def _complete(t: Any) -> Any:
    """Return a DTensor with sums that are still due over processes made."""
    if not is_sharded(t) or not any(p.is_partial() for p in t.placements):
        return t
    from torch.distributed.tensor import Replicate

    return t.redistribute(placements=[Replicate() if p.is_partial() else p for p in t.placements])


def _sum_over(values: Tensor, mesh: Any, dims: Sequence[int]) -> None:
    """Add values up over the processes of some mesh dimensions, in place."""
    for dim in dims:
        torch.distributed.all_reduce(values, group=mesh.get_group(dim))
