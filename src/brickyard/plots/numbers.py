"""Write numbers the way a reader of a picture or a page wants them."""

from __future__ import annotations

import math
from typing import Any

THIN = "\u202f"  # narrow no-break space: between a number and its unit, and between thousands
MINUS = "\u2212"
_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3" + "⁴⁵⁶⁷⁸⁹")


def to_float(value: Any) -> float | None:
    """Return a number of a run's files as a float; text like ``"nan"`` too; None if it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and value.lower() in {"nan", "inf", "-inf", "infinity", "-infinity"}:
        return float(value)
    return None


def finite(value: Any) -> float | None:
    """Return ``value`` as a float if it is a finite number, else None."""
    number = to_float(value)
    return number if number is not None and math.isfinite(number) else None


def number(value: Any, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits and no more than needed.

    Example:
        >>> number(0.0123456), number(1e-7), number(float("nan"))
        ('0.0123', '1×10⁻⁷', 'NaN')
    """
    x = to_float(value)
    if x is None:
        return "\u2013" if value is None else str(value)
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "∞" if x > 0 else MINUS + "∞"
    if x == 0:
        return "0"
    if x == int(x) and abs(x) < 1e6:
        return count(x)
    power = math.floor(math.log10(abs(float(f"{x:.{digits - 1}e}"))))
    if -4 <= power < 6:
        text = f"{x:.{max(0, digits - 1 - power)}f}"
        if power >= 4:
            text = count(round(x))
        return text.replace("-", MINUS)
    head, _, tail = f"{x:.{digits - 1}e}".partition("e")
    head = head.rstrip("0").rstrip(".") if "." in head else head
    return f"{head}×10{str(int(tail)).translate(_SUPERSCRIPT)}".replace("-", MINUS)


def setting(value: Any, digits: int = 6) -> str:
    """Return a number that somebody chose, without zeros at its end: ``0.003``, ``1×10⁻⁸``."""
    x = finite(value)
    if x is None or x == int(x):
        return number(value, digits)
    text = number(x, digits)
    head, times, tail = text.partition("×")
    return head.rstrip("0").rstrip(".") + times + tail if "." in head else text


def count(value: float) -> str:
    """Return a whole number with narrow spaces between thousands (from five digits on)."""
    text = f"{abs(int(value)):,}"
    if len(text) <= 5:
        text = text.replace(",", "")
    return (MINUS if value < 0 else "") + text.replace(",", THIN)
