"""Find the loops of a tile: in which order one pass makes elements, and sums of rows and columns.

A tensor is many matrices of R rows and C columns, and takes one of three forms. Matrices of one
element are ``points``: their sums are the element. In ``lanes``, for small matrices (kernels of
convolutions), a chunk holds whole matrices: every sum over rows and columns is ready within the
pass. In ``wide``, for all others, a chunk holds some rows of one matrix: sums along a row are ready
within the pass, sums of columns are added up behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from brickyard.optim.backends.cgen import array_of
from brickyard.optim.ir import SMALL, Node, Space
from brickyard.optim.plan import Phase, cone, is_sum

#: Numbers of the forms in the table of tensors.
FORMS = {"points": 0, "lanes": 1, "wide": 2}
#: Spaces whose sums are ready within a pass, by form; in ``wide`` they have buffers in a tile.
LOCAL = {"points": SMALL, "lanes": SMALL, "wide": frozenset({Space.ROW, Space.UNIT})}
#: Elements of one array in a tile; the largest matrix that is taken apart in lanes.
TILE, LANES = 2048, 64
#: Elements of a buffer: not a power of two, or equal places of all would fight for one cache line.
BUFFER = TILE + 80
#: Where a value stands, by form and space: in an array or buffer.
INDEX = {
    "lanes": {Space.ELEM: "(i*C + j)*W + l", Space.ROW: "i*W + l", Space.UNIT: "i*W + l",
              Space.COL: "j*W + l", Space.MATRIX: "l"},
    "wide": {Space.ELEM: "(k + i)*C + j", Space.ROW: "i", Space.UNIT: "i", Space.COL: "j",
             Space.MATRIX: "0"},
}  # fmt: skip
#: How many values of a space one matrix has.
COUNT = {Space.ELEM: "R*C", Space.ROW: "R", Space.UNIT: "R", Space.COL: "C", Space.MATRIX: "1"}


@dataclass
class Loop:
    """Hold one loop of a tile: values of one space, computed at one depth.

    Args:
        depth: how many sums must be ready before.
        space: ``ROW`` stands for ``UNIT`` too.
        nodes: what is computed, in order.
        sums: what is added up on the way.
        stores: what is written to memory (elements only).
    """

    depth: int
    space: Space
    nodes: list[Node] = field(default_factory=list)
    sums: list[Node] = field(default_factory=list)
    stores: dict[str, Node] = field(default_factory=dict)


def loops(phase: Phase, form: str, apart: Sequence[Node] = ()) -> list[Loop]:
    """Return the loops of one tile in order: what one makes, a later one reads.

    Args:
        phase: the pass.
        form: ``"lanes"`` or ``"wide"``.
        apart: sums that are made elsewhere.
    """
    local, depth = LOCAL[form], dict[Node, int]()
    for node in phase.nodes:
        ready = is_sum(node) and node.space in local
        fresh = node not in phase.loads and (ready or not is_sum(node)) and node.op != "matrix"
        depth[node] = max((depth.get(a, 0) for a in node.args), default=0) + ready if fresh else 0
    found: dict[tuple[int, int], Loop] = {}

    def loop(space: Space, at: int) -> Loop:
        space = Space.ROW if space is Space.UNIT else space
        return found.setdefault((at, space), Loop(at, space))

    for node in phase.nodes:
        if node.space in local and computed(node, phase):
            loop(node.space, depth[node]).nodes.append(node)
    made = [n for n in phase.nodes if is_sum(n) and n.space in local and n not in phase.loads]
    for node in [*made, *phase.sums]:
        if node not in apart:
            loop(node.args[0].space, depth[node.args[0]]).sums.append(node)
    stores = {k: n for k, n in changes(phase).items() if n.space not in SMALL}
    if stores:  # in the last loop over elements: those before may need what is in memory
        last = max([depth.get(n, 0) for n in stores.values()]
                   + [at for at, space in found if space is Space.ELEM])  # fmt: skip
        loop(Space.ELEM, last).stores = stores
    ends = [n for n in phase.nodes if n.space in local or n in phase.loads
            or (is_sum(n) and n.space is not Space.ELEM)]  # fmt: skip
    for one in found.values():
        if one.space not in local:
            roots = [*one.stores.values(), *(n.args[0] for n in one.sums)]
            one.nodes = [n for n in cone(roots, stop=ends) if n.op != "const"]
    return [found[key] for key in sorted(found)]


def changes(phase: Phase) -> dict[str, Node]:
    """Return what a phase stores that is not in memory already."""
    return {k: n for k, n in phase.stores.items()
            if phase.loads.get(n) != k and not (n.op == "load" and n.attr == k)}  # fmt: skip


def computed(node: Node, phase: Phase) -> bool:
    """Say whether a phase makes a node by arithmetic, and does not read it."""
    return array_of(node, phase) is None and not is_sum(node) and node.op not in ("const", "size")


def buffers(phase: Phase, parts: Iterable[Loop], form: str) -> list[Node]:
    """Return the values that one loop of a tile leaves for another, or for the memory."""
    parts, stored, found = list(parts), set(changes(phase).values()), set[Node]()
    for part in parts:
        found |= {n for n in part.sums if n.space in SMALL and n not in phase.sums}
        if part.space in LOCAL[form]:
            others = [n for other in parts if other is not part
                      for n in [*other.nodes, *(s.args[0] for s in other.sums)]]  # fmt: skip
            read = {a for n in others for a in (n, *n.args)} | stored
            found |= {n for n in part.nodes if n in read}
    return sorted(found, key=lambda n: n.number)


def plain_sums(phase: Phase) -> list[Node]:
    """Return sums per tensor of what needs no row, column or matrix: order does not matter."""
    ends = [n for n in phase.nodes if n in phase.loads]
    return [n for n in phase.sums if n.space is Space.TENSOR and n.args[0].space is Space.ELEM
            and not any(m.space in SMALL for m in cone([n.args[0]], stop=ends))]  # fmt: skip
