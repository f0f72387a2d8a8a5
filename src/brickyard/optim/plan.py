"""A plan: a traced chain, cut into stages and phases, with everything that backends need to run it.

A *phase* is one pass over the elements. Values of an earlier phase that a later one needs are
computed again from what is in memory: cheaper than a scratch tensor, since a pass costs what it
reads and writes. A slot is stored as early as that saves work and nobody needs its old value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from brickyard.optim.chain import Chain, walk
from brickyard.optim.ir import REDUCTIONS, Graph, Node, Space
from brickyard.optim.ops import HOST_NAMES, OPS
from brickyard.optim.rule import Piece, Slot
from brickyard.optim.trace import Lowering


@dataclass(frozen=True)
class Flags:
    """Say which variant of a chain is meant.

    Args:
        scaled: the gradient is multiplied by ``coef`` first (loss scale, maximize).
        master: the parameter is kept in fp32 beside the one of the model.
        telemetry: squared norms of gradient, step and parameter are reported per tensor.
    """

    scaled: bool = False
    master: bool = False
    telemetry: bool = False


@dataclass
class Phase:
    """Hold one pass: what it stores and which sums it makes.

    Args:
        level: ``(stage, phase)``.
        nodes: what is computed in it, in order; leaves and host numbers included.
        loads: slots whose *new* values are read instead of computed.
        stores: slot or ``"param"`` or ``"scratch.N"`` to the node that is written.
        sums: reductions that are made.
    """

    level: tuple[int, int]
    nodes: list[Node]
    loads: dict[Node, str]
    stores: dict[str, Node]
    sums: list[Node]


class Plan:
    """Hold the graph of some pieces of a chain, its slots, and its host program.

    Args:
        chain: the chain.
        active: places of the pieces that act.
        flags: the variant.
        keys: the parameter group's key for each hyperparameter.
    """

    def __init__(self, chain: Chain, active: Sequence[int], flags: Flags,
                 keys: Mapping[tuple[int, str], str]) -> None:  # fmt: skip
        self.chain, self.active, self.flags = chain, tuple(active), flags
        self.keys = dict(keys)
        self.pieces: list[tuple[int, Piece]] = [(i, chain.pieces[i]) for i in self.active]
        self.slots: dict[tuple[int, str], Slot] = chain.slots(self.active)
        self.graph = self._trace()
        self.alive = self.graph.alive()

    def _trace(self) -> Graph:
        low = Lowering()
        lr, t = low.leaf("host", "lr", Space.HOST), low.leaf("host", "t", Space.HOST)
        grad: Any = low.leaf("load", "grad", Space.ELEM)
        space = {"rows": Space.ROW, "cols": Space.COL, "host": Space.HOST}
        u = grad * low.leaf("host", "coef", Space.HOST) if self.flags.scaled else grad
        p = low.leaf("load", "master" if self.flags.master else "param", Space.ELEM)

        def slots(i: int) -> Mapping[str, Any]:
            return {
                name: low.leaf("host", f"slot.{slot.name}", Space.HOST) if slot.init == "host"
                else low.leaf("load", slot.name, space.get(slot.init, Space.ELEM))
                for (j, name), slot in self.slots.items() if j == i
            }  # fmt: skip

        def hyper(i: int) -> Mapping[str, Any]:
            own = {name: low.leaf("host", self.keys[i, name], Space.HOST)
                   for name in self.chain.pieces[i].hyper}  # fmt: skip
            return {**own, "lr": lr, "t": t}

        new_p, taken, new = walk(self.pieces, u, p, slots, hyper, lr, low.begin)
        outputs = {}
        if self.flags.telemetry:
            seen = {"grad_norm": u, "update_norm": taken, "param_norm": new_p}
            outputs = {name: (value * value).sum() for name, value in seen.items()}
        low.lower()
        graph = low.graph
        for (i, name), value in new.items():
            slot = self.slots[i, name]
            target = graph.host_stores if slot.init == "host" else graph.stores
            target[slot.name] = low.value(value)
        graph.stores["param"] = low.value(new_p)
        if self.flags.master:
            graph.stores["master"] = graph.stores["param"]
        graph.outputs = {name: low.value(value) for name, value in outputs.items()}
        return graph

    @property
    def slot_list(self) -> list[Slot]:
        """Return the slots kept per parameter, in order."""
        found = [slot for slot in self.slots.values() if slot.init != "host"]
        return found + ([Slot("master", "param")] if self.flags.master else [])

    @cached_property
    def host_slots(self) -> list[Slot]:
        """Return the slots that are one number per group."""
        return [slot for slot in self.slots.values() if slot.init == "host"]

    @cached_property
    def device_scalars(self) -> list[list[Node]]:
        """Return, by stage, the host numbers that the tensors' passes read."""
        found: list[list[Node]] = [[] for _ in range(self.graph.stages)]
        for node in self.alive:
            if node.space is Space.HOST and node.op != "const":
                users = [u for u in self.alive if node in u.args and u.space is not Space.HOST]
                roots = node in self.graph.stores.values()
                if users or roots:
                    for stage in range(node.level[0], self.graph.stages):
                        found[stage].append(node)
        return found

    @cached_property
    def totals(self) -> list[Node]:
        """Return the sums over all tensors, in order."""
        return [n for n in self.alive if n.op == "total"]

    def host_program(self, stage: int) -> Callable[..., tuple[Any, ...]]:
        """Return a function ``(hyper, totals) -> (scalars, failed guard, new host slots)``.

        ``hyper`` maps keys to numbers. Everything is evaluated in float64.
        """
        last = stage == self.graph.stages - 1
        guards = [n for n in self.graph.guards if n.level[0] == stage]
        stores = list(self.graph.host_stores.values()) if last else []
        roots = self.device_scalars[stage] + guards + stores
        lines, done = [], set[int]()
        for node in cone(roots):
            done.add(node.number)
            if node.op == "host":
                lines.append(f"v{node.number} = H[{node.attr!r}]")
            elif node.op == "const":
                lines.append(f"v{node.number} = {_literal(node.attr)}")
            elif node.op == "total":
                lines.append(f"v{node.number} = T[{node.attr}]")
            else:
                text = OPS[node.op].py.format(*(f"v{a.number}" for a in node.args))
                lines.append(f"v{node.number} = {text}")
        parts = [self.device_scalars[stage], stores]
        scalars, kept = ("(" + "".join(f"v{n.number}, " for n in part) + ")" for part in parts)
        texts = [f"{self.graph.guards[n]!r} if not v{n.number} else " for n in guards]
        holds = "".join(texts) + "None"
        body = "\n    ".join([*lines, f"return {scalars}, ({holds}), {kept}"])
        space: dict[str, Any] = dict(HOST_NAMES)
        exec(f"def program(H, T):\n    {body}", space)
        return space["program"]

    def phases(self, early: Callable[[str], bool] = lambda name: True) -> list[Phase]:
        """Cut the graph into passes.

        Args:
            early: whether a slot may be stored before the last pass (its storage must be exact).
        """
        last = max(n.level for n in self.graph.stores.values())
        chosen = {  # nothing is stored before the last stage: a guard may still skip the step
            name: node.level if early(name) and name != "param" and node.level[0] == last[0]
            else last for name, node in self.graph.stores.items()
        }  # fmt: skip
        while True:
            phases, broken = self._cut(chosen, last)
            if not broken:
                return phases
            chosen.update(dict.fromkeys(broken, last))

    def _cut(self, wanted: Mapping[str, tuple[int, int]], last: tuple[int, int]) -> tuple[
            list[Phase], set[str]]:  # fmt: skip
        sums = [n for n in self.alive if n.op in REDUCTIONS and n.args[0].space > Space.TENSOR]
        shares = [n for n in self.alive if n.op == "matrix"]
        levels = sorted({last, *(n.args[0].level for n in sums + shares)})
        when = {k: min(v for v in levels if v >= level) for k, level in wanted.items()}
        phases: list[Phase] = []
        broken: set[str] = set()
        stored: dict[Node, str] = {}
        for level in levels:
            here = {k: n for k, n in self.graph.stores.items() if when[k] == level}
            scratch = {f"scratch.{n.number}": n.args[0] for n in shares if n.args[0].level == level}
            makes = [n for n in sums if n.args[0].level == level]
            roots = [*here.values(), *scratch.values(), *(n.args[0] for n in makes)]
            nodes = cone(roots, stop={*stored, *sums, *shares})
            old = {n.attr for n in nodes if n.op == "load"}
            broken |= {name for name in stored.values() if name in old and when[name] != last}
            phases.append(Phase(level, nodes, {n: k for n, k in stored.items() if n in nodes},
                                {**here, **scratch}, makes))  # fmt: skip
            if level != last:
                stored.update({n: k for k, n in here.items() if n.op != "load"})
        return phases, broken


def cone(roots: Iterable[Node], stop: Iterable[Node] = ()) -> list[Node]:
    """Return what the roots need, in order; nodes in ``stop`` are kept but not looked behind."""
    ends, found = set(stop), dict[int, Node]()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.number not in found:
            found[node.number] = node
            if node not in ends and node.op != "total":
                stack.extend(node.args)
    return [found[k] for k in sorted(found)]


def _literal(value: Any) -> str:
    return repr(value) if value == value and abs(value) != float("inf") else f"float('{value}')"
