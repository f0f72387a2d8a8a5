"""The small graph that every backend runs: nodes with an operation, a space and a level.

A *space* says how many values a node has: one on the host (HOST), one per tensor (TENSOR), one per
trailing matrix of a tensor or per row or column of these (MATRIX, ROW, COL), one per entry of its
first dimension (UNIT), one per element (ELEM). A *stage* says when a node can be computed: a sum
over all tensors or an operation on whole matrices is known one stage later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Space(IntEnum):
    """Name how many values a node has."""

    HOST = 0
    TENSOR = 1
    MATRIX = 2
    ROW = 3
    COL = 4
    UNIT = 5
    ELEM = 6


#: Spaces of a few values per tensor.
SMALL = frozenset({Space.MATRIX, Space.ROW, Space.COL, Space.UNIT})
#: What a reduction gives, by the space it reduces and its kind.
REDUCED = {
    ("sum", Space.ELEM): Space.TENSOR,
    ("sum", Space.ROW): Space.TENSOR,
    ("sum", Space.COL): Space.TENSOR,
    ("sum", Space.MATRIX): Space.TENSOR,
    ("sum", Space.UNIT): Space.TENSOR,
    ("sum", Space.TENSOR): Space.TENSOR,
    ("sum_cols", Space.ELEM): Space.ROW,  # over the last dimension: one value per row
    ("sum_rows", Space.ELEM): Space.COL,  # over the last but one: one value per column
    ("sum_rows", Space.ROW): Space.MATRIX,
    ("sum_cols", Space.COL): Space.MATRIX,
    ("sum_unit", Space.ELEM): Space.UNIT,  # over all dimensions but the first
}
REDUCTIONS = frozenset({"sum", "sum_cols", "sum_rows", "sum_unit"})
#: Nodes that read something instead of computing it.
LEAVES = frozenset({"const", "host", "load", "size"})
#: Operations that need every tensor, or a whole matrix, before anything that follows can start.
STAGE_ENDS = frozenset({"total", "matrix"})


def join(spaces: Iterable[Space]) -> Space:
    """Return the space of an elementwise operation on values of these spaces."""
    found = set(spaces)
    small = found & SMALL
    if len(small - {Space.MATRIX}) > 1 or small == {Space.UNIT, Space.MATRIX}:
        return Space.ELEM
    return max(found, default=Space.HOST)


@dataclass(frozen=True, eq=False)
class Node:
    """Hold one value of the graph.

    Args:
        op: name of the operation (see ``ops.OPS``), a reduction, a stage end or a leaf.
        args: the nodes it reads.
        attr: a constant's value, a leaf's name, or a matrix operation's function.
        space: how many values it has.
        stage: from which on it can be computed.
        number: its place in the graph: arguments come before their users.
        line: where the rule says so, for messages.
    """

    op: str
    args: tuple[Node, ...]
    attr: Any
    space: Space
    stage: int
    number: int
    line: str = ""

    def __repr__(self) -> str:
        inside = ", ".join(f"v{a.number}" for a in self.args)
        extra = "" if self.attr is None else f" {self.attr!r}"
        return f"v{self.number} = {self.op}({inside}){extra}  # {self.space.name} {self.stage}"


@dataclass
class Graph:
    """Hold the nodes of one plan, its inputs and what it stores.

    Args:
        nodes: in an order in which they can be computed.
        stores: what is written: ``"param"`` or a slot's name to the node of its new value.
        host_stores: slots that are one number per group.
        guards: host conditions that must hold, or the step is skipped (or raises this text).
        outputs: sums per tensor that the caller wants to see (telemetry).
        slots: name to :class:`~brickyard.optim.rule.Slot`.
    """

    nodes: list[Node] = field(default_factory=list)
    stores: dict[str, Node] = field(default_factory=dict)
    host_stores: dict[str, Node] = field(default_factory=dict)
    guards: dict[Node, str] = field(default_factory=dict)
    outputs: dict[str, Node] = field(default_factory=dict)
    slots: dict[str, Any] = field(default_factory=dict)
    _seen: dict[Any, Node] = field(default_factory=dict)

    def node(self, op: str, *args: Node, attr: Any = None, space: Space | None = None,
             line: str = "") -> Node:  # fmt: skip
        """Add a node, or return the equal one that is there already."""
        key = (op, tuple(a.number for a in args), attr, space)
        found = self._seen.get(key)
        if found is not None:
            return found
        stage = max((a.stage for a in args), default=0)
        if op in REDUCTIONS:
            space = REDUCED[op, args[0].space]
        elif op in STAGE_ENDS:
            space, stage = (Space.HOST if op == "total" else Space.ELEM), stage + 1
        elif space is None:
            space = join(a.space for a in args)
        made = Node(op, args, attr, space, stage, len(self.nodes), line)
        self.nodes.append(made)
        self._seen[key] = made
        return made

    def const(self, value: float | bool) -> Node:
        """Return the node of a constant."""
        return self.node("const", attr=value, space=Space.HOST)

    @property
    def stages(self) -> int:
        """Return how many stages there are."""
        return 1 + max((n.stage for n in self.roots()), default=0)

    def roots(self) -> Iterator[Node]:
        """Yield every node whose value leaves the graph."""
        yield from self.stores.values()
        yield from self.host_stores.values()
        yield from self.guards
        yield from self.outputs.values()

    def alive(self) -> list[Node]:
        """Return the nodes that some root needs, in order."""
        wanted: set[int] = set()
        stack = list(self.roots())
        while stack:
            node = stack.pop()
            if node.number not in wanted:
                wanted.add(node.number)
                stack.extend(node.args)
        return [n for n in self.nodes if n.number in wanted]
