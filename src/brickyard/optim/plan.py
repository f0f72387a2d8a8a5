"""A plan: a traced chain, cut into stages and phases, with everything that backends need to run it.

A *phase* is one pass over the elements. Values of an earlier phase that a later one needs are
computed again from what is in memory: cheaper than a scratch tensor, since a pass costs what it
reads and writes. A slot is stored as early as that saves work and nobody needs its old value.

Sums into *local* spaces are ready within the pass that makes them: whoever runs the pass keeps
the elements of a row, or of a whole small matrix, in the cache and goes over them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from brickyard.optim.chain import Chain, walk
from brickyard.optim.ir import REDUCTIONS, SMALL, Graph, Node, Space
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


Level = tuple[int, int]
_NONE: frozenset[Space] = frozenset()


@dataclass
class Phase:
    """Hold one pass: what it stores and which sums it makes.

    Args:
        level: ``(stage, number of sums that must be complete before)``.
        nodes: what is computed in it, in order; leaves and host numbers included.
        loads: slots whose *new* values are read instead of computed.
        stores: slot or ``"param"`` or ``"scratch.N"`` to the node that is written.
        sums: reductions that are made for later passes.
        after: slots with one value per column that are written when the sums are complete.
    """

    level: Level
    nodes: list[Node]
    loads: dict[Node, str]
    stores: dict[str, Node]
    sums: list[Node]
    after: dict[str, Node] = field(default_factory=dict)


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
                    for stage in range(node.stage, self.graph.stages):
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
        guards = [n for n in self.graph.guards if n.stage == stage]
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

    @cached_property
    def shaped(self) -> bool:
        """Say whether a tensor's rows, columns or units matter, not only its elements."""
        return any(n.space in SMALL for n in self.alive)

    def phases(self, early: Callable[[str], bool] = lambda name: True,
               local: frozenset[Space] = _NONE) -> list[Phase]:  # fmt: skip
        """Cut the graph into passes.

        Args:
            early: whether a slot may be stored before the last pass (its storage must be exact).
            local: spaces whose sums are ready within the pass that makes them.
        """
        levels = self.levels(local)
        stores = self.graph.stores
        # Nothing is stored before the last stage: a guard may still skip the step.
        last = max([(self.graph.stages - 1, 0), *(levels[n] for n in stores.values())])
        wanted = {name: levels[n] if early(name) and name != "param" and n.stage == last[0] else END
                  for name, n in stores.items()}  # fmt: skip
        while True:
            phases, broken = self._cut(wanted, last, levels, local)
            if not broken:
                return phases
            wanted.update(dict.fromkeys(broken, END))

    def levels(self, local: frozenset[Space] = _NONE) -> dict[Node, Level]:
        """Return for each node its stage and how many sums of a pass must be complete before.

        Args:
            local: spaces whose sums are ready within the pass that makes them.
        """
        found: dict[Node, Level] = {}
        for node in self.alive:
            stage, ready = max((found[a] for a in node.args), default=(0, 0))
            if node.stage > stage:
                stage, ready = node.stage, 0
            elif is_sum(node) and node.space not in local:
                ready += 1
            found[node] = stage, ready
        return found

    def _cut(self, wanted: Mapping[str, Level], last: Level, levels: Mapping[Node, Level],
             local: frozenset[Space]) -> tuple[list[Phase], set[str]]:  # fmt: skip
        sums = [n for n in self.alive if is_sum(n) and n.space not in local]
        shares = [n for n in self.alive if n.op == "matrix"]
        passes = sorted({last, *(levels[n.args[0]] for n in sums + shares)})
        when = {k: min([v for v in passes if v >= level], default=last)
                for k, level in wanted.items()}  # fmt: skip
        after = self._after(passes, {k: END if v == END else when[k] for k, v in wanted.items()},
                            local)  # fmt: skip
        phases: list[Phase] = []
        broken: set[str] = set()
        stored: dict[Node, str] = {}
        for level in passes:
            stores = {
                k: n
                for k, n in self.graph.stores.items()
                if when[k] == level and not any(k in names for names in after.values())
            }
            stores |= {f"scratch.{n.number}": n.args[0] for n in shares
                       if levels[n.args[0]] == level}  # fmt: skip
            makes = [n for n in sums if levels[n.args[0]] == level]
            roots = [*stores.values(), *(n.args[0] for n in makes)]
            nodes = cone(roots, stop={*stored, *sums, *shares})
            old = {n.attr for n in nodes if n.op == "load"}
            broken |= {name for name in stored.values() if name in old and wanted[name] != END}
            late = {k: self.graph.stores[k] for k in after.get(level, ())}
            phases.append(Phase(level, nodes, {n: k for n, k in stored.items() if n in nodes},
                                stores, makes, late))  # fmt: skip
            if level != last:
                new = {k: n for k, n in {**stores, **late}.items() if k in self.graph.stores}
                stored.update({n: k for k, n in new.items() if n.op != "load"})
        return phases, broken

    def _after(self, passes: Sequence[Level], when: Mapping[str, Level],
               local: frozenset[Space]) -> dict[Level, list[str]]:  # fmt: skip
        """Return which slots are written between passes: those of columns that threads share.

        Threads share the rows of a large matrix, so that nobody owns a column within a pass.
        """
        found: dict[Level, list[str]] = {}
        if not local or Space.COL in local:
            return found
        for name, node in self.graph.stores.items():
            if node.space is Space.COL:
                before = [v for v in passes if v < when[name]]
                ready = before and before[-1][0] == when[name][0]
                found.setdefault(before[-1] if ready else passes[-1], []).append(name)
        return found


END: Level = (1 << 30, 0)  # behind every pass


def is_sum(node: Node) -> bool:
    """Say whether a node adds up several values of a tensor."""
    return node.op in REDUCTIONS and node.args[0].space > Space.TENSOR


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
