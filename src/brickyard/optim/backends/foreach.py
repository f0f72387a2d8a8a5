"""The foreach backend: the graph replayed through ``torch._foreach_*`` on lists of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from brickyard.optim.backends import compute_dtype, size_of
from brickyard.optim.ir import Node, Space
from brickyard.optim.maths import unit_sum
from brickyard.optim.ops import OPS, TORCH_NAMES
from brickyard.optim.plan import Plan, cone

_SINGLE = {
    name: eval("lambda a, b=None, c=None: " + op.torch.format("a", "b", "c"), TORCH_NAMES)
    for name, op in OPS.items()
}


class ForeachRun:
    """Replay a plan on lists.

    Args:
        plan: what to run.
        bucket: the parameters.
    """

    name, why = "foreach", "asked for"

    def __init__(self, plan: Plan, bucket: Any) -> None:
        self.plan, self.bucket = plan, bucket
        self.programs = [plan.host_program(k) for k in range(plan.graph.stages)]
        self._kind = compute_dtype(bucket.params[0].dtype)
        self._values: dict[int, Any] = {}
        self._outputs: dict[str, list[float]] = {}

    @torch.no_grad()
    def stage(self, stage: int, scalars: Sequence[float], totals: Mapping[Any, float]) -> Mapping[
            Any, float]:  # fmt: skip
        """Compute what this stage makes known; store in the last one."""
        plan, last = self.plan, stage == len(self.programs) - 1
        if stage == 0:
            self._values = {}
        values = self._values
        for node, value in zip(plan.device_scalars[stage], scalars, strict=True):
            values[node.number] = value
        sums = [n for n in plan.totals if n.stage == stage + 1]
        shares = [n for n in plan.alive if n.op == "matrix" and n.stage == stage + 1]
        roots = [n.args[0] for n in sums + shares]
        if last:
            roots += [*plan.graph.stores.values(), *plan.graph.outputs.values()]
        for node in cone(roots):
            if node.number not in values and node.space is not Space.HOST:
                values[node.number] = self._compute(node)
        if last:
            self._finish()
        return {n.attr: self._total(n.args[0]) for n in sums}

    def _total(self, node: Node) -> float:
        if node.space is Space.HOST:
            return float(self._arg(node)) * len(self.bucket.params)
        return float(torch.stack([x.double() for x in self._values[node.number]]).sum())

    def _arg(self, node: Node) -> Any:
        return node.attr if node.op == "const" else self._values[node.number]

    def _compute(self, node: Node) -> Any:
        bucket = self.bucket
        if node.op == "load":
            return [x.to(self._kind) for x in self._array(node.attr)]
        if node.op == "size":
            return [size_of(node.attr, p) for p in bucket.params]
        if node.op == "sum_unit":
            return [unit_sum(x) for x in self._values[node.args[0].number]]
        if node.op == "matrix":
            return [node.attr(x) for x in self._values[node.args[0].number]]
        if node.op in ("sum", "sum_cols", "sum_rows"):
            dim = {"sum_cols": -1, "sum_rows": -2}.get(node.op)
            lists = self._values[node.args[0].number]
            return [x.sum() if dim is None else x.sum(dim, keepdim=True) for x in lists]
        args = [self._arg(a) for a in node.args]
        return _apply(node.op, args, node, len(bucket.params), self._kind)

    def _array(self, name: str) -> Sequence[torch.Tensor]:
        bucket = self.bucket
        if name in ("grad", "param"):
            return bucket.grads if name == "grad" else [p.detach() for p in bucket.params]
        return bucket.held[[slot.name for slot in bucket.slots].index(name)]

    def _finish(self) -> None:
        for name, node in self.plan.graph.stores.items():
            targets, new = self._array(name), self._arg(node)
            if isinstance(new, list):
                getattr(torch, "_foreach_copy_")(list(targets), new)  # noqa: B009
            else:
                for target in targets:
                    target.fill_(new)
        self._outputs = {
            name: [float(x) for x in self._values[node.number]]
            for name, node in self.plan.graph.outputs.items()
        }
        self._values = {}

    def outputs(self) -> Mapping[str, list[float]]:
        """Return squared norms per tensor."""
        return self._outputs


def _apply(op: str, args: list[Any], node: Node, count: int, kind: torch.dtype) -> list[Any]:
    """Apply one operation to lists and numbers: by foreach where it can, else one by one."""
    lists = [isinstance(a, list) for a in args]
    spaces = {a.space for a, is_list in zip(node.args, lists, strict=True) if is_list}
    name = OPS[op].foreach
    same = len(spaces) == 1 and not any(isinstance(a[0], float) for a in args if type(a) is list)
    if name and same and lists[0] and op not in ("maximum", "minimum", "pow"):
        return list(getattr(torch, f"_foreach_{name}")(*args))
    if op in ("add", "mul") and lists == [False, True] and same:
        return list(getattr(torch, f"_foreach_{name}")(args[1], args[0]))
    if op in ("maximum", "minimum") and all(lists) and same:
        return list(getattr(torch, f"_foreach_{name}")(*args))
    rows = zip(*(a if is_list else [a] * count for a, is_list in zip(args, lists, strict=True)),
               strict=True)  # fmt: skip
    return [_one(op, row, kind) for row in rows]


def _one(op: str, row: Sequence[Any], kind: torch.dtype) -> Any:
    if op == "lerp" and isinstance(row[0], torch.Tensor) and isinstance(row[1], torch.Tensor):
        return torch.lerp(*row)
    device = next((x.device for x in row if isinstance(x, torch.Tensor)), None)
    kinds = [torch.bool if isinstance(x, bool) else kind for x in row]
    tensors = [x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=k, device=device)
               for x, k in zip(row, kinds, strict=True)]  # fmt: skip
    return _SINGLE[op](*tensors)
