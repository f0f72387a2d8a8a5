"""Print a plan as C: one loop over chunks of many tensors per phase.

The file needs no header of torch. A stage is one function ``int stage_N(const job *J)``; a phase is
one ``omp for`` over chunks. Sums are made in double per chunk and added in a fixed order, so that
results do not depend on the number of threads.
"""

from __future__ import annotations

from brickyard.optim.ir import Node, Space
from brickyard.optim.ops import OPS
from brickyard.optim.plan import Phase, Plan, cone

#: C type of what is in memory, by torch's short name.
STORAGE = {"float32": "float", "float64": "double", "bfloat16": "bf16", "float16": "_Float16"}

HEADER = """\
#include <math.h>
#include <stdint.h>
#include <string.h>
typedef {real} real;
typedef uint16_t bf16;
typedef struct {{
  void **ptr; const int64_t *numel, *chunk, *unit; const double *scal;
  double *part, *sums, *totals; int64_t tensors, chunks, units, shared, threads;
}} job;
#define BIG {big}
static inline real larger(real a, real b) {{ return (a > b || a != a) ? a : b; }}
static inline real smaller(real a, real b) {{ return (a < b || a != a) ? a : b; }}
static inline real mix(real a, real b, real w) {{
  return w < (real)0.5 ? a + w * (b - a) : b - (b - a) * (1 - w);
}}
static inline float get_bf16(bf16 x) {{
  uint32_t u = (uint32_t)x << 16; float f; memcpy(&f, &u, 4); return f;
}}
static inline bf16 put_bf16(float f) {{
  uint32_t u; memcpy(&u, &f, 4);
  uint32_t r = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return f != f ? 0x7fc0 : (bf16)r;
}}
"""


