"""The compiled backend: the graph written out as torch code and given to ``torch.compile``; opt-in.

One function per stage over lists of tensors. Host numbers enter as one tensor, so that a changed
learning rate or a new step compiles nothing anew. Compiling takes seconds to minutes, with the
number of tensors; the native backend needs none of it on CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from brickyard.optim.backends import say_once, size_of
from brickyard.optim.backends.foreach import ForeachRun
from brickyard.optim.ir import Node, Space
from brickyard.optim.maths import unit_sum
from brickyard.optim.ops import OPS, TORCH_NAMES
from brickyard.optim.plan import Plan, cone

_SUMS = {"sum": "x.sum()", "sum_cols": "x.sum(-1, keepdim=True)",
         "sum_rows": "x.sum(-2, keepdim=True)", "sum_unit": "unit_sum(x)"}  # fmt: skip


class CompiledRun(ForeachRun):
    """Run a plan through ``torch.compile``; falls back to foreach where that fails.

    Args:
        plan: what to run.
        bucket: the parameters.
    """

    name, why = "compiled", "asked for"

    def __init__(self, plan: Plan, bucket: Any) -> None:
        super().__init__(plan, bucket)
        self._functions = [torch.compile(f, dynamic=False, fullgraph=True) if f else None
                           for f in map(self._function, range(plan.graph.stages))]  # fmt: skip
        self._device = bucket.params[0].device

    def stage(self, stage: int, scalars: Sequence[float], totals: Mapping[Any, float]) -> Mapping[
            Any, float]:  # fmt: skip
        """Run one stage; return this bucket's share of the sums over all tensors."""
        if self.name != "compiled":
            return super().stage(stage, scalars, totals)
        function = self._functions[stage]
        if function is None:  # a matrix operation, which the next stage does on the way
            return {}
        numbers = torch.tensor(list(map(float, scalars)), dtype=self._kind, device=self._device)
        try:
            with torch.no_grad():
                found = function(numbers, *map(list, self._arrays()))
        except Exception as error:
            if stage or totals:
                raise
            self.name, self.why = "foreach", f"torch.compile failed: {type(error).__name__}"
            say_once(f"{self.why}: foreach runs instead: {error}")
            return super().stage(stage, scalars, totals)
        sums = self._sums(stage)
        if stage == len(self.programs) - 1:
            self._outputs = {name: values.tolist() for name, values in
                             zip(self.plan.graph.outputs, found, strict=True)}  # fmt: skip
            return {}
        return {node.attr: float(x) for node, x in zip(sums, found, strict=True)}

    def _arrays(self) -> list[Sequence[torch.Tensor]]:
        return [self._array(name) for name in self._names()]

    def _names(self) -> list[str]:
        return ["grad", "param", *(slot.name for slot in self.bucket.slots)]

    def _sums(self, stage: int) -> list[Node]:
        return [n for n in self.plan.totals if n.stage == stage + 1]

    def _function(self, stage: int) -> Callable[..., Any] | None:
        """Return the stage as a function ``(numbers, *lists) -> sums``; None if it makes none."""
        plan, graph = self.plan, self.plan.graph
        last, sums = stage == graph.stages - 1, self._sums(stage)
        if not last and not sums:
            return None
        roots = [n.args[0] for n in sums]
        if last:
            roots = [*graph.stores.values(), *graph.outputs.values()]
        scalars = plan.device_scalars[stage]
        names = {name: f"x{i}" for i, name in enumerate(self._names())}
        space: dict[str, Any] = {**TORCH_NAMES, "unit_sum": unit_sum, "kind": self._kind}
        lines = [f"c{n.number} = N[{i}]" + (" != 0" if n.op in OPS and OPS[n.op].truth else "")
                 for i, n in enumerate(scalars)]  # fmt: skip
        for node in cone(roots, stop=scalars):
            if node in scalars:
                continue
            lines.append(f"c{node.number} = {self._line(node, names, space)}")
        if last:
            lines += [f"for a, b in zip({names[k]}, {_list(n)}): a.copy_(b)"
                      for k, n in graph.stores.items()]  # fmt: skip
            kept = [f"torch.stack(c{n.number})" for n in graph.outputs.values()]
        else:
            kept = [f"torch.stack([x.double() for x in {_list(n.args[0])}]).sum()" for n in sums]
        lines.append(f"return [{', '.join(kept)}]")
        exec(f"def stage(N, {', '.join(names.values())}):\n    " + "\n    ".join(lines), space)
        return space["stage"]

    def _line(self, node: Node, names: Mapping[str, str], space: dict[str, Any]) -> str:
        """Write one node as an expression: a list of tensors, or one number on the device."""
        device = self.bucket.params[0].device
        if node.op == "const":
            kind = torch.bool if isinstance(node.attr, bool) else self._kind
            space[f"k{node.number}"] = torch.tensor(node.attr, dtype=kind, device=device)
            return f"k{node.number}"
        if node.op == "load":
            return f"[x.to(kind) for x in {names[node.attr]}]"
        if node.op == "size":
            sizes = [size_of(node.attr, p) for p in self.bucket.params]
            space[f"k{node.number}"] = list(torch.tensor(sizes, dtype=self._kind, device=device))
            return f"k{node.number}"
        if node.op == "matrix":
            space[f"f{node.number}"] = node.attr
            return f"[f{node.number}(x) for x in c{node.args[0].number}]"
        if node.op.startswith("sum"):
            return f"[{_SUMS[node.op]} for x in c{node.args[0].number}]"
        lists = [a for a in node.args if a.space is not Space.HOST]
        places = {a.number: f"a{i}" for i, a in enumerate(lists)}
        text = OPS[node.op].torch.format(*(places.get(a.number, f"c{a.number}") for a in node.args))
        if not lists:
            return text
        return (f"[{text} for {', '.join(places.values())}{',' if len(places) == 1 else ''} in "
                f"zip({', '.join(f'c{n}' for n in places)})]")  # fmt: skip


def _list(node: Node) -> str:
    if node.space is Space.HOST:
        return f"[c{node.number}] * len(x1)"
    return f"c{node.number}"
