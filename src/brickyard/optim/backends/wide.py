"""Print a pass over rows of large matrices: sums along a row at once, sums of columns behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brickyard.optim.backends.cgen import BLOCK, STORAGE, c_name, value_of
from brickyard.optim.backends.tiles import (
    BUFFER,
    COUNT,
    INDEX,
    LOCAL,
    TILE,
    Loop,
    buffers,
    changes,
    loops,
)
from brickyard.optim.ir import SMALL, Node, Space
from brickyard.optim.plan import Phase, cone, is_sum

_STARTS = {Space.ELEM: "at", Space.ROW: "at / C", Space.COL: "m * C"}


def body(printer: Any, phase: Phase) -> list[str]:
    """Print the tiles of a chunk.

    Args:
        printer: the printer of the plan.
        phase: the pass.
    """
    parts = loops(phase, "wide")
    kept = buffers(phase, parts, "wide")
    lines = ["  const int64_t m = at / (R*C), rows = n / C, first = at == m*R*C; (void)first;",
             f"  const int64_t H = C < {TILE} ? {TILE} / C : 1;",
             *(f"  {printer.word(a, phase)} *{c_name(a)} = ({printer.word(a, phase)} *)"
               f"J->ptr[{printer.arrays.index(a)}*N + t] + "
               f"{_STARTS[printer.space.get(a, Space.ELEM)]};" for a in printer.used(phase)),
             *_complete(printer, phase.nodes), *_matrix_values(printer, phase.nodes)]  # fmt: skip
    for node in phase.sums:
        if node.space is Space.COL:
            lines += [f"  real *P{node.number} = {_piece(printer, node)};",
                      f"  memset(P{node.number}, 0, sizeof(real) * C);"]  # fmt: skip
        elif node.space is Space.MATRIX:
            lines.append(f"  double q{node.number} = 0;")
    lines += [f"  real B{node.number}[{BUFFER}];" for node in kept]
    lines += ["  for (int64_t k = 0; k < rows; k += H) {",
              "  const int64_t h = rows - k < H ? rows - k : H;"]  # fmt: skip
    for part in parts:
        lines += _loop(printer, phase, part, kept)
    for name, node in changes(phase).items():
        if node.space in SMALL:
            lines += ["    for (int64_t i = 0; i < h; ++i) {",
                      f"      const real v{node.number} = B{node.number}[i];",
                      f"      {printer.put(name, node, 'k + i')}", "    }"]  # fmt: skip
    ends = [f"  *({_piece(printer, n)}) = (real)q{n.number};" for n in phase.sums
            if n.space is Space.MATRIX]  # fmt: skip
    return [*lines, "  }", *ends]


def _loop(printer: Any, phase: Phase, part: Loop, kept: list[Node]) -> list[str]:
    sums = [n for n in part.sums if n.space is Space.TENSOR]
    lines = printer.statements(phase, part, "wide", kept)
    if part.space is not Space.ELEM:
        whole = [(f"a{n.number}_", value_of(n.args[0]), f"q{n.number} += (double)a{n.number}_;")
                 for n in part.sums if n.space is Space.MATRIX]  # fmt: skip
        head = {Space.ROW: "    for (int64_t i = 0; i < h; ++i) {",
                Space.COL: "    for (int64_t j = 0; j < (first && !k ? C : 0); ++j) {",
                Space.MATRIX: "    for (int64_t j = 0; j < (first && !k); ++j) {",
                }[part.space]  # fmt: skip
        return ["    {", *printer.summed(sums, head, [f"      {x}" for _, x in lines], whole),
                "    }"]  # fmt: skip
    along = [n for n in part.sums if n.space in LOCAL["wide"]]
    inner = [line for space, line in lines if space not in LOCAL["wide"]]
    inner += [f"P{n.number}[j] += {value_of(n.args[0])};" for n in part.sums
              if n.space is Space.COL]  # fmt: skip
    inner += [printer.put(k, n, INDEX["wide"][Space.ELEM]) for k, n in part.stores.items()]
    own = [(f"a{n.number}_", value_of(n.args[0]), f"r{n.number} += (double)a{n.number}_;")
           for n in along]  # fmt: skip
    return ["    for (int64_t i = 0; i < h; ++i) {",
            *(f"    {line}" for space, line in lines if space in LOCAL["wide"]),
            *(f"    double r{n.number} = 0;" for n in along),
            f"    for (int64_t b = 0; b < C; b += {BLOCK}) {{",
            f"    const int64_t e = b + {BLOCK} < C ? b + {BLOCK} : C;",
            *printer.summed(sums, "    for (int64_t j = b; j < e; ++j) {",
                            [f"      {line}" for line in inner], own), "    }",
            *(f"    B{n.number}[i] = (real)r{n.number};" for n in along), "    }"]  # fmt: skip


def _place(printer: Any, node: Node) -> str:
    """Print where a matrix's sums of one kind start among those of its tensor."""
    lower = [COUNT[n.space] for n in printer.kept if n.number < node.number]
    return f"D[1]*({' + '.join(['0', *lower])}) + m*({COUNT[node.space]})"