class Printer:
    """Print one plan for one set of storage types.

    Args:
        plan: what to print.
        types: storage type by array name, in the order of the pointer table.
    """

    def __init__(self, plan: Plan, types: dict[str, str]) -> None:
        self.plan, self.types = plan, types
        self.double = types["param"] == "float64"
        self.arrays = list(types)
        compute = "float64" if self.double else "float32"
        self.phases = plan.phases(lambda name: types[name] == compute)
        self.sums = [n for phase in self.phases for n in phase.sums]

    @property
    def text(self) -> str:
        """Return the whole file."""
        real, big = ("double", "1.7976931348623157e308") if self.double else (
            "float", "3.4028234663852886e38f")  # fmt: skip
        parts = [HEADER.format(real=real, big=big)]
        for i, phase in enumerate(self.phases):
            parts.append(self._phase(i, phase))
        for stage in range(self.plan.graph.stages):
            parts.append(self._stage(stage))
        return "\n".join(parts)

    def _phase(self, number: int, phase: Phase) -> str:
        used = self._used(phase)
        lines = [f"static void phase_{number}(const job *J, int64_t c) {{",
                 "  const int64_t t = J->chunk[3*c], at = J->chunk[3*c+1], n = J->chunk[3*c+2];",
                 "  const int64_t N = J->tensors; (void)N; (void)at;"]  # fmt: skip
        for name in used:
            kind = self.arrays.index(name)
            word = ("" if name in phase.stores else "const ") + STORAGE[self.types[name]]
            lines.append(f"  {word} *restrict {_c(name)} = ({word} *)J->ptr[{kind}*N + t] + at;")
        lines += self._outer(phase.nodes, phase.level[0])
        return "\n".join([*lines, *self._loop(number, phase), "}"])

    def _used(self, phase: Phase) -> list[str]:
        read = {n.attr for n in phase.nodes if n.op == "load"} | set(phase.loads.values())
        read |= {f"scratch.{n.number}" for n in phase.nodes
                 if n.op == "matrix" and n.level <= phase.level}  # fmt: skip
        return [name for name in self.arrays if name in read or name in phase.stores]

    def _outer(self, nodes: list[Node], stage: int) -> list[str]:
        """Print host numbers and values per tensor, in double, and as ``real`` for the loop."""
        lines = []
        scalars = self.plan.device_scalars[stage]
        for node in nodes:
            if node.space is Space.HOST and node in scalars:
                lines.append(f"  const double d{node.number} = J->scal[{scalars.index(node)}];")
            elif node.space is Space.TENSOR:
                lines.append(f"  const double d{node.number} = {self._tensor_value(node)};")
            else:
                continue
            lines.append(f"  const real v{node.number} = (real)d{node.number}; "
                         f"(void)v{node.number};")  # fmt: skip
        return lines

    def _tensor_value(self, node: Node) -> str:
        if node in self.sums:
            return f"J->sums[t*{len(self.sums)} + {self.sums.index(node)}]"
        if node.op == "size":
            return "(double)J->numel[t]" if node.attr == "numel" else "1.0"
        if node.op == "sum":  # of one number per tensor
            return f"d{node.args[0].number}"
        places = [_constant(a) if a.op == "const" else f"d{a.number}" for a in node.args]
        text = OPS[node.op].c.format(*places, f="")
        for name in ("larger(", "smaller(", "mix("):
            text = text.replace(name, f"(double){name}")
        return text

    def _loop(self, number: int, phase: Phase) -> list[str]:
        own = [(self.sums.index(n), n) for n in phase.sums]
        body = [f"      {line}" for line in self._body(phase)]
        if not own:
            return ["#pragma omp simd", "    for (int64_t i = 0; i < n; ++i) {", *body, "    }"]
        clause = " reduction(+:" + ",".join(f"a{k}" for k, _ in own) + ")"
        begin = ["    double " + ", ".join(f"s{k} = 0" for k, _ in own) + ";",
                 "    for (int64_t b = 0; b < n; b += 2048) {",
                 "    const int64_t e = b + 2048 < n ? b + 2048 : n;",
                 "    real " + ", ".join(f"a{k} = 0" for k, _ in own) + ";",
                 f"#pragma omp simd{clause}",
                 "    for (int64_t i = b; i < e; ++i) {", *body]  # fmt: skip
        adds = [f"      a{k} += {_value(n.args[0])};" for k, n in own]
        ends = ["    }", *(f"    s{k} += (double)a{k};" for k, _ in own), "    }"]
        puts = [f"    J->part[c*{len(self.sums)} + {k}] = s{k};" for k, _ in own]
        return [*begin, *adds, *ends, *puts]

    def _body(self, phase: Phase) -> list[str]:
        lines = []
        for node in phase.nodes:
            if node.space is not Space.ELEM:
                continue
            name = phase.loads.get(node) or (node.attr if node.op == "load" else None)
            if node.op == "matrix":
                name = f"scratch.{node.number}"
            if name is not None:
                lines.append(f"const real v{node.number} = {self._get(name)};")
                continue
            kind = "int" if OPS[node.op].truth else "real"
            text = OPS[node.op].c.format(*map(_value, node.args), f="" if self.double else "f")
            lines.append(f"const {kind} v{node.number} = {text};")
        return lines + [self._put(k, n) for k, n in phase.stores.items() if phase.loads.get(n) != k]

    def _get(self, name: str) -> str:
        kind = self.types[name]
        return f"get_bf16({_c(name)}[i])" if kind == "bfloat16" else f"(real){_c(name)}[i]"

    def _put(self, name: str, node: Node) -> str:
        kind, value = self.types[name], _value(node)
        if kind == "bfloat16":
            return f"{_c(name)}[i] = put_bf16({value});"
        return f"{_c(name)}[i] = ({STORAGE[kind]})({value});"

    def _stage(self, stage: int) -> str:
        phases = [(i, p) for i, p in enumerate(self.phases) if p.level[0] == stage]
        totals = [n for n in self.plan.totals if n.level[0] == stage + 1]
        body = self._one_pass(*phases[0]) if len(phases) == 1 else self._passes(phases)
        lines = [f"int stage_{stage}(const job *J) {{",
                 "#pragma omp parallel num_threads(J->threads) if(J->threads > 1)", "  {",
                 *body, "  }", *self._totals(stage, totals), "  return 0;", "}"]  # fmt: skip
        return "\n".join(lines)

    def _one_pass(self, number: int, phase: Phase) -> list[str]:
        """Print a stage of one pass: threads share all chunks."""
        lines = ["#pragma omp for schedule(dynamic, 1)",
                 f"    for (int64_t c = 0; c < J->chunks; ++c) phase_{number}(J, c);"]  # fmt: skip
        if phase.sums:
            lines += ["#pragma omp single nowait", *self._combine(phase, "0", "J->chunks")]
        return lines

    def _passes(self, phases: list[tuple[int, Phase]]) -> list[str]:
        """Print a stage of several passes, tensor by tensor: the later find it in the cache.

        Threads work on large tensors together; smaller ones belong to one thread each, which
        needs no barrier.
        """
        lines = ["    for (int64_t g = 0; g < J->shared; ++g) {",
                 "    const int64_t *G = J->unit + 3*g;"]  # fmt: skip
        loop = "    for (int64_t c = G[1]; c < G[2]; ++c)"
        for number, phase in phases:
            lines += ["#pragma omp for schedule(dynamic, 1)", f"{loop} phase_{number}(J, c);"]
            if phase.sums:
                lines += ["#pragma omp single", *self._combine(phase, "G[1]", "G[2]")]
        lines += ["    }", "#pragma omp for schedule(dynamic, 1)",
                  "    for (int64_t g = J->shared; g < J->units; ++g) {",
                  "    const int64_t *G = J->unit + 3*g;"]  # fmt: skip
        for number, phase in phases:
            lines.append(f"{loop} phase_{number}(J, c);")
            if phase.sums:
                lines += self._combine(phase, "G[1]", "G[2]")
        return [*lines, "    }"]

    def _combine(self, phase: Phase, begin: str, end: str) -> list[str]:
        """Print how chunks' sums become tensors' sums, in the order of the chunks."""
        n = len(self.sums)
        places = [self.sums.index(node) for node in phase.sums]
        zero = " ".join(f"S[{k}] = 0;" for k in places)
        add = " ".join(f"S[{k}] += J->part[c*{n}+{k}];" for k in places)
        return [f"    for (int64_t c = {begin}; c < {end}; ++c) {{",
                f"      double *S = J->sums + J->chunk[3*c]*{n};",
                f"      if (J->chunk[3*c+1] == 0) {{ {zero} }}",
                f"      {add}", "    }"]  # fmt: skip

    def _totals(self, stage: int, totals: list[Node]) -> list[str]:
        if not totals:
            return []
        nodes = cone([n.args[0] for n in totals], stop=self.sums)
        places = [self.plan.totals.index(n) for n in totals]
        lines = [f"  J->totals[{k}] = 0;" for k in places]
        lines.append("  for (int64_t t = 0; t < J->tensors; ++t) {")
        lines += self._outer(nodes, stage)
        for k, node in zip(places, totals, strict=True):
            arg = node.args[0]
            value = _constant(arg) if arg.op == "const" else f"d{arg.number}"
            lines.append(f"  J->totals[{k}] += {value};")
        return [*lines, "  }"]


def _value(node: Node) -> str:
    return _constant(node) if node.op == "const" else f"v{node.number}"


def _constant(node: Node) -> str:
    value = float(node.attr)
    if value != value:
        return "((real)NAN)"
    if abs(value) == float("inf"):
        return "((real)INFINITY)" if value > 0 else "((real)-INFINITY)"
    return f"((real){value!r})"


def _c(name: str) -> str:
    return "x_" + "".join(ch if ch.isalnum() else "_" for ch in name)
