"""Print a pass over small matrices: many at a time, side by side, one per lane of a vector.

Matrices are copied to buffers so that equal elements of many stand next to each other. Everything
else is then plain vector arithmetic, whatever the size of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brickyard.optim.backends.cgen import STORAGE, array_of, c_name, value_of
from brickyard.optim.backends.tiles import (
    COUNT,
    INDEX,
    Loop,
    buffers,
    changes,
    computed,
    loops,
    plain_sums,
)
from brickyard.optim.ir import SMALL, Node, Space
from brickyard.optim.plan import Phase, cone, is_sum

#: Elements of one array in a tile, at least one matrix: a dozen buffers stay in the nearest cache.
TILE = 512
#: Elements of a buffer: not a power of two, or equal places of all would fight for one cache line.
BUFFER = TILE + 80
_TURN = """\
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TURN 8
typedef float v8 __attribute__((vector_size(32)));
typedef float v8u __attribute__((vector_size(32), aligned(4), may_alias));
#define MIX __builtin_shufflevector
/* to[c*b + r] = from[r*a + c] for r, c < 8 */
static inline void turn(float *to, int64_t b, const float *from, int64_t a) {
  v8 x[8], y[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) x[r] = *(const v8u *)(from + r*a);
#pragma GCC unroll 4
  for (int r = 0; r < 8; r += 2) {
    y[r] = MIX(x[r], x[r+1], 0, 8, 1, 9, 4, 12, 5, 13);
    y[r+1] = MIX(x[r], x[r+1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma GCC unroll 2
  for (int r = 0; r < 8; r += 4)
#pragma GCC unroll 2
  for (int k = 0; k < 2; ++k) {
    x[r+2*k] = MIX(y[r+k], y[r+k+2], 0, 1, 8, 9, 4, 5, 12, 13);
    x[r+2*k+1] = MIX(y[r+k], y[r+k+2], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    y[r] = MIX(x[r], x[r+4], 0, 1, 2, 3, 8, 9, 10, 11);
    y[r+4] = MIX(x[r], x[r+4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) *(v8u *)(to + r*b) = y[r];
}
#endif
#endif
"""
_TAKE = """\
static inline real real_{name}(const {kind} x) {{ return {get}; }}
static inline void in_{name}(real *to, const {kind} *from, int64_t m, int64_t w, int64_t W) {{
  int64_t k = 0;
{turn_in}  for (; k < m; ++k) {{
#pragma omp simd
    for (int64_t l = 0; l < w; ++l) to[k*W + l] = real_{name}(from[l*m + k]);
  }}
}}
static inline void out_{name}({kind} *to, const real *from, int64_t m, int64_t w, int64_t W) {{
  int64_t k = 0;
{turn_out}  for (; k < m; ++k) {{
#pragma omp simd
    for (int64_t l = 0; l < w; ++l) to[l*m + k] = {put};
  }}
}}
static inline void in3_{name}(real *to, const {kind} *from, int64_t w, int64_t W) {{
#pragma omp simd
  for (int64_t l = 0; l < w; ++l) {{
    to[l] = real_{name}(from[3*l]); to[W + l] = real_{name}(from[3*l + 1]);
    to[2*W + l] = real_{name}(from[3*l + 2]);
  }}
}}
static inline void out3_{name}({kind} *to, const real *x, int64_t w, int64_t W) {{
#pragma omp simd
  for (int64_t l = 0; l < w; ++l) {{
    to[3*l] = {put3[0]}; to[3*l + 1] = {put3[1]}; to[3*l + 2] = {put3[2]};
  }}
}}
static const real *take_{name}(real *to, const {kind} *from, int64_t m, int64_t w, int64_t W) {{
  if (m == 3) in3_{name}(to, from, w, W);
  else if (m == 9) in_{name}(to, from, 9, w, W);
  else in_{name}(to, from, m, w, W);
  return to;
}}
static void give_{name}({kind} *to, const real *from, int64_t m, int64_t w, int64_t W) {{
  if (m == 3) out3_{name}(to, from, w, W);
  else if (m == 9) out_{name}(to, from, 9, w, W);
  else out_{name}(to, from, m, w, W);
}}
"""
_TURN_IN = """\
#ifdef TURN
  for (; k + 8 <= m; k += 8) {
    int64_t l = 0;
    for (; l + 8 <= w; l += 8) turn(to + k*W + l, W, from + l*m + k, m);
    for (; l < w; ++l) for (int64_t j = k; j < k + 8; ++j) to[j*W + l] = from[l*m + j];
  }
#endif
"""
_TURN_OUT = """\
#ifdef TURN
  for (; k + 8 <= m; k += 8) {
    int64_t l = 0;
    for (; l + 8 <= w; l += 8) turn(to + l*m + k, m, from + k*W + l, W);
    for (; l < w; ++l) for (int64_t j = k; j < k + 8; ++j) to[l*m + j] = from[j*W + l];
  }
#endif
"""


def helpers(printer: Any) -> str:
    """Print the functions that copy matrices to buffers and back."""
    parts = [_TURN]
    real = "float64" if printer.double else "float32"
    for name in dict.fromkeys([*printer.types.values(), real]):
        kind, half = STORAGE[name], name == "bfloat16"
        turn = kind == "float" and not printer.double
        put = "put_bf16({})" if half else f"({kind})({{}})"
        parts.append(_TAKE.format(
            name=name, kind=kind, get="get_bf16(x)" if half else "(real)x",
            put=put.format("from[k*W + l]"), turn_in=_TURN_IN * turn, turn_out=_TURN_OUT * turn,
            put3=[put.format(f"x[{k}*W + l]") for k in range(3)]))  # fmt: skip
    return "\n".join(parts)


def body(printer: Any, phase: Phase) -> list[str]:
    """Print the tiles of a chunk.

    Args:
        printer: the printer of the plan.
        phase: the pass.
    """
    plain = plain_sums(phase)
    parts = loops(phase, "lanes", plain)
    straight = _straight_parts(phase, parts)
    kept, used, stored = buffers(phase, parts, "lanes"), printer.used(phase), changes(phase)
    lines = [f"  int64_t W = {TILE} / (R*C); W = W > 16 ? W - W % 16 : W;",
             *(f"  {printer.word(a, phase)} *{c_name(a)} = ({printer.word(a, phase)} *)"
               f"J->ptr[{printer.arrays.index(a)}*N + t] + at / (R*C) * ({_per(printer, a)});"
               for a in used),
             "  for (int64_t k = 0, all = n / (R*C); k < all; k += W) {",
             "  const int64_t w = all - k < W ? all - k : W;"]  # fmt: skip
    if plain:
        lines += _straight(printer, phase, [n.args[0] for n in plain], plain, {})
    ends = []
    read = {name for part in parts for name in _arrays(phase, part, id(part) in straight)}
    direct = {name for part in parts if id(part) in straight for name in part.stores}
    for name in used:
        x, kind, per = c_name(name), printer.types[name], _per(printer, name)
        if name in read:
            lines.append(f"  real b{x}[{BUFFER}];")
            lines.append(f"  const real *l{x} = take_{kind}(b{x}, {x} + k*({per}), {per}, w, W);")
        if name in stored and name not in direct:
            node = stored[name]
            source = f"B{node.number}" if node in kept else f"o{x}"
            if node not in kept:
                lines.append(f"  real o{x}[{BUFFER}];")
            ends.append(f"  give_{kind}({x} + k*({per}), {source}, {per}, w, W);")
    for node in kept:
        lines.append(f"  real B{node.number}[{BUFFER}];")
        if is_sum(node):
            lines.append(f"  memset(B{node.number}, 0, sizeof(real) * ({COUNT[node.space]})*W);")
    for part in parts:
        found = straight.get(id(part))
        lines += (_loop(printer, phase, part, kept) if found is None
                  else _expand(printer, phase, part, kept, found))  # fmt: skip
    return [*lines, *ends, "  }"]


def _arrays(phase: Phase, part: Loop, straight: bool) -> set[str]:
    """Return the arrays that a loop reads from buffers: all, or those of rows and columns."""
    nodes = {n for m in [*part.nodes, *(s.args[0] for s in part.sums)] for n in (m, *m.args)
             if n.space is not Space.ELEM or not straight}  # fmt: skip
    return {name for n in nodes if (name := array_of(n, phase)) is not None}


def _straight_parts(phase: Phase, parts: Sequence[Loop]) -> dict[int, list[Node]]:
    """Return the loops that run straight over the memory, with what each needs of the others.

    A loop that only adds up stays in lanes where others bring all that it reads there anyway.
    """
    found = {id(part): needed for part in parts if (needed := frontier(phase, part)) is not None}
    there = {name for part in parts if id(part) not in found
             for name in _arrays(phase, part, False)}  # fmt: skip
    return {id(part): found[id(part)] for part in parts if id(part) in found and not (
        found[id(part)] and not part.stores and _arrays(phase, part, False) <= there)}  # fmt: skip


def frontier(phase: Phase, part: Loop) -> list[Node] | None:
    """Return what a loop over elements needs of rows, columns and matrices, if that is little.

    These values are computed in lanes and brought into the order of the memory; the rest of the
    loop can then run straight over the memory. None where that would copy more, or cannot be.
    """
    if part.space is not Space.ELEM or any(n.space in SMALL for n in part.sums):
        return None
    outer = {n for n in part.nodes if n.space in SMALL}
    for node in part.nodes:
        if (
            node.space is Space.ELEM
            and computed(node, phase)
            and all(a in outer or a.space <= Space.TENSOR for a in node.args)
        ):
            outer.add(node)
    inner = [n for n in part.nodes if n.space is Space.ELEM and n not in outer]
    ends = [a for n in inner if computed(n, phase) for a in n.args]
    ends += [*part.stores.values(), *(n.args[0] for n in part.sums)]
    found = sorted({n for n in ends if n in outer}, key=lambda n: n.number)
    arrays = {array_of(n, phase) for n in inner if not computed(n, phase)}
    return found if len(found) <= len(arrays) + len(part.stores) else None


def _per(printer: Any, name: str) -> str:
    """Print how many elements of an array belong to one matrix."""
    return COUNT[printer.space.get(name, Space.ELEM)]


def _straight(printer: Any, phase: Phase, roots: Sequence[Node], sums: list[Node],
              stores: Mapping[str, Node], known: Sequence[Node] = ()) -> list[str]:  # fmt: skip
    """Print a loop over a tile's elements where they are.

    Args:
        printer: the printer of the plan.
        phase: the pass.
        roots: what is computed.
        sums: what is added up, per tensor.
        stores: what is written.
        known: values that are in buffers, in the order of the memory.
    """
    place, lines = "k*(R*C) + i", []
    for node in cone(roots, stop=[*known, *phase.loads]):
        if node in known:
            lines.append(f"const real v{node.number} = f{node.number}[i];")
        elif node.space is Space.ELEM:
            name = array_of(node, phase)
            lines.append(f"const real v{node.number} = {printer.get(name, place)};" if name
                         else printer.compute(node))  # fmt: skip
    lines += [printer.put(k, n, place) for k, n in stores.items()]
    head = "    for (int64_t i = 0; i < w*(R*C); ++i) {"
    return ["    {", *printer.summed(sums, head, [f"      {line}" for line in lines]), "    }"]


def _expand(printer: Any, phase: Phase, part: Loop, kept: list[Node],
            known: list[Node]) -> list[str]:  # fmt: skip
    """Print a loop over elements that runs straight over the memory."""
    real, place = ("float64" if printer.double else "float32"), INDEX["lanes"][Space.ELEM]
    needed = [n for n in cone(known, stop=[n for n in part.nodes if n.space in SMALL])
              if n in part.nodes]  # fmt: skip
    ahead = Loop(part.depth, Space.ELEM, needed)
    inner = [line for _, line in printer.statements(phase, ahead, "lanes", kept)]
    inner += [f"F{n.number}[{place}] = v{n.number};" for n in known]
    lines = [f"    real F{n.number}[{BUFFER}], f{n.number}[{BUFFER}];" for n in known]
    if known:
        lines += ["    for (int64_t i = 0; i < R; ++i)", "    for (int64_t j = 0; j < C; ++j) {",
                  *printer.summed([], "    for (int64_t l = 0; l < w; ++l) {",
                                  [f"      {line}" for line in inner]), "    }",
                  *(f"    give_{real}(f{n.number}, F{n.number}, R*C, w, W);"
                    for n in known)]  # fmt: skip
    roots = [*part.stores.values(), *(n.args[0] for n in part.sums)]
    return ["    {", *lines,
            *_straight(printer, phase, roots, part.sums, part.stores, known), "    }"]  # fmt: skip


def _loop(printer: Any, phase: Phase, part: Loop, kept: list[Node]) -> list[str]:
    heads = {Space.ELEM: ["    for (int64_t i = 0; i < R; ++i)",
                          "    for (int64_t j = 0; j < C; ++j) {"],
             Space.ROW: ["    for (int64_t i = 0; i < R; ++i) {"],
             Space.COL: ["    for (int64_t j = 0; j < C; ++j) {"],
             Space.MATRIX: ["    {"]}[part.space]  # fmt: skip
    lines = [line for _, line in printer.statements(phase, part, "lanes", kept)]
    for node in part.sums:
        if node.space in SMALL:
            place = INDEX["lanes"][node.space]
            lines.append(f"B{node.number}[{place}] += {value_of(node.args[0])};")
    for name, node in part.stores.items():
        lines.append(f"o{c_name(name)}[{INDEX['lanes'][Space.ELEM]}] = {value_of(node)};")
    sums = [n for n in part.sums if n.space is Space.TENSOR]
    return [*heads, *printer.summed(sums, "    for (int64_t l = 0; l < w; ++l) {",
                                    [f"      {line}" for line in lines]), "    }"]  # fmt: skip
