"""Draw metric series over the epochs as charts that read without a script, and better with one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from brickyard.plots.svg import (
    Scale,
    axes,
    linear,
    logarithmic,
    margin,
    ordinal,
    path,
    pct,
    plot,
    stretched,
    tag,
    units,
)  # fmt: skip
from brickyard.report.history import Series, broken, thin, trend
from brickyard.report.wording import count, epochs, is_share, metric, plural, setting, title

_SMOOTH_FROM = {"train": 40, "val": 300}  # rows; shorter series are drawn as they are
_LOG_RATIO = 30.0  # a loss that spans more than this is drawn on a logarithmic scale


@dataclass(frozen=True)
class Line:
    """Hold one line of a chart: its series, its name for the reader, its colour class."""

    series: Series
    name: str
    style: str


@dataclass(frozen=True)
class Chart:
    """Hold a drawn chart for the template.

    Attributes:
        identity: unique on the page.
        title: heading.
        svg: the drawing.
        left: pixels for the labels beside it.
        keys: per line: name, colour class, last value as text.
        remarks: what the reader must know of scale, smoothing and gaps.
        data: what the script reads, for the read-out under the pointer.
    """

    identity: str
    title: str
    svg: Markup
    left: int
    keys: tuple[dict[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


def time_axis(series: Sequence[Series]) -> tuple[Scale, str]:
    """Return the axis that all curves of a page share, from 0 to the last epoch, and its title."""
    last = max((float(s.epoch[-1]) for s in series if len(s)), default=1.0)
    steps = all(np.array_equal(s.epoch, s.step) for s in series)
    return ordinal(0.0, last or 1.0), "step" if steps else "epoch"


def chart(
    identity: str, name: str, lines: Sequence[Line], x: tuple[Scale, str],
    best: float | None = None, heading: str = "", quiet: bool = False,
) -> Chart | None:  # fmt: skip
    """Draw one metric; None if no value of it is finite.

    Args:
        identity: unique on the page.
        name: the metric.
        lines: what to draw, in order.
        x: the shared axis and its title.
        best: epoch of the best weights, to be marked.
        heading: the chart's title; the metric's name when empty.
        quiet: leave out the single rows behind a moving median, for many lines at once.
    """
    heading = heading or title(name)
    drawn = [line for line in lines if len(line.series.finite)]
    if not drawn:
        return None
    y = _value_scale(name, [line.series.finite.value for line in drawn])
    parts: list[Markup] = []
    over: list[Markup] = []
    data = []
    remarks = ["logarithmic scale"] if y.log else []
    for line in drawn:
        done = _draw(line, name, x[0], y)
        parts += done.strokes[-1:] if quiet else done.strokes
        over += done.dots
        data.append(done.read)
        if done.remark:
            remarks.append("moving median" if quiet else done.remark)
    for line in lines:
        over += _breaks(line, x[0])
        remarks += _break_remark(line)
    svg = plot(identity, heading, _describe(name, drawn, x[1]), axes(x[0], y, x[1]),
               stretched(*parts), *over, _best(best, x[0]))  # fmt: skip
    keys = tuple(
        {"name": line.name, "style": line.style, "value": read["t"][-1]}
        for line, read in zip(drawn, data, strict=True)
    )
    told = tuple(dict.fromkeys(remarks))
    return Chart(identity, heading, svg, margin(y.labels), keys, told,
                 {"x": x[1], "low": x[0].low, "high": x[0].high, "lines": data})  # fmt: skip


def _value_scale(name: str, values: Sequence[np.ndarray]) -> Scale:
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    share = is_share(name, (low, high))
    ratio = 1000.0 if name == "lr" else _LOG_RATIO
    if low > 0 and not share and high / low > ratio:
        return logarithmic(low, high)
    if not share and (0 < low < 0.35 * high or low == high > 0):
        low = 0.0
    scale = linear(low, high, share)
    return Scale(scale.low, min(scale.high, 1.0), False, *_within_one(scale)) if share else scale


def _within_one(scale: Scale) -> tuple[tuple[float, ...], tuple[str, ...]]:
    kept = [(t, s) for t, s in zip(scale.ticks, scale.labels, strict=True) if t <= 1 + 1e-9]
    return tuple(t for t, _ in kept), tuple(s for _, s in kept)


@dataclass(frozen=True)
class _Drawn:
    """Hold a line's strokes, its dots, what the script reads, and a remark."""

    strokes: list[Markup]
    dots: list[Markup]
    read: dict[str, Any]
    remark: str = ""


