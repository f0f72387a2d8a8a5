"""Steps on DTensors: every process works on its own shards; only sums travel.

Where a plan is elementwise, its kernel runs on the shards as on any tensors, and sums over all
tensors are added up over the processes. Where rows, columns, units or whole tensors have sums of
their own, those are added up where the sum runs along a dimension that is cut. Only matrix
operations see whole matrices: one is gathered, and every process keeps its shard of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, zeros

from brickyard.clip.norms import local
from brickyard.optim import backends
from brickyard.optim.backends.foreach import ForeachRun
from brickyard.optim.engine import Bucket
from brickyard.optim.ir import REDUCTIONS, Node, Space
from brickyard.optim.plan import Plan


class ShardedBucket(Bucket):
    """Hold the shards of parameters that take the same step; all lie on one mesh in one way."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._whole_held = self.held
        first: Any = self.whole[0]
        self.mesh, self.placements = first.device_mesh, first.placements
        self._take()

    def _take(self) -> None:
        """Take the shards: they share memory with the tensors that they belong to."""
        with torch.no_grad():
            self.params = [local(p) for p in self.whole]
            self.held = [[local(x) for x in many] for many in self._whole_held]
        self.strides = [p.stride() for p in self.params]
        self.plain = all(p.is_contiguous() for p in self.params)
        self.tensors = [*self.params, *(x for many in self.held for x in many)]

    def gradients(self) -> list[Any]:
        """Return the gradients' shards, cut as the parameters are."""
        self._take()
        return [None if p.grad is None else _as(p.grad, p) for p in self.whole]

    def cut(self, space: Space, k: int) -> tuple[int, ...]:
        """Return the mesh dimensions over which a value of one parameter is cut.

        Args:
            space: the value's.
            k: place of the parameter.
        """
        ndim = self.whole[k].ndim
        kept = {
            Space.ELEM: set(range(ndim)),
            Space.ROW: set(range(ndim - 1)),
            Space.COL: set(range(ndim)) - {ndim - 2},
            Space.UNIT: {0} if ndim > 1 else set(),
            Space.MATRIX: set(range(ndim - 2)),
        }.get(space, set())
        return tuple(i for i, place in enumerate(self.placements)
                     if isinstance(place, Shard) and place.dim % max(ndim, 1) in kept)  # fmt: skip

    def add_up(self, values: list[Tensor], over: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Return values added up over processes, with one message for each mesh dimension.

        Args:
            values: a tensor for every parameter.
            over: for every one, the mesh dimensions to add up over.
        """
        found = list(values)
        for dim in range(len(self.placements)):
            places = [k for k, dims in enumerate(over) if dim in dims]
            if not places:
                continue
            flat = torch.cat([found[k].reshape(-1).double() for k in places])
            torch.distributed.all_reduce(flat, group=self.mesh.get_group(dim))
            parts = flat.split([found[k].numel() for k in places])
            for k, part in zip(places, parts, strict=True):
                found[k] = part.reshape(found[k].shape).to(found[k].dtype)
        return found


def _as(grad: Any, p: Any) -> Tensor:
    """Return a gradient's shard, cut as its parameter is."""
    if not isinstance(grad, DTensor):
        raise TypeError("the gradient of a DTensor must be one too; got a plain tensor")
    with torch.no_grad():
        if grad.placements != p.placements:
            grad = grad.redistribute(placements=p.placements)
        return grad.to_local()


def new_rows(shape: Sequence[int], p: Any, dtype: torch.dtype) -> Tensor:
    """Return zeros with one value a row or column of a DTensor, cut as it is where it can be.

    Args:
        shape: of the zeros: the parameter's with one dimension of 1.
        p: the parameter.
        dtype: of the zeros.
    """
    from torch.distributed.tensor import Replicate

    cut = [place if not isinstance(place, Shard) or shape[place.dim] == p.shape[place.dim]
           else Replicate() for place in p.placements]  # fmt: skip
    return zeros(*shape, dtype=dtype, device_mesh=p.device_mesh, placements=cut)


def cut_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a tensor laid out over processes as another one is; every process holds it whole.

    Args:
        value: a tensor of the same shape.
        like: where it shall go.
    """
    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        value = value.to(like.device)
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    if isinstance(value, DTensor) and not isinstance(like, DTensor):
        return value.full_tensor()
    return value


def choose(backend: str, plan: Plan, bucket: ShardedBucket) -> Any:
    """Return the run of a plan on shards.

    Args:
        backend: what was asked for.
        plan: what to run.
        bucket: on what.
    """
    if _additive(plan):
        return _JoinedRun(plan, bucket, backends.choose_plain(backend, plan, bucket))
    run = ShardedRun(plan, bucket)
    run.why = "sums along dimensions that are cut over processes"
    return run


def _additive(plan: Plan) -> bool:
    """Say whether processes need nothing of each other but sums over all tensors."""
    sums = [n for n in plan.alive if n.op in REDUCTIONS]
    users = [u for n in sums for u in plan.alive if n in u.args]
    return (
        not plan.shaped
        and not any(n.op in ("matrix", "size") for n in plan.alive)
        and all(n.op == "sum" and n.args[0].space is Space.ELEM for n in sums)
        and all(u.op == "total" for u in users)
        and all(n.args[0] in sums for n in plan.totals)
    )


class _JoinedRun:
    """Run a plan on the shards, and add its sums up over the processes."""

    def __init__(self, plan: Plan, bucket: ShardedBucket, inner: Any) -> None:
        self.plan, self.bucket, self.inner = plan, bucket, inner
        self.programs, self.name = inner.programs, inner.name
        self.why = inner.why
        self._over = bucket.cut(Space.ELEM, 0)

    def stage(self, stage: int, scalars: Sequence[float], totals: Mapping[Any, float]) -> Mapping[
            Any, float]:  # fmt: skip
        sums = self.inner.stage(stage, scalars, totals)
        if not sums:
            return sums
        values = torch.tensor([sums[key] for key in sorted(sums)], dtype=torch.float64)
        (added,) = self.bucket.add_up([values], [self._over])
        return dict(zip(sorted(sums), added.tolist(), strict=True))

    def outputs(self) -> Mapping[str, list[float]]:
        found = {}
        for name, values in self.inner.outputs().items():
            (added,) = self.bucket.add_up([torch.tensor(values, dtype=torch.float64)], [self._over])
            found[name] = added.tolist()
        return found


class ShardedRun(ForeachRun):
    """Replay a plan on lists of shards.

    Args:
        plan: what to run.
        bucket: the shards.
    """

    name = "foreach, sharded"
    bucket: ShardedBucket

    def _compute(self, node: Node) -> Any:
        bucket = self.bucket
        if node.op == "size":
            return [backends.size_of(node.attr, p) for p in bucket.whole]
        if node.op == "matrix":
            given = self._values[node.args[0].number]
            return [self._matrix(node, k, x) for k, x in enumerate(given)]
        found = super()._compute(node)
        if node.op in REDUCTIONS:
            before, after = node.args[0].space, node.space
            over = [tuple(i for i in bucket.cut(before, k) if i not in bucket.cut(after, k))
                    for k in range(len(bucket.params))]  # fmt: skip
            return bucket.add_up(list(found), over)
        return found

    def _matrix(self, node: Node, k: int, x: Tensor) -> Tensor:
        p: Any = self.bucket.whole[k]
        whole = DTensor.from_local(
            x, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
        ).full_tensor()
        made = distribute_tensor(node.attr(whole), p.device_mesh, p.placements, src_data_rank=None)
        return made.to_local()
