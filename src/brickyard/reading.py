"""Read curves: how unsteady, how far they rose, when they settled.

What the training report and the doctor both ask of a curve, as pure functions of its values; and
the :class:`Verdict` in which either says what it makes of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Unsteady", "Verdict", "rise", "settled", "spread", "unsteady"]

#: Spread from one value to the next, over all that was gained. Estimated from ten values it comes
#: out 2.4 times too large once in a hundred: spreads below 0.04 are as good as never called noisy.
NOISY = 0.1
#: The same over the level: a loss that is flat to two digits is at rest, whatever it gained.
NOISY_LEVEL = 0.02
#: Values before which a spread says nothing.
NOISY_VALUES = 10
#: A loss that ends above its start by this is no noise, and has at least doubled since its lowest.
ROSE, ROSE_FROM_LOWEST = 1.2, 2.0


@dataclass(frozen=True)
class Verdict:
    """Hold a judgement.

    Attributes:
        kind: the rule that spoke, such as ``"overfit"``.
        tone: ``"good"``, ``"warn"``, ``"bad"`` or ``"none"``.
        label: one or two words.
        sentence: what happened, behind ``label:``.
        evidence: the numbers it rests on, a sentence each.
        advice: the cheapest next thing to try.
    """

    kind: str
    tone: str
    label: str
    sentence: str
    evidence: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Unsteady:
    """Hold the evidence that a curve moves more by chance than by its trend.

    Attributes:
        spread: standard deviation of the late values around their trend.
        trend: how far the trend went over these values.
        gained: how far the curve went from its first value to the middle of the late ones.
        count: how many late values there are.
    """

    spread: float
    trend: float
    gained: float
    count: int


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Return the standard deviation of values around their own trend.

    From the median size of second differences, which neither a slope nor a few jumps (a rate that
    is lowered, a restart) change; 0 for fewer than four values.

    Math:
        d_i = v_(i-1) - 2 v_i + v_(i+1),    spread = 1.4826 median(abs(d)) / sqrt(6)

    Args:
        values: finite, in the order of time.
    """
    if len(values) < 4:
        return 0.0
    bends = np.abs(np.diff(np.asarray(values, dtype=np.float64), 2))
    return float(1.4826 * np.median(bends) / np.sqrt(6))


def unsteady(values: Sequence[float] | np.ndarray, floor: float = 0.0) -> Unsteady | None:
    """Return the evidence that a curve is noisy; None when it is not, or is too short to tell.

    Args:
        values: one for each evaluation or epoch; finite.
        floor: a spread that has another reason, such as the number of samples counted.
    """
    v = np.asarray(values, dtype=np.float64)
    if len(v) < NOISY_VALUES:
        return None
    late = v[-max(NOISY_VALUES, len(v) // 2) :]
    third = len(late) // 3
    middle, found = float(np.median(late)), spread(late)
    trend = abs(float(np.median(late[-third:]) - np.median(late[:third])))
    gained = abs(float(middle - v[0]))
    if found <= max(NOISY * gained, NOISY_LEVEL * abs(middle), floor) or 2 * found <= trend:
        return None
    return Unsteady(found, trend, gained, len(late))


def rise(values: Sequence[float] | np.ndarray) -> tuple[float, float, float] | None:
    """Return start, lowest and end of a positive loss that ended well above its start.

    Args:
        values: of single steps; finite.
    """
    v = np.asarray(values, dtype=np.float64)
    if len(v) < 20 or v.min() <= 0:
        return None
    first, last = max(5, round(0.05 * len(v))), max(5, round(0.1 * len(v)))
    start, end = float(np.median(v[:first])), float(np.median(v[-last:]))
    low = float(min(np.median(part) for part in np.array_split(v, 20)))
    return (start, low, end) if end > ROSE * start and end > ROSE_FROM_LOWEST * low else None


def settled(gains: Sequence[float] | np.ndarray, bar: float) -> int:
    """Return the first position from which on there was no more than ``bar`` to gain.

    Args:
        gains: how good each value is: more is better.
        bar: differences that count as none.
    """
    g = np.asarray(gains, dtype=np.float64)
    return int(np.argmax(g >= g.max() - bar))