def _draw(line: Line, name: str, x: Scale, y: Scale) -> _Drawn:
    part = line.series.finite
    if len(part) >= _SMOOTH_FROM.get(part.split, 40) and name != "lr":
        return _smoothed(line, name, x, y)
    kept = thin(part.epoch, part.value, 200)
    px, py = x(part.epoch[kept]), y(part.value[kept])
    marks = []
    if len(part) <= 24 and part.split == "val":
        places = zip(px.tolist(), py.tolist(), strict=True)
        style = f"dot {line.style}"
        marks = [tag("circle", class_=style, cx=pct(a), cy=pct(1 - b), r="3") for a, b in places]
    stroke = tag("path", class_=f"line {line.style}", d=path(px, py))
    read = _readout(name, x, y, part.step[kept], part.epoch[kept], part.value[kept])
    return _Drawn([stroke], marks, read)


def _smoothed(line: Line, name: str, x: Scale, y: Scale) -> _Drawn:
    """Draw a noisy series faint as measured, and its moving median bold."""
    part = line.series.finite
    kept = thin(part.epoch, part.value, 240)
    mean = trend(part)
    faint = path(x(part.epoch[kept]), y(part.value[kept]))
    bold = path(x(mean.epoch), y(mean.value))
    read = _readout(name, x, y, mean.step, mean.epoch, mean.value)
    ranges = zip(mean.low, mean.high, strict=True)
    read["r"] = [f"{_short(name, low)} to {_short(name, high)}" for low, high in ranges]
    strokes = [
        tag("path", class_=f"raw {line.style}", d=faint),
        tag("path", class_=f"line {line.style}", d=bold),
    ]
    rows = plural(mean.window, "row")
    return _Drawn(strokes, [], read, f"{line.name} faint as measured, bold as the median of {rows}")


def _readout(
    name: str, x: Scale, y: Scale, step: np.ndarray, epoch: np.ndarray, value: np.ndarray
) -> dict[str, Any]:
    px, py = units(x(epoch), y(value))
    return {
        "x": px.tolist(),
        "y": py.tolist(),
        "s": step.astype(int).tolist(),
        "t": [_short(name, v) for v in value],
    }


def _short(name: str, value: float) -> str:
    return setting(value, 3) if name == "lr" else metric(name, float(value))


def _breaks(line: Line, x: Scale) -> list[Markup]:
    """Return a bar along the upper edge wherever the series was not finite."""
    bars = []
    for first, last, _ in broken(line.series)[:100]:
        left, right = float(x(first)), float(x(last))
        bars.append(tag("rect", class_=f"broken {line.style}", x=pct(left), y="0", height="6",
                        width=pct(max(right - left, 0.004))))  # fmt: skip
    return bars


def _break_remark(line: Line) -> list[str]:
    runs = broken(line.series)
    if not runs:
        return []
    bad = ~np.isfinite(line.series.value)
    first = count(line.series.step[bad.argmax()])
    return [
        f"{line.name}: {count(bad.sum())} of {plural(len(bad), 'row')} not finite, from step "
        f"{first} (bar along the upper edge)"
    ]


def _best(epoch: float | None, x: Scale) -> Markup:
    if epoch is None or not math.isfinite(epoch):
        return Markup("")
    at = float(x(epoch))
    line = tag("line", x1=pct(at), x2=pct(at), y1="0", y2="100%")
    text = tag("text", "best", x=pct(at), y="0", dy="-6")
    return tag("g", line, text, class_="best")


def _describe(name: str, lines: Sequence[Line], axis: str) -> str:
    told = []
    for line in lines:
        part = line.series.finite
        first, last = (_short(name, part.value[i]) for i in (0, -1))
        low, high = (_short(name, v) for v in (part.value.min(), part.value.max()))
        told.append(
            f"{line.name}: from {first} to {last} at {axis} {epochs(part.epoch[-1])}; "
            f"lowest {low}, highest {high}."
        )
    return f"{title(name)} over {axis}s. " + " ".join(told)
