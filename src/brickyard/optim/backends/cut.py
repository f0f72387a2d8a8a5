"""Cut a bucket's tensors into chunks for threads, and into matrices where shapes matter."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from brickyard.optim.backends.tiles import FORMS, LANES
from brickyard.optim.ir import SMALL, Space
from brickyard.optim.plan import Plan, is_sum

#: Elements per chunk: small enough to share the work evenly, large enough to hide its cost.
CHUNK = 32_768
#: Below this many elements one thread is faster than waking another.
SERIAL = 65_536
#: Rows per chunk at least, where a chunk keeps its share of every column's sum.
ROWS = 16


class Cut:
    """Hold the tables of chunks and tensors that a kernel reads.

    Args:
        params: the tensors.
    """

    def __init__(self, params: Sequence[torch.Tensor]) -> None:
        self.sizes = [p.numel() for p in params]
        self.counts = [0] * len(params)  # chunks of each tensor
        self.chunks: list[int] = []  # (tensor, start, length) of each
        self.forms: tuple[str, ...] = ()  # of tensors whose shapes matter
        self.dims: list[int] = []  # (form, matrices, rows, columns, first kept sum) of each tensor
        self.places: list[int] = []  # where each chunk's shares of its matrix's sums begin
        self.pieces = 0  # how many such shares there are
        self.kept = 0  # how many sums of columns and matrices there are

    def add(self, t: int, begin: int, end: int, length: int, share: int = 0) -> None:
        """Add the chunks of a tensor's elements from ``begin`` to ``end``."""
        for start in range(begin, end, length):
            self.chunks += [t, start, min(length, end - start)]
            self.places.append(self.pieces)
            self.pieces += share
            self.counts[t] += 1

    @property
    def units(self) -> list[int]:
        """Return tensors as (tensor, chunks from, to).

        The largest come first, so that the last thread does not start one when others are done.
        """
        first, found = 0, []
        for t, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            found.append((size, t, first, first + count))
            first += count
        found.sort(key=lambda unit: (-unit[0], unit[1]))
        return [x for _, *unit in found for x in unit]

    def shared(self, threads: int) -> int:
        """Return on how many of the largest tensors threads work together."""
        alone = max(sum(self.sizes) // (3 * threads), SERIAL)
        return sum(size > alone for size in self.sizes)


def flat_cut(params: Sequence[torch.Tensor]) -> Cut:
    """Cut tensors for a plan that sees their elements only."""
    made = Cut(params)
    for t, size in enumerate(made.sizes):
        made.add(t, 0, size, CHUNK)
    return made


def shaped_cut(plan: Plan, params: Sequence[torch.Tensor]) -> Cut:
    """Cut tensors for a plan with sums over rows, columns or units.

    Args:
        plan: says which of these.
        params: the tensors.
    """
    units = by_units(plan)
    kept = [n.space for n in plan.alive if is_sum(n) and n.space in (Space.COL, Space.MATRIX)]
    made, found = Cut(params), set[str]()
    for t, p in enumerate(params):
        form, matrices, rows, cols = view(p, units)
        found.add(form)
        made.dims += [FORMS[form], matrices, rows, cols, made.kept]
        size = rows * cols
        if form != "wide":
            made.add(t, 0, matrices * size, max(CHUNK // size, 1) * size)
            continue
        share = sum(cols if space is Space.COL else 1 for space in kept)
        length = max(CHUNK // cols, ROWS if kept else 1) * cols
        for matrix in range(matrices):
            made.add(t, matrix * size, (matrix + 1) * size, length, share)
        made.kept += matrices * share
    made.forms = tuple(form for form in FORMS if form in found)
    return made


def by_units(plan: Plan) -> bool:
    """Say whether a plan sees tensors as units, not as rows and columns."""
    return all(n.space is Space.UNIT for n in plan.alive if n.space in SMALL)


def view(p: torch.Tensor, units: bool) -> tuple[str, int, int, int]:
    """Return a tensor's form and its number of matrices, rows and columns.

    Args:
        p: the tensor.
        units: one row per entry of the first dimension, instead of the last two dimensions.
    """
    if units:
        matrices, rows = 1, p.shape[0] if p.ndim > 1 else 1
        cols = p.numel() // rows
        if cols <= LANES:
            matrices, rows = rows, 1
    else:
        rows, cols = (p.shape[-2], p.shape[-1]) if p.ndim > 1 else (1, p.numel())
        matrices = p.numel() // (rows * cols)
    size = rows * cols
    form = "points" if size == 1 else "lanes" if size <= LANES else "wide"
    return form, matrices, rows, cols


def shape_obstacle(plan: Plan, p: torch.Tensor) -> str:
    """Return why a plan with sums over rows, columns or units cannot run natively on a tensor."""
    if not p.is_contiguous():
        return "row or column sums of tensors in another memory order"
    spaces = {n.space for n in plan.alive} & SMALL
    if Space.UNIT in spaces and len(spaces) > 1 and p.ndim != 2:
        return "sums over units beside sums over rows or columns"
    for slot in plan.slot_list:
        node = plan.graph.stores.get(slot.name)
        wanted = {"rows": Space.ROW, "cols": Space.COL}.get(slot.init)
        if wanted and node and node.op != "load" and node.space is not wanted:
            return f"{slot.name} does not get one value per {wanted.name.lower()}"
    return ""


def is_dense(p: torch.Tensor) -> bool:
    """Say whether a tensor fills its memory without gaps or overlaps, in whatever order."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(p.stride(), p.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True
