"""Print a plan as C: one loop over chunks of many tensors per phase.

The file needs no header of torch. A stage is one function ``int stage_N(const job *J)``; a phase is
one ``omp for`` over chunks. Sums are made in double per chunk and added in a fixed order, so that
results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brickyard.optim.ir import Node, Space
from brickyard.optim.ops import OPS
from brickyard.optim.plan import Phase, Plan, cone, is_sum

#: C type of what is in memory, by torch's short name.
STORAGE = {"float32": "float", "float64": "double", "bfloat16": "bf16", "float16": "_Float16"}
#: Elements that are added in ``real`` before the sum goes on in double.
BLOCK = 2048
#: Arrays of a pass at most that is made in two places of a chunk at once: the processor fetches
#: ahead within a page of 4 KB only, so that few arrays alone leave the memory idle at each page.
PAIRED = 4

HEADER = """\
#include <math.h>
#include <stdint.h>
#include <string.h>
typedef {real} real;
typedef uint16_t bf16;
typedef struct {{
  void **ptr; const int64_t *numel, *chunk, *unit; const double *scal;
  double *part, *sums, *totals; int64_t tensors, chunks, units, shared;
  const int64_t *dims, *place; real *piece; double *kept; int64_t threads;
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
        self.sums = [n for n in plan.alive if is_sum(n) and n.space is Space.TENSOR]

    def early(self, name: str) -> bool:
        """Say whether what is read back from memory is what was stored."""
        return self.types[name] == ("float64" if self.double else "float32")

    @property
    def passes(self) -> dict[str, list[Phase]]:
        """Return the passes by the form of the tensors that they are for."""
        return {"flat": self.plan.phases(self.early)}

    @property
    def text(self) -> str:
        """Return the whole file."""
        real, big = ("double", "1.7976931348623157e308") if self.double else (
            "float", "3.4028234663852886e38f")  # fmt: skip
        parts = [HEADER.format(real=real, big=big)]
        for form, phases in self.passes.items():
            parts += [self.function(form, i, phase) for i, phase in enumerate(phases)]
        parts += [self._stage(stage) for stage in range(self.plan.graph.stages)]
        return "\n".join(parts)

    def function(self, form: str, number: int, phase: Phase) -> str:
        """Print the function that runs a phase over one chunk."""
        lines = [f"static void {form}_{number}(const job *J, int64_t c) {{", *self.chunk(phase)]
        for name in self.used(phase):
            word = self.word(name, phase)
            lines.append(f"  {word} *restrict {c_name(name)} = ({word} *)"
                         f"J->ptr[{self.arrays.index(name)}*N + t] + at;")  # fmt: skip
        loop = self._loop(phase, "0", "n")
        if len(self.used(phase)) <= PAIRED:
            loop = ["    const int64_t h = n / 32 * 16;", *self._loop(phase, "0", "h", pair=True),
                    *self._loop(phase, "2*h", "n")]  # fmt: skip
        return "\n".join([*lines, *self.begin_sums(phase), *loop, *self.end_sums(phase), "}"])

    def _loop(self, phase: Phase, first: str, end: str, pair: bool = False) -> list[str]:
        """Print the loop over a chunk's elements, or over pairs of elements ``h`` apart."""
        body = [f"      {line}" for line in self._body(phase)]
        if pair:
            adds = [f"      {name} += {value};" for name, value, _ in self._adds(phase.sums)]
            ahead = [f"      {line}" for line in self._body(phase, "i + h")]
            body = ["      {", *body, *adds, "      }", *ahead]
        if not phase.sums:
            head = f"    for (int64_t i = {first}; i < {end}; ++i) {{"
            return ["#pragma omp simd", head, *body, "    }"]
        size = BLOCK // 2 if pair else BLOCK
        return [f"    for (int64_t b = {first}; b < {end}; b += {size}) {{",
                f"    const int64_t e = b + {size} < {end} ? b + {size} : {end};",
                *self.summed(phase.sums, "    for (int64_t i = b; i < e; ++i) {", body),
                "    }"]  # fmt: skip

    def chunk(self, phase: Phase) -> list[str]:
        """Print what a chunk is, and the values that are one per tensor."""
        return ["  const int64_t t = J->chunk[3*c], at = J->chunk[3*c+1], n = J->chunk[3*c+2];",
                "  const int64_t N = J->tensors; (void)N; (void)at; (void)n;",
                *self.outer(phase.nodes, phase.level[0])]  # fmt: skip

    def used(self, phase: Phase) -> list[str]:
        """Return the arrays that a phase reads or writes."""
        read = {n.attr for n in phase.nodes if n.op == "load"} | set(phase.loads.values())
        read |= {f"scratch.{n.number}" for n in phase.nodes
                 if n.op == "matrix" and n.stage <= phase.level[0]}  # fmt: skip
        return [name for name in self.arrays if name in read or name in phase.stores]

    def word(self, name: str, phase: Phase) -> str:
        """Return the C type behind an array's pointer."""
        return ("" if name in phase.stores else "const ") + STORAGE[self.types[name]]

    def outer(self, nodes: Iterable[Node], stage: int) -> list[str]:
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
            return "(double)" + SIZES[node.attr]
        if node.op == "sum":  # of one number per tensor
            return f"d{node.args[0].number}"
        places = [_constant(a) if a.op == "const" else f"d{a.number}" for a in node.args]
        text = OPS[node.op].c.format(*places, f="")
        for name in ("larger(", "smaller(", "mix("):
            text = text.replace(name, f"(double){name}")
        return text

    def begin_sums(self, phase: Phase) -> list[str]:
        """Print the sums of a chunk, which start at zero."""
        return [f"  double s{self.sums.index(n)} = 0;" for n in phase.sums if n in self.sums]

    def end_sums(self, phase: Phase) -> list[str]:
        """Print where the sums of a chunk are kept."""
        return [f"  J->part[c*{len(self.sums)} + {k}] = s{k};"
                for n in phase.sums if n in self.sums for k in [self.sums.index(n)]]  # fmt: skip

    def _adds(self, sums: Sequence[Node]) -> list[tuple[str, str, str]]:
        """Return the sums per tensor: name, what is added, where the sum goes."""
        return [(f"a{k}", value_of(n.args[0]), f"s{k} += (double)a{k};")
                for n in sums for k in [self.sums.index(n)]]  # fmt: skip

    def summed(self, sums: Sequence[Node], head: str, body: list[str],
               own: Sequence[tuple[str, str, str]] = ()) -> list[str]:  # fmt: skip
        """Print a loop that adds values per tensor on the way.

        Args:
            sums: the sums per tensor that it makes.
            head: its first line.
            body: its inner lines.
            own: further sums: name, what is added, where the sum goes.
        """
        every = self._adds(sums) + list(own)
        names = [name for name, _, _ in every]
        if not names:
            return ["#pragma omp simd", head, *body, "    }"]
        return ["    real " + ", ".join(f"{name} = 0" for name in names) + ";",
                "#pragma omp simd reduction(+:" + ",".join(names) + ")", head, *body,
                *(f"      {name} += {value};" for name, value, _ in every), "    }",
                *(f"    {end}" for _, _, end in every)]  # fmt: skip

    def _body(self, phase: Phase, index: str = "i") -> list[str]:
        lines = []
        for node in phase.nodes:
            if node.space <= Space.TENSOR:
                continue
            name = array_of(node, phase)
            if name is None and is_sum(node):  # of one value
                lines.append(f"const real v{node.number} = {value_of(node.args[0])};")
                continue
            lines.append(f"const real v{node.number} = {self.get(name, index)};" if name
                         else self.compute(node))  # fmt: skip
        return lines + [self.put(k, n, index) for k, n in phase.stores.items()
                        if phase.loads.get(n) != k and (n.op, n.attr) != ("load", k)]  # fmt: skip

    def compute(self, node: Node) -> str:
        """Print a node's value from its arguments'."""
        kind = "int" if OPS[node.op].truth else "real"
        text = OPS[node.op].c.format(*map(value_of, node.args), f="" if self.double else "f")
        if node.op in ("maximum", "minimum"):  # one instruction where a bound cannot be NaN
            bound = next((a for a in node.args if a.space is Space.HOST and a.stage == 0), None)
            if bound is not None:
                x, b = (next(a for a in node.args if a is not bound), bound)
                sign = ">" if node.op == "maximum" else "<"
                text = f"({value_of(b)} {sign} {value_of(x)} ? {value_of(b)} : {value_of(x)})"
        return f"const {kind} v{node.number} = {text};"

    def get(self, name: str, index: str) -> str:
        """Print an array's element as ``real``."""
        kind = self.types[name]
        return (
            f"get_bf16({c_name(name)}[{index}])"
            if kind == "bfloat16"
            else f"(real){c_name(name)}[{index}]"
        )

    def put(self, name: str, node: Node, index: str) -> str:
        """Print how a node's value is stored."""
        kind, value = self.types[name], value_of(node)
        value = f"put_bf16({value})" if kind == "bfloat16" else f"({STORAGE[kind]})({value})"
        return f"{c_name(name)}[{index}] = {value};"

    def _stage(self, stage: int) -> str:
        passes = {form: [(i, p) for i, p in enumerate(phases) if p.level[0] == stage]
                  for form, phases in self.passes.items()}  # fmt: skip
        totals = [n for n in self.plan.totals if n.stage == stage + 1]
        body = self._one_pass(passes) if all(len(p) == 1 for p in passes.values()) else (
            self._passes(passes))  # fmt: skip
        lines = [f"int stage_{stage}(const job *J) {{",
                 "#pragma omp parallel num_threads(J->threads) if(J->threads > 1)", "  {",
                 *body, "  }", *self._totals(stage, totals), "  return 0;", "}"]  # fmt: skip
        return "\n".join(lines)

    def _one_pass(self, passes: dict[str, list[tuple[int, Phase]]]) -> list[str]:
        """Print a stage of one pass: threads share all chunks."""
        lines = ["#pragma omp for schedule(dynamic, 1)",
                 "    for (int64_t c = 0; c < J->chunks; ++c) {"]  # fmt: skip
        lines += self.switch({form: [f"{form}_{p[0][0]}(J, c);"] for form, p in passes.items()},
                             "J->chunk[3*c]")  # fmt: skip
        ends = {form: self.close(form, *p[0]) for form, p in passes.items()}
        if any(ends.values()):
            lines += ["    }", "#pragma omp single nowait",
                      "    for (int64_t g = 0; g < J->units; ++g) {",
                      "    const int64_t *G = J->unit + 3*g;"]  # fmt: skip
            lines += self.switch(ends, "G[0]")
        return [*lines, "    }"]

    def _passes(self, passes: dict[str, list[tuple[int, Phase]]]) -> list[str]:
        """Print a stage of several passes, tensor by tensor: the later find it in the cache.

        Threads work on large tensors together; smaller ones belong to one thread each, which
        needs no barrier.
        """
        # Every other pass runs backwards: what the pass before read last is still in the cache.
        ways = ("    for (int64_t c = G[1]; c < G[2]; ++c)",
                "    for (int64_t c = G[2] - 1; c >= G[1]; --c)")  # fmt: skip
        shared: dict[str, list[str]] = {}
        alone: dict[str, list[str]] = {}
        for form, phases in passes.items():
            shared[form], alone[form] = [], []
            for k, (number, phase) in enumerate(phases):
                end, loop = self.close(form, number, phase), ways[k % 2]
                shared[form] += ["#pragma omp for schedule(dynamic, 1)",
                                 f"{loop} {form}_{number}(J, c);"]  # fmt: skip
                shared[form] += ["#pragma omp single", "    {", *end, "    }"] if end else []
                alone[form] += [f"{loop} {form}_{number}(J, c);", *end]
        unit = "    const int64_t *G = J->unit + 3*g;"
        return ["    for (int64_t g = 0; g < J->shared; ++g) {", unit,
                *self.switch(shared, "G[0]"), "    }", "#pragma omp for schedule(dynamic, 1)",
                "    for (int64_t g = J->shared; g < J->units; ++g) {", unit,
                *self.switch(alone, "G[0]"), "    }"]  # fmt: skip

    def switch(self, bodies: dict[str, list[str]], tensor: str) -> list[str]:
        """Print what is done for a tensor of each form."""
        return next(iter(bodies.values()))

    def close(self, form: str, number: int, phase: Phase) -> list[str]:
        """Print how chunks' sums become a tensor's, in the order of the chunks."""
        n, places = len(self.sums), [self.sums.index(n) for n in phase.sums if n in self.sums]
        if not places:
            return []
        zero = " ".join(f"S[{k}] = 0;" for k in places)
        add = " ".join(f"S[{k}] += J->part[c*{n}+{k}];" for k in places)
        return [f"    {{ double *S = J->sums + G[0]*{n}; {zero}",
                f"    for (int64_t c = G[1]; c < G[2]; ++c) {{ {add} }} }}"]  # fmt: skip

    def _totals(self, stage: int, totals: list[Node]) -> list[str]:
        if not totals:
            return []
        nodes = cone([n.args[0] for n in totals], stop=self.sums)
        places = [self.plan.totals.index(n) for n in totals]
        lines = [f"  J->totals[{k}] = 0;" for k in places]
        lines.append("  for (int64_t t = 0; t < J->tensors; ++t) {")
        lines += self.outer(nodes, stage)
        for k, node in zip(places, totals, strict=True):
            arg = node.args[0]
            value = _constant(arg) if arg.op == "const" else f"d{arg.number}"
            lines.append(f"  J->totals[{k}] += {value};")
        return [*lines, "  }"]


#: Elements per tensor, row and so on, from the tables.
SIZES = {
    "numel": "J->numel[t]", "rows": "J->dims[5*t+2]", "cols": "J->dims[5*t+3]",
    "matrices": "J->dims[5*t+1]", "row_count": "(J->dims[5*t+1]*J->dims[5*t+2])",
    "col_count": "(J->dims[5*t+1]*J->dims[5*t+3])",
}  # fmt: skip


def array_of(node: Node, phase: Phase) -> str | None:
    """Return the array that a phase reads a node from, if any."""
    if node in phase.loads:
        return phase.loads[node]
    return f"scratch.{node.number}" if node.op == "matrix" else (
        node.attr if node.op == "load" else None)  # fmt: skip


def value_of(node: Node) -> str:
    """Return a node's name or number in C."""
    return _constant(node) if node.op == "const" else f"v{node.number}"


def _constant(node: Node) -> str:
    value = float(node.attr)
    if value != value:
        return "((real)NAN)"
    if abs(value) == float("inf"):
        return "((real)INFINITY)" if value > 0 else "((real)-INFINITY)"
    return f"((real){value!r})"


def c_name(name: str) -> str:
    """Return an array's name in C."""
    return "x_" + "".join(ch if ch.isalnum() else "_" for ch in name)
