"""Write SVG: elements with escaped attributes and text, and axes that stay crisp at every width.

A plot is an ``<svg>`` without view box: positions are percentages, so labels and dots keep their
size on a phone and on a laptop. Lines live in an inner ``<svg>`` of 1000 by 1000 units that is
stretched, with strokes that are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from markupsafe import Markup, escape

from brickyard.plots.numbers import THIN, number, setting

UNITS = 1000


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element; ``class_`` and ``x_y`` become ``class`` and ``x-y``; None is left out.

    Example:
        >>> print(tag("text", "a < b", class_="tick", text_anchor="end"))
        <text class="tick" text-anchor="end">a &lt; b</text>
    """
    # Plain strings of escaped parts: Markup.format parses its text anew for every attribute.
    inner = "".join(map(escape, children))
    written = "".join(
        [f' {_spelt(k)}="{escape(v)}"' for k, v in attributes.items() if v is not None]
    )
    return Markup(f"<{name}{written}>{inner}</{name}>" if children else f"<{name}{written}/>")


@cache
def _spelt(name: str) -> str:
    """Return an attribute's name: capitals stay, as in viewBox, and none has an underscore."""
    return str(escape(name.rstrip("_").replace("_", "-")))


def pct(share: float) -> str:
    """Return a position as a percentage attribute."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


@dataclass(frozen=True)
class Scale:
    """Map values to 0..1, on a straight or a logarithmic scale.

    Attributes:
        low: the value at 0.
        high: the value at 1.
        log: logarithmic.
        ticks: values with a line and a label.
        labels: the labels.
    """

    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()

    def __call__(self, value: np.ndarray | float) -> np.ndarray:
        """Return where ``value`` lies, clipped to just outside the plot."""
        low, high = self.low, self.high
        values = np.asarray(value, dtype=np.float64)
        if self.log:
            low, high = math.log10(low), math.log10(high)
            values = np.log10(np.maximum(values, 1e-300))
        return np.clip((values - low) / ((high - low) or 1.0), -0.05, 1.05)


def linear(low: float, high: float, share: bool = False, about: int = 5) -> Scale:
    """Return a straight scale that covers ``low`` to ``high`` and ends at round values.

    Args:
        low: lowest value.
        high: highest value.
        share: label as per cent.
        about: how many ticks.
    """
    if not high > low:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = _round_step((high - low) / about)
    ticks = np.arange(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1) * step
    return Scale(float(ticks[0]), float(ticks[-1]), False, tuple(map(float, ticks)),
                 tuple(_labels(ticks, step, share)))  # fmt: skip


def ordinal(low: float, high: float, about: int = 8) -> Scale:
    """Return a straight scale that ends exactly at the data, for epochs and steps."""
    if not high > low:
        high = low + 1.0
    step = _round_step((high - low) / about)
    step = max(step, 1.0) if high - low >= 3 else step
    ticks = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    return Scale(low, high, False, tuple(map(float, ticks)), tuple(_labels(ticks, step, False)))


def logarithmic(low: float, high: float) -> Scale:
    """Return a logarithmic scale for positive values, with ticks at 1, 2 and 5 or at powers."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = last - first
    factors = (1, 2, 5) if decades <= 2 else (1,)
    every = max(1, math.ceil(decades / 6))
    ticks = [f * 10.0**p for p in range(first, last + 1) if p % every == 0 for f in factors]
    pad = (high / low) ** 0.04
    ticks = [t for t in ticks if low / pad <= t <= high * pad]
    return Scale(
        low / pad,
        high * pad,
        True,
        tuple(ticks),
        tuple(setting(t, 2).removeprefix("1×") for t in ticks),
    )


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)


def _labels(ticks: Iterable[float], step: float, share: bool) -> list[str]:
    if share:
        digits = max(0, -math.floor(math.log10(step * 100) + 1e-9))
        digits += 1 if round(step * 100 * 10**digits, 6) % 1 else 0
        return [f"{t * 100:.{digits}f}{THIN}%" for t in ticks]
    most = max((abs(t) for t in ticks), default=0.0)
    if most and (most >= 1e6 or most < 1e-3):
        return [number(0.0 if abs(t) < step / 2 else t, 3) for t in ticks]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += 1 if round(step * 10**digits, 6) % 1 else 0
    return ["0" if abs(t) < step / 2 else _grouped(t, digits) for t in ticks]


def _grouped(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}" if abs(value) >= 10000 else f"{value:.{digits}f}"
    return text.replace(",", THIN).replace("-", "\u2212")


def path(x: np.ndarray, y: np.ndarray) -> str:
    """Return the path through points given as shares of the plot (y upwards), in plot units."""
    px, py = units(x, y)
    return "M" + "L".join(f"{a} {b}" for a, b in zip(px.tolist(), py.tolist(), strict=True))


def dots(x: np.ndarray, y: np.ndarray) -> str:
    """Return a path of zero-length strokes: round caps make them dots of the stroke's width."""
    px, py = units(x, y)
    return "".join(f"M{a} {b}h0" for a, b in zip(px.tolist(), py.tolist(), strict=True))


def units(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points given as shares of the plot (y upwards) as whole plot units (y downwards)."""
    return np.rint(x * UNITS).astype(int), np.rint((1 - y) * UNITS).astype(int)


def stretched(*children: object) -> Markup:
    """Return the inner drawing that fills the plot whatever its shape."""
    return tag("svg", *children, class_="lines", viewBox=f"0 0 {UNITS} {UNITS}", width="100%",
               height="100%", preserveAspectRatio="none")  # fmt: skip


def axes(x: Scale, y: Scale, x_title: str = "", y_title: str = "") -> Markup:
    """Return grid, ticks, labels and titles; labels stand outside the plot's box."""
    parts = []
    for value, label in zip(y.ticks, y.labels, strict=True):
        at = pct(1 - float(y(value)))
        parts.append(tag("line", x1="0", x2="100%", y1=at, y2=at))
        parts.append(tag("text", label, class_="y", x="-8", y=at, dy="4"))
    for i, (value, label) in enumerate(zip(x.ticks, x.labels, strict=True)):
        at = pct(float(x(value)))
        odd = " odd" if i % 2 and len(x.ticks) > 4 else ""
        parts.append(tag("line", class_="tick" + odd, x1=at, x2=at, y1="100%", y2="100%"))
        parts.append(tag("text", label, class_="x" + odd, x=at, y="100%", dy="19"))
    if x_title:
        parts.append(tag("text", x_title, class_="x-title", x="100%", y="100%", dy="36"))
    if y_title:
        parts.append(tag("text", y_title, class_="y-title", x="-8", y="0", dy="-12"))
    return tag("g", *parts, class_="axes")


def margin(labels: Iterable[str]) -> int:
    """Return the pixels that labels beside a plot need."""
    return 14 + math.ceil(6.4 * max((len(label) for label in labels), default=0))


def plot(
    identity: str, name: str, description: str, *children: object, **attributes: object
) -> Markup:
    """Return the outer ``<svg>``, with the title and description that screen readers say."""
    return tag(
        "svg", tag("title", name, id=f"{identity}-t"), tag("desc", description, id=f"{identity}-d"),
        *children, class_="plot", role="img", width="100%", height="100%",
        aria_labelledby=f"{identity}-t {identity}-d",
    )  # fmt: skip
