"""Which values an option may have, and what to say when it has another.

The values of options come from signatures: whatever has a number for its default must be a number,
within the range of its name below; what is True or False by default must be one of the two.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any

import torch


@dataclass(frozen=True)
class Range:
    """Hold an interval of numbers.

    Args:
        low: lower end.
        high: upper end.
        ends: whether they belong to it, as mathematicians write it: ``"[)"`` has the lower only.
        advice: what to do instead.
    """

    low: float = 0.0
    high: float = math.inf
    ends: str = "[)"
    advice: str = ""

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        return above and (value <= self.high if self.ends[1] == "]" else value < self.high)

    def __str__(self) -> str:
        least = f"{self.low:g} or more" if self.ends[0] == "[" else f"more than {self.low:g}"
        if self.high == math.inf:
            least = "a number" if self.low == -math.inf else least
            return least if self.ends[1] == "]" else f"{least} and finite"
        if self.low == -math.inf:
            return f"{self.high:g} or less"
        if self.ends == "[]":
            return f"from {self.low:g} to {self.high:g}"
        most = f"at most {self.high:g}" if self.ends[1] == "]" else f"below {self.high:g}"
        return f"{'at least' if self.ends[0] == '[' else 'more than'} {self.low:g} and {most}"

    def check(self, name: str, value: float) -> None:
        """Raise ValueError for a number outside.

        Args:
            name: what the number is called.
            value: the number.
        """
        if value not in self:
            advice = f"; {self.advice}" if self.advice else ""
            raise ValueError(f"{name} must be {self}; got {value!r}{advice}")


NONNEGATIVE, POSITIVE, SHARE = Range(), Range(ends="()"), Range(high=1.0, ends="[]")
#: A memory of 1 never takes up anything new, and corrections of its bias divide by zero.
MEMORY = Range(high=1.0, advice="0.9 remembers about 10 steps, 0.999 about 1000")
#: Bounds may be infinite: they bound nothing then.
BOUND = Range(ends="(]")
#: Ranges by option; what is not here must be 0 or more.
RANGES: dict[str, Range] = {
    "lr": Range(advice="to climb instead of descending, use maximize=True"),
    "betas": MEMORY, "alpha": SHARE, "dampening": SHARE, "ema_decay": SHARE, "gamma": POSITIVE,
    "d": BOUND, "max_norm": BOUND, "limit": BOUND, "factor": BOUND,
    "beta2_decay": Range(-math.inf, 0.0, "(]", "new gradients weigh t^beta2_decay, so -0.8 lets "
                         "their weight fall"),
    "threshold": Range(4.0, ends="[]", advice="below, the variance of Adam's scale is not finite"),
    "ns_coefficients": Range(-math.inf, ends="()"),
}  # fmt: skip


def in_range(**values: Any) -> None:
    """Raise ValueError for hyperparameters outside of the ranges of their names.

    Args:
        values: by name; what is no number is left to others.
    """
    _check_all({}, values)


def within(**special: Range) -> Callable[..., None]:
    """Return ``in_range`` with other ranges for some names.

    Args:
        special: name to range.
    """

    def check(**values: Any) -> None:
        _check_all(special, values)

    return check


def _check_all(special: Mapping[str, Range], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, Real) and not isinstance(value, bool):
            (special.get(name) or range_of(name)).check(name, float(value))


def range_of(name: str) -> Range:
    """Return the range of an option by its name."""
    if name.startswith("beta") and name[4:].isdigit():
        return MEMORY
    return RANGES.get(name, NONNEGATIVE)


def number(value: Any, step: int, name: str = "a hyperparameter") -> float:
    """Return a hyperparameter's value for the step after ``step`` steps.

    Args:
        value: a number, a tensor of one element, or a schedule ``steps taken -> number``.
        step: steps taken so far.
        name: what to call it in errors.

    Raises:
        TypeError: something else.
        ValueError: a tensor of more than one element.
    """
    if callable(value) and not isinstance(value, type):
        value = value(step)
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be one number; got a tensor of shape "
                             f"{tuple(value.shape)}")  # fmt: skip
        if value.requires_grad:
            raise TypeError(f"{name} must not require a gradient: steps are not differentiated; "
                            f"pass {name}.detach()")  # fmt: skip
        value = value.item()
    if isinstance(value, Real) and not isinstance(value, bool):
        return value if isinstance(value, int | float) else float(value)
    raise TypeError(f"{name} must be a number, or a schedule: a function from the steps taken to "
                    f"a number; got {value!r}")  # fmt: skip


def fixed(name: str, value: Any, allowed: Range | None = None) -> float:
    """Return a number that is read once, where a schedule would have no effect.

    Args:
        name: what it is called.
        value: what was received.
        allowed: its range; None for that of its name.

    Raises:
        TypeError: no number, or a schedule.
        ValueError: out of range.
    """
    if callable(value):
        raise TypeError(f"{name} must be a number, no schedule: it is read once; got {value!r}")
    found = number(value, 0, name)
    (allowed or range_of(name)).check(name, found)
    return found


def whole(name: str, value: Any, least: int = 1) -> None:
    """Raise unless a value is a whole number of at least ``least``.

    Args:
        name: what it is called.
        value: what was received.
        least: the smallest that is allowed.

    Raises:
        TypeError: no number at all, or True or False.
        ValueError: not whole, or too small.
    """
    text = f"{name} must be a whole number, {least} or more; got {value!r}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(text)
    if not isinstance(value, Integral) or value < least:
        raise ValueError(text)


@cache
def declared(kind: type) -> dict[str, Any]:
    """Return the options in the signatures of a class and its bases: name to default."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        init = base.__dict__.get("__init__")
        if init is not None and base is not object:
            found |= {name: p.default for name, p in inspect.signature(init).parameters.items()
                      if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}  # fmt: skip
    return found


def check_option(name: str, default: Any, value: Any, step: int = 0) -> None:
    """Raise for a value that an option cannot have; its default says what kind of value it is.

    Args:
        name: the option.
        default: in the signature.
        value: what was received.
        step: steps taken so far, for schedules.

    Raises:
        TypeError: another kind of value.
        ValueError: out of range.
    """
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False; got {value!r}")
    elif isinstance(default, int):
        whole(name, value)
    elif isinstance(default, float) or name == "lr":
        range_of(name).check(name, number(value, step, name))
    elif isinstance(default, tuple):
        _check_tuple(name, default, value, step)


def _check_tuple(name: str, default: tuple[Any, ...], value: Any, step: int) -> None:
    text = f"{name} must be {len(default)} numbers, as in {default}; got {value!r}"
    if not isinstance(value, tuple | list):
        raise TypeError(text)
    if len(value) != len(default):
        raise ValueError(text)
    for i, (usual, x) in enumerate(zip(default, value, strict=True)):
        if x is not None or usual is not None:
            place = f"beta{i + 1}" if name == "betas" else f"{name}[{i}]"
            range_of(name).check(place, number(x, step, place))