def _piece(printer: Any, node: Node) -> str:
    """Print where a chunk's share of a matrix's sums is."""
    lower = [COUNT[n.space] for n in printer.kept if n.number < node.number]
    return f"J->piece + J->place[c] + {' + '.join(['0', *lower])}"


def _complete(printer: Any, nodes: Sequence[Node]) -> list[str]:
    """Print pointers to the sums of columns and matrices that are complete."""
    return [f"  const double *K{n.number} = J->kept + D[4] + {_place(printer, n)};"
            for n in nodes if n in printer.kept]  # fmt: skip


def _matrix_values(printer: Any, nodes: Sequence[Node]) -> list[str]:
    """Print values that are one per matrix."""
    return [f"  const real v{n.number} = (real)K{n.number}[0];" if is_sum(n)
            else f"  {printer.compute(n)}"
            for n in nodes if n.space is Space.MATRIX and n.op != "const"]  # fmt: skip


def closes(printer: Any, phase: Phase) -> bool:
    """Say whether something is to be done behind a pass over a tensor."""
    return bool(phase.after) or any(n in printer.kept for n in phase.sums)


def after(printer: Any, number: int, phase: Phase) -> str:
    """Print the function that adds up columns and stores what is one value per column."""
    lines = [f"static void after_{number}(const job *J, const int64_t *G) {{",
             "  const int64_t t = G[0], N = J->tensors, *D = J->dims + 5*t, R = D[2], C = D[3];",
             "  (void)N; (void)R;"]  # fmt: skip
    for n in [n for n in printer.kept if n in phase.sums]:
        lines += ["  for (int64_t m = 0; m < D[1]; ++m)",
                  f"    memset(J->kept + D[4] + {_place(printer, n)}, 0, "
                  f"sizeof(double) * {COUNT[n.space]});",
                  "  for (int64_t c = G[1]; c < G[2]; ++c) {",
                  "    const int64_t m = J->chunk[3*c+1] / (R*C);",
                  f"    double *K = J->kept + D[4] + {_place(printer, n)};",
                  f"    const real *P = {_piece(printer, n)};",
                  "#pragma omp simd",
                  f"    for (int64_t j = 0; j < {COUNT[n.space]}; ++j) K[j] += (double)P[j];",
                  "  }"]  # fmt: skip
    return "\n".join([*lines, *(_columns(printer, phase) if phase.after else []), "}"])


def _columns(printer: Any, phase: Phase) -> list[str]:
    """Print the loop that computes and stores one value per column."""
    nodes = cone(phase.after.values(), stop=[n for n in printer.plan.alive if is_sum(n)])
    names = {n.attr for n in nodes if n.op == "load"} | set(phase.after)
    lines = [*printer.outer(nodes, phase.level[0]), "  for (int64_t m = 0; m < D[1]; ++m) {"]
    for a in printer.arrays:
        if a in names:
            kind = ("" if a in phase.after else "const ") + STORAGE[printer.types[a]]
            lines.append(f"  {kind} *{c_name(a)} = ({kind} *)"
                         f"J->ptr[{printer.arrays.index(a)}*N + t] + m*C;")  # fmt: skip
    lines += [*_complete(printer, nodes), *_matrix_values(printer, nodes),
              "#pragma omp simd", "  for (int64_t j = 0; j < C; ++j) {"]  # fmt: skip
    for n in nodes:
        if n.space is Space.COL and n.op != "const":
            lines.append(f"    const real v{n.number} = (real)K{n.number}[j];" if is_sum(n)
                         else f"    const real v{n.number} = {printer.get(n.attr, 'j')};"
                         if n.op == "load" else f"    {printer.compute(n)}")  # fmt: skip
    return [*lines, *(f"    {printer.put(k, n, 'j')}" for k, n in phase.after.items()), "  } }"]
