"""Trace a chain of rules with ``torch.fx`` and lower it to the small graph of ``ir``.

Only what stands in ``LOWER`` below is allowed in a rule. Everything else is refused with the name
of the operation, the rule and the line.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.fx.proxy import GraphAppendingTracer

from brickyard.errors import near
from brickyard.optim import maths
from brickyard.optim.ir import REDUCED, Graph, Node, Space
from brickyard.optim.ops import HOST_NAMES, OPS


class RuleError(TypeError):
    """A rule uses something that no backend can run."""


_SKIP = (torch.__path__[0], __file__, maths.__file__)


def _caller() -> str:
    """Return file, line and text of the innermost frame that belongs to a rule."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_SKIP):
        frame = frame.f_back
    if frame is None:
        return ""
    file, line = frame.f_code.co_filename, frame.f_lineno
    return f"{file}:{line}: {linecache.getline(file, line).strip()}"


class Value(fx.Proxy):
    """Stand for a value while a rule is traced.

    fx's own way of taking up torch's functions first lists all of them, for 0.03 seconds.
    """

    @classmethod
    def __torch_function__(cls, orig_method: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:  # fmt: skip
        """Note the call of one of torch's functions."""
        values = [*args, *(kwargs or {}).values()]
        tracer = next(x.tracer for x in values if isinstance(x, fx.Proxy))
        return tracer.create_proxy("call_function", orig_method, args, kwargs or {})


class _Recorder(GraphAppendingTracer):
    """Append nodes to a graph and note for each the line and the piece that made it."""

    place: int = -1

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Value(node, self)

    def create_node(self, *args: Any, **options: Any) -> fx.Node:
        node = super().create_node(*args, **options)
        node.meta["line"], node.meta["place"] = _caller(), self.place
        return node

    def create_arg(self, a: Any) -> Any:
        if callable(a) and not isinstance(a, fx.Proxy):
            return a  # the function of per_matrix
        return super().create_arg(a)

    def to_bool(self, obj: Any) -> bool:
        raise RuleError(
            f"a rule cannot branch on a value that is only known at run time: use "
            f"when(condition, a, b), minimum(a, b) or maximum(a, b) of brickyard.optim.maths; "
            f"or make it an option of the rule\n  {_caller()}"
        )

    def iter(self, obj: Any) -> Any:
        raise RuleError(f"a rule cannot iterate over a tensor\n  {_caller()}")


class Lowering:
    """Build the small graph from fx nodes."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.fx = fx.Graph()
        self.tracer = _Recorder(self.fx)
        self.values: dict[fx.Node, Any] = {}
        self.line, self.place = "", -1

    def begin(self, piece: int) -> None:
        """Note which piece the nodes that follow belong to."""
        self.tracer.place = piece

    def leaf(self, op: str, name: str, space: Space) -> fx.Proxy:
        """Add an input and return its proxy."""
        holder = self.fx.placeholder(f"{op}_{len(self.values)}")
        self.values[holder] = self.graph.node(op, attr=name, space=space)
        return self.tracer.proxy(holder)

    def lower(self) -> None:
        """Lower every node recorded so far."""
        for node in self.fx.nodes:
            if node not in self.values:
                self.values[node] = self._lower_node(node)

    def value(self, proxy: Any) -> Node:
        """Return the lowered node of a proxy or a number."""
        return self.to_node(self.values[proxy.node] if isinstance(proxy, fx.Proxy) else proxy)

    def to_node(self, value: Any) -> Node:
        """Return a node for a node, a number or a condition."""
        if isinstance(value, Node):
            return value
        if isinstance(value, bool | int | float):
            return self.graph.const(value)
        raise RuleError(f"a rule works on tensors and numbers, not on "
                        f"{type(value).__name__} {value!r}\n  {self.line}")  # fmt: skip

    def _lower_node(self, node: fx.Node) -> Any:
        self.line, self.place = node.meta.get("line", ""), node.meta.get("place", -1)
        name = node.target if isinstance(node.target, str) else _name(node.target)
        if node.op == "call_function" and node.target is getattr:
            raise RuleError(f"a rule cannot read .{node.args[1]} of a tensor\n  {self.line}")
        found = LOWER.get(str(name))
        if found is None:
            if str(name).endswith("_") and LOWER.get(str(name)[:-1]):
                raise RuleError(f"a rule changes nothing in place: use {str(name)[:-1]} instead of "
                                f"{name}\n  {self.line}")  # fmt: skip
            raise RuleError(f"no backend can run {name!r} in a rule"
                            f"{near(str(name), LOWER)}\n  {self.line}")  # fmt: skip
        args = [self.values[a] if isinstance(a, fx.Node) else a for a in node.args]
        options = {k: self.values[v] if isinstance(v, fx.Node) else v
                   for k, v in node.kwargs.items()}  # fmt: skip
        try:
            return found(self, *args, **options)
        except RuleError:
            raise
        except TypeError as error:
            raise RuleError(f"{name} does not take these arguments in a rule: {error}"
                            f"\n  {self.line}") from None  # fmt: skip

    def op(self, name: str, *values: Any) -> Node:
        """Add an elementwise operation; constants are folded."""
        args = [self.to_node(v) for v in values]
        if all(a.op == "const" for a in args):
            text = OPS[name].py.format(*(f"({a.attr!r})" for a in args))
            return self.graph.const(eval(text, HOST_NAMES))
        if name == "div" and args[0].space > args[1].space:  # one division for many products
            name, args = "mul", [args[0], self.op("reciprocal", args[1])]
        return self.graph.node(name, *args, line=self.line)

    def reduce(self, name: str, x: Any, dim: Any, keepdim: bool) -> Node:
        """Add a sum over everything, over rows or over columns."""
        x = self.to_node(x)
        if x.space is Space.HOST:
            raise RuleError(f"a number on the host cannot be reduced\n  {self.line}")
        if dim is None:
            return self.graph.node("sum", x, line=self.line)
        kind = {-1: "sum_cols", (-1,): "sum_cols", -2: "sum_rows", (-2,): "sum_rows"}.get(
            tuple(dim) if isinstance(dim, list) else dim
        )
        if kind is None or not keepdim or (kind, x.space) not in REDUCED:
            raise RuleError(
                f"{name} in a rule is over all elements, or over dim=-1 or dim=-2 with "
                f"keepdim=True, once each; got dim={dim}, keepdim={keepdim}\n  {self.line}"
            )
        return self.graph.node(kind, x, line=self.line)

    def count(self, x: Any, dim: Any) -> Node:
        """Return how many values a reduction sums."""
        x = self.to_node(x)
        if dim in (-1, (-1,), [-1]):
            return self.graph.node("size", attr="cols", space=Space.TENSOR)
        if dim in (-2, (-2,), [-2]):
            return self.graph.node("size", attr="rows", space=Space.TENSOR)
        name = {Space.ELEM: "numel", Space.ROW: "row_count", Space.COL: "col_count",
                Space.MATRIX: "matrices"}.get(x.space)  # fmt: skip
        if name is None:
            return self.graph.const(1.0)
        return self.graph.node("size", attr=name, space=Space.TENSOR)


def _name(target: Any) -> str:
    return getattr(target, "__name__", repr(target))


def _elementwise(name: str) -> Callable[..., Any]:
    wanted = sum(f"{{{i}}}" in OPS[name].torch for i in range(3))

    def lower(b: Lowering, *args: Any) -> Node:
        if len(args) != wanted:
            raise TypeError(f"it takes {wanted}, got {len(args)}")
        return b.op(name, *args)

    return lower


def _add(b: Lowering, x: Any, y: Any, *, alpha: Any = 1) -> Node:
    return b.op("add", x, y if alpha == 1 else b.op("mul", y, alpha))


def _sub(b: Lowering, x: Any, y: Any, *, alpha: Any = 1) -> Node:
    return b.op("sub", x, y if alpha == 1 else b.op("mul", y, alpha))


def _pow(b: Lowering, x: Any, y: Any) -> Node:
    node = b.to_node(x)
    if node.space is not Space.HOST and not isinstance(y, Node):
        if y == 2:
            return b.op("mul", node, node)
        if y == 0.5:
            return b.op("sqrt", node)
        if y == 1:
            return node
    return b.op("pow", node, y)


def _clamp(b: Lowering, x: Any, min: Any = None, max: Any = None) -> Node:
    node = b.to_node(x)
    node = node if min is None else b.op("maximum", node, min)
    return node if max is None else b.op("minimum", node, max)


def _sum(b: Lowering, x: Any, dim: Any = None, keepdim: bool = False) -> Node:
    return b.reduce("sum", x, dim, keepdim)


def _mean(b: Lowering, x: Any, dim: Any = None, keepdim: bool = False) -> Node:
    return b.op("div", b.reduce("mean", x, dim, keepdim), b.count(x, dim))


def _norm(b: Lowering, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Node:
    if p not in (2, 2.0, "fro"):
        raise RuleError(f"only the 2-norm is available in a rule; got p={p!r}\n  {b.line}")
    return b.op("sqrt", b.reduce("norm", b.op("mul", x, x), dim, keepdim))


def _unit_sum(b: Lowering, x: Any) -> Node:
    node = b.to_node(x)
    if node.space is not Space.ELEM:
        raise RuleError(f"unit_sum() needs a whole tensor\n  {b.line}")
    return b.graph.node("sum_unit", node, line=b.line)


def _total(b: Lowering, x: Any) -> Node:
    node = b.to_node(x)
    if node.space > Space.TENSOR:
        raise RuleError(f"total() sums one number per tensor: reduce first, as in "
                        f"total((u * u).sum())\n  {b.line}")  # fmt: skip
    number = sum(n.op == "total" and n.attr[0] == b.place for n in b.graph.nodes)
    return b.graph.node("total", node, attr=(b.place, number), line=b.line)


def _guard(b: Lowering, condition: Any, error: str) -> None:
    node = b.to_node(condition)
    if node.space is not Space.HOST:
        raise RuleError(f"guard() needs a condition of hyperparameters and totals\n  {b.line}")
    b.graph.guards[node] = error


def _per_matrix(b: Lowering, function: Any, x: Any) -> Node:
    node = b.to_node(x)
    if node.space is not Space.ELEM:
        raise RuleError(f"per_matrix() needs a whole tensor\n  {b.line}")
    return b.graph.node("matrix", node, attr=function, line=b.line)


def _where(b: Lowering, condition: Any, yes: Any, no: Any) -> Node:
    return b.op("where", condition, yes, no)


LOWER: dict[str, Callable[..., Any]] = {
    **{name: _elementwise(name) for name in OPS},
    "truediv": _elementwise("div"), "mod": _elementwise("mod"), "remainder": _elementwise("mod"),
    "and_": _elementwise("and"), "or_": _elementwise("or"), "invert": _elementwise("not"),
    "logical_and": _elementwise("and"), "logical_or": _elementwise("or"),
    "logical_not": _elementwise("not"), "absolute": _elementwise("abs"),
    "divide": _elementwise("div"), "multiply": _elementwise("mul"),
    "fmax": _elementwise("maximum"),
    "add": _add, "sub": _sub, "subtract": _sub, "pow": _pow, "clamp": _clamp, "clip": _clamp,
    "square": lambda b, x: b.op("mul", x, x),
    "addcmul": lambda b, x, y, z, *, value=1: _add(b, x, b.op("mul", y, z), alpha=value),
    "addcdiv": lambda b, x, y, z, *, value=1: _add(b, x, b.op("div", y, z), alpha=value),
    "clone": lambda b, x: b.to_node(x), "detach": lambda b, x: b.to_node(x),
    "positive": lambda b, x: b.to_node(x), "pos": lambda b, x: b.to_node(x),
    "zeros_like": lambda b, x: b.graph.const(0.0),
    "ones_like": lambda b, x: b.graph.const(1.0),
    "numel": lambda b, x: b.count(x, None),
    "sum": _sum, "mean": _mean, "norm": _norm,
    "vector_norm": lambda b, x, ord=2, dim=None, keepdim=False: _norm(b, x, ord, dim, keepdim),
    "linalg_vector_norm": lambda b, x, ord=2, dim=None, keepdim=False: _norm(b, x, ord, dim,
                                                                             keepdim),
    "when": _where, "where": _where, "total": _total, "guard": _guard, "per_matrix": _per_matrix,
    "unit_sum": _unit_sum,
    }  # fmt: skip
