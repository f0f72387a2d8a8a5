"""The allow-list: every operation that a rule may use, and how each backend spells it.

One row per elementwise operation: its C expression, its Python expression on host numbers, and the
function on lists of tensors. A rule that uses anything else is refused when it is traced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Op:
    """Spell one elementwise operation.

    Args:
        c: C expression over ``{0}``, ``{1}`` ...; ``{f}`` is ``f`` for float and empty for double.
        py: Python expression over the same places, on floats (IEEE: it never raises).
        torch: function on one tensor each (or numbers), for foreach's odd cases.
        foreach: name of ``torch._foreach_<name>``, where there is one.
        truth: whether its value is a condition.
    """

    c: str
    py: str
    torch: str
    foreach: str = ""
    truth: bool = False


OPS: dict[str, Op] = {
    "add": Op("({0} + {1})", "({0} + {1})", "torch.add({0}, {1})", "add"),
    "sub": Op("({0} - {1})", "({0} - {1})", "torch.sub({0}, {1})", "sub"),
    "mul": Op("({0} * {1})", "({0} * {1})", "torch.mul({0}, {1})", "mul"),
    "div": Op("({0} / {1})", "div({0}, {1})", "torch.div({0}, {1})", "div"),
    "pow": Op("pow{f}({0}, {1})", "power({0}, {1})", "torch.pow({0}, {1})", "pow"),
    "neg": Op("(-{0})", "(-{0})", "torch.neg({0})", "neg"),
    "abs": Op("fabs{f}({0})", "abs({0})", "torch.abs({0})", "abs"),
    "sqrt": Op("sqrt{f}({0})", "root({0})", "torch.sqrt({0})", "sqrt"),
    "rsqrt": Op("(1 / sqrt{f}({0}))", "div(1.0, root({0}))", "torch.rsqrt({0})", "rsqrt"),
    "reciprocal": Op("(1 / {0})", "div(1.0, {0})", "torch.reciprocal({0})", "reciprocal"),
    "exp": Op("exp{f}({0})", "exp({0})", "torch.exp({0})", "exp"),
    "log": Op("log{f}({0})", "log({0})", "torch.log({0})", "log"),
    "tanh": Op("tanh{f}({0})", "math.tanh({0})", "torch.tanh({0})", "tanh"),
    "sign": Op("(real)(({0} > 0) - ({0} < 0))", "sign({0})", "torch.sign({0})", "sign"),
    "floor": Op("floor{f}({0})", "float(math.floor({0}))", "torch.floor({0})", "floor"),
    "mod": Op("fmod{f}({0}, {1})", "({0} % {1})", "torch.remainder({0}, {1})"),
    "maximum": Op("larger({0}, {1})", "larger({0}, {1})", "torch.maximum({0}, {1})", "maximum"),
    "minimum": Op("smaller({0}, {1})", "smaller({0}, {1})", "torch.minimum({0}, {1})", "minimum"),
    "lerp": Op("mix({0}, {1}, {2})", "({0} + {2} * ({1} - {0}))",
               "torch.lerp({0}, {1}, {2})", "lerp"),
    "where": Op("({0} ? {1} : {2})", "({1} if {0} else {2})", "torch.where({0}, {1}, {2})"),
    "gt": Op("({0} > {1})", "({0} > {1})", "torch.gt({0}, {1})", truth=True),
    "ge": Op("({0} >= {1})", "({0} >= {1})", "torch.ge({0}, {1})", truth=True),
    "lt": Op("({0} < {1})", "({0} < {1})", "torch.lt({0}, {1})", truth=True),
    "le": Op("({0} <= {1})", "({0} <= {1})", "torch.le({0}, {1})", truth=True),
    "eq": Op("({0} == {1})", "({0} == {1})", "torch.eq({0}, {1})", truth=True),
    "ne": Op("({0} != {1})", "({0} != {1})", "torch.ne({0}, {1})", truth=True),
    "and": Op("({0} && {1})", "({0} and {1})", "torch.logical_and({0}, {1})", truth=True),
    "or": Op("({0} || {1})", "({0} or {1})", "torch.logical_or({0}, {1})", truth=True),
    "not": Op("(!{0})", "(not {0})", "torch.logical_not({0})", truth=True),
    "isfinite": Op("(fabs{f}({0}) <= BIG)", "math.isfinite({0})", "torch.isfinite({0})",
                   truth=True),
}  # fmt: skip


def div(a: float, b: float) -> float:
    """Divide as IEEE 754 does: by zero gives infinity or NaN."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def power(a: float, b: float) -> float:
    """Raise to a power; NaN where the result is not real, infinity where it is too large."""
    try:
        found = a**b
    except ZeroDivisionError:
        return math.inf
    except OverflowError:
        return math.inf
    return found if not isinstance(found, complex) else math.nan


def root(a: float) -> float:
    """Return the square root, NaN of negative numbers."""
    return math.sqrt(a) if a >= 0 else math.nan


def exp(a: float) -> float:
    """Return e to the power of ``a``, infinity where it is too large."""
    return math.exp(a) if a < 709 else math.inf


def log(a: float) -> float:
    """Return the natural logarithm, minus infinity of zero, NaN of negative numbers."""
    if a > 0:
        return math.log(a)
    return -math.inf if a == 0 else math.nan


def sign(a: float) -> float:
    """Return -1, 0 or 1."""
    return float((a > 0) - (a < 0))


def larger(a: float, b: float) -> float:
    """Return the larger number, NaN when one is."""
    return a if a > b or a != a else b


def smaller(a: float, b: float) -> float:
    """Return the smaller number, NaN when one is."""
    return a if a < b or a != a else b


#: What the Python expressions above may call.
HOST_NAMES = {
    "math": math, "div": div, "power": power, "root": root, "exp": exp, "log": log,
    "sign": sign, "larger": larger, "smaller": smaller, "abs": abs, "float": float,
}  # fmt: skip
#: What the torch expressions above may call.
TORCH_NAMES = {"torch": torch}
