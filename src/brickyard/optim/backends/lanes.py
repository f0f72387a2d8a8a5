"""Print a pass over small matrices: many at a time, side by side, one per lane of a vector.

Matrices are copied to buffers so that equal elements of many stand next to each other. Everything
else is then plain vector arithmetic, whatever the size of a matrix.
"""

from __future__ import annotations

from typing import Any

from brickyard.optim.backends.cgen import STORAGE, array_of, c_name, value_of
from brickyard.optim.backends.tiles import (
    BUFFER,
    COUNT,
    INDEX,
    TILE,
    Loop,
    buffers,
    changes,
    loops,
    plain_sums,
)
from brickyard.optim.ir import SMALL, Node, Space
from brickyard.optim.plan import Phase, cone, is_sum

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
static const real *take_{name}(real *to, const {kind} *from, int64_t m, int64_t w, int64_t W) {{
{take}  in_{name}(to, from, m, w, W);
  return to;
}}
static void give_{name}({kind} *to, const real *from, int64_t m, int64_t w, int64_t W) {{
{give}  out_{name}(to, from, m, w, W);
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
    for name in dict.fromkeys(printer.types.values()):
        kind, half = STORAGE[name], name == "bfloat16"
        turn = kind == "float" and not printer.double
        # Known sizes let the compiler unroll: rows of 3x3 kernels, and the kernels.
        take, give = ("".join(f"  if (m == {m}) {{ {word}_{name}(to, from, {m}, w, W); "
                              f"return{back}; }}\n" for m in (1, 3, 9))
                      for word, back in (("in", " to"), ("out", "")))  # fmt: skip
        parts.append(_TAKE.format(
            name=name, kind=kind, get="get_bf16(x)" if half else "(real)x",
            put=f"{'put_bf16' if half else f'({kind})'}(from[k*W + l])", take=take, give=give,
            turn_in=_TURN_IN * turn, turn_out=_TURN_OUT * turn))  # fmt: skip
    return "\n".join(parts)


def body(printer: Any, phase: Phase) -> list[str]:
    """Print the tiles of a chunk.

    Args:
        printer: the printer of the plan.
        phase: the pass.
    """
    plain = plain_sums(phase)
    parts = loops(phase, "lanes", plain)
    kept, used = buffers(phase, parts, "lanes"), printer.used(phase)
    stored = changes(phase)
    lines = [f"  int64_t W = {TILE} / (R*C); W = W > 16 ? W - W % 16 : W;",
             *(f"  {printer.word(a, phase)} *{c_name(a)} = ({printer.word(a, phase)} *)"
               f"J->ptr[{printer.arrays.index(a)}*N + t] + at / (R*C) * ({_per(printer, a)});"
               for a in used),
             "  for (int64_t k = 0, all = n / (R*C); k < all; k += W) {",
             "  const int64_t w = all - k < W ? all - k : W;"]  # fmt: skip
    if plain:
        lines += _plain(printer, phase, plain)
    ends = []
    read = {array_of(n, phase) for part in parts for m in
            [*part.nodes, *(s.args[0] for s in part.sums)] for n in (m, *m.args)}  # fmt: skip
    for name in used:
        x, kind, per = c_name(name), printer.types[name], _per(printer, name)
        if name in read:
            lines.append(f"  real b{x}[{BUFFER}];")
            lines.append(f"  const real *l{x} = take_{kind}(b{x}, {x} + k*({per}), {per}, w, W);")
        if name in stored:
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
        lines += _loop(printer, phase, part, kept)
    return [*lines, *ends, "  }"]


def _per(printer: Any, name: str) -> str:
    """Print how many elements of an array belong to one matrix."""
    return COUNT[printer.space.get(name, Space.ELEM)]


def _plain(printer: Any, phase: Phase, sums: list[Node]) -> list[str]:
    """Print sums for which elements may stay where they are."""
    ends = [n for n in phase.nodes if n in phase.loads]
    lines = []
    for node in cone([n.args[0] for n in sums], stop=ends):
        if node.space is Space.ELEM:
            name = array_of(node, phase)
            lines.append(f"const real v{node.number} = {printer.get(name, 'k*(R*C) + i')};" if name
                         else printer.compute(node))  # fmt: skip
    head = "    for (int64_t i = 0; i < w*(R*C); ++i) {"
    return ["    {", *printer.summed(sums, head, [f"      {line}" for line in lines]), "    }"]


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
