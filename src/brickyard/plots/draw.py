"""Draw a figure as an SVG file that stands alone: light and dark, on a slide or in a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from brickyard.plots.figure import Curve, Figure, Grid, Panel
from brickyard.plots.scales import scales
from brickyard.plots.svg import Scale, axes, margin, tag

__all__ = ["NARROW", "WIDTH", "draw"]

#: Pixels. Below the second, panels stand one below the other.
WIDTH, NARROW = 720, 520
_EDGE, _PLOT, _CELL = 20, 190, 17
_LIGHT = {
    "paper": "#ffffff", "ink": "#1e1a16", "soft": "#665d53", "grid": "#ece6dd", "zero": "#b9afa2",
    "c0": "#2f6fb7", "c1": "#c9500c", "c2": "#0c7d6a", "c3": "#a2437f", "c4": "#8a6a00",
    "empty": "#f1ece5", "shared": "#8fb8e3", "marked": "#b5432a",
}  # fmt: skip
_DARK = {
    "paper": "#1c1917", "ink": "#f2ede6", "soft": "#b0a699", "grid": "#2f2a26", "zero": "#6b6259",
    "c0": "#74b3f0", "c1": "#ff9a5a", "c2": "#4fc9b0", "c3": "#e78cc4", "c4": "#dcb73f",
    "empty": "#2c2723", "shared": "#3f74ab", "marked": "#ee8468",
}  # fmt: skip
_FONT = 'Inter, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif'
_COLOURS = 5
_DASHES = ("", "7 4", "2 4", "9 3 2 3", "1 3")


def draw(figure: Figure, width: int = WIDTH) -> str:
    """Return a figure as the text of an SVG file.

    Colours follow the reader's light or dark theme where the viewer knows it.

    Args:
        figure: what to draw; it must have panels or grids.
        width: pixels; narrow pictures have their panels one below the other.

    Raises:
        ValueError: the figure has nothing to draw, or the width is below 240.
    """
    if width < 240:
        raise ValueError(f"a picture needs a width of 240 pixels at least; got {width}")
    if not figure.panels and not figure.grids:
        raise ValueError(f"there is nothing to draw: {figure.reason or figure.title}")
    parts: list[Markup] = []
    at = 14
    for line in textwrap.wrap(figure.title, max(16, int((width - 2 * _EDGE) / 8.6))):
        at += 20
        parts.append(tag("text", line, class_="title", x=_EDGE, y=at))
    at += 12
    if len(figure.labels) > 1:
        legend, at = _legend(figure, width, at)
        parts.append(legend)
    if figure.panels:
        drawn, at = _panels(figure, width, at)
        parts += drawn
    for grid in figure.grids:
        drawn, at = _grid(grid, width, at)
        parts += drawn
    for line in textwrap.wrap(figure.note, max(20, int((width - 2 * _EDGE) / 5.9))):
        at += 17
        parts.append(tag("text", line, class_="note", x=_EDGE, y=at))
    height = at + _EDGE
    return str(tag(
        "svg", tag("title", figure.title), tag("desc", figure.note), _style(),
        tag("rect", class_="paper", width=width, height=height, rx="10"), *parts,
        xmlns="http://www.w3.org/2000/svg", width=width, height=height,
        viewBox=f"0 0 {width} {height}", role="img",
    )) + "\n"  # fmt: skip


# --- Parts ----------------------------------------------------------------------------------------


def _style() -> Markup:
    """Return the styles: plain ones for every viewer, then what changes in the dark."""

    def rules(c: dict[str, str]) -> str:
        fills = {"paper": "paper", "title": "ink", "head": "ink", "note": "soft", "key": "ink",
                 "empty": "empty", "shared": "shared", "marked": "marked"}  # fmt: skip
        text = "".join(f".{name}{{fill:{c[colour]}}}" for name, colour in fills.items())
        text += f".axes text{{fill:{c['soft']}}}.axes line{{stroke:{c['grid']}}}"
        text += f".zero{{stroke:{c['zero']}}}.ref{{stroke:{c['soft']}}}"
        return text + "".join(f".c{i}{{stroke:{c[f'c{i}']}}}" for i in range(_COLOURS))

    plain = (
        f"text{{font-family:{_FONT};font-size:12px}}"
        ".title{font-size:16px;font-weight:600}.head{font-size:13px;font-weight:600}"
        ".key{font-size:12.5px}.axes line{stroke-width:1}.zero{stroke-width:1}"
        ".y{text-anchor:end}.x{text-anchor:middle}.x-title{text-anchor:end}"
        ".line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}"
    )
    dark = f"@media (prefers-color-scheme:dark){{{rules(_DARK)}}}"
    return tag("style", Markup(plain + rules(_LIGHT) + dark))


def _strokes(figure: Figure) -> dict[str, dict[str, str | None]]:
    """Return class and dashes of each curve, by label; colour is not the only difference."""
    references = {c.label for panel in figure.panels for c in panel.curves if c.reference}
    others = [label for label in figure.labels if label not in references]
    found: dict[str, dict[str, str | None]] = {
        label: {"class_": "line ref", "stroke_dasharray": "3 5"} for label in references
    }
    for i, label in enumerate(others):
        dashes = _DASHES[i % len(_DASHES)] if len(others) > 1 else ""
        found[label] = {"class_": f"line c{i % _COLOURS}", "stroke_dasharray": dashes or None}
    return found


def _legend(figure: Figure, width: int, top: int) -> tuple[Markup, int]:
    parts, x, y = [], _EDGE, top + 12
    for label in figure.labels:
        needed = 38 + int(6.5 * len(label))
        if x > _EDGE and x + needed > width - _EDGE + 12:
            x, y = _EDGE, y + 20
        stroke = _strokes(figure)[label]
        parts.append(tag("path", d=f"M{x} {y - 4}h24", **stroke))
        parts.append(tag("text", label, class_="key", x=x + 31, y=y))
        x += needed + 14
    return tag("g", *parts), y + 4


def _panels(figure: Figure, width: int, top: int) -> tuple[list[Markup], int]:
    columns = 2 if width >= NARROW and len(figure.panels) > 1 else 1
    wide = width / columns
    strokes = _strokes(figure)
    parts, at = [], top
    for start in range(0, len(figure.panels), columns):
        for column, panel in enumerate(figure.panels[start : start + columns]):
            parts.append(_panel(panel, strokes, column * wide, at, wide))
        at += _PLOT + 88
    return parts, at


def _panel(
    panel: Panel, strokes: dict[str, dict[str, str | None]], left: float, top: float, width: float
) -> Markup:
    x, y = scales(panel, x_ticks=5 if width < 330 else 6)
    inset = left + _EDGE + margin(y.labels)
    wide = left + width - _EDGE - 4 - inset  # room for half of the last label
    lines = [
        tag("path", d=_path(curve, panel, x, y, wide), **strokes[curve.label])
        for curve in sorted(panel.curves, key=lambda c: not c.reference)
    ]
    head = tag("text", panel.title, class_="head", x=f"{left + _EDGE:.1f}", y=f"{top + 28:.1f}")
    beside = left + _EDGE + 8 + 7.3 * len(panel.title)
    unit = tag("text", panel.y.title, class_="note", x=f"{beside:.1f}", y=f"{top + 28:.1f}")
    plot = tag(
        "svg", axes(x, y, panel.x.title), *_zeros(x, y), *lines, x=f"{inset:.1f}",
        y=f"{top + 42:.1f}", width=f"{wide:.1f}", height=_PLOT, overflow="visible",
    )  # fmt: skip
    said = panel.y.title.lower() not in panel.title.lower()
    return tag("g", head, *([unit] if said else []), plot)


def _zeros(x: Scale, y: Scale) -> list[Markup]:
    lines = []
    if not y.log and y.low <= 0 <= y.high:
        at = f"{_PLOT * (1 - float(y(0.0))):.1f}"
        lines.append(tag("line", class_="zero", x1="0", x2="100%", y1=at, y2=at))
    if x.low < 0 < x.high:
        at = f"{100 * float(x(0.0)):.2f}%"
        lines.append(tag("line", class_="zero", x1=at, x2=at, y1="0", y2="100%"))
    return lines


def _path(curve: Curve, panel: Panel, x: Scale, y: Scale, wide: float) -> str:
    """Return the path through a curve's points; a gap begins a new stretch."""
    px = x(np.array(panel.at)) * wide
    known = np.array([np.nan if v is None else v for v in curve.y], dtype=np.float64)
    py = (1 - y(known)) * _PLOT
    parts, pen = [], "M"
    for a, b, value in zip(px, py, known, strict=True):
        if np.isnan(value):
            pen = "M"
            continue
        parts.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L"
    return "".join(parts)


# --- Grids ----------------------------------------------------------------------------------------

_NAMES = {"@": "marked", "x": "shared", ".": "empty"}
_WORDS = {"@": "one value", "x": "shares its statistics", ".": "does not"}


def _grid(grid: Grid, width: int, top: int) -> tuple[list[Markup], int]:
    rows, columns = len(grid.cells[0]), len(grid.cells[0][0])
    wide, high = columns * _CELL + 26, rows * _CELL + 44
    across = max(1, min(len(grid.cells), (width - 2 * _EDGE - 24) // wide))
    parts, at = [], top + 12
    parts.append(tag("text", f"{grid.rows}s", class_="note", text_anchor="middle",
                     transform=f"translate({_EDGE + 10} {at + 14 + rows * _CELL / 2:.0f}) "
                               "rotate(-90)"))  # fmt: skip
    for i, block in enumerate(grid.cells):
        x, y = _EDGE + 24 + (i % across) * wide, at + 14 + (i // across) * high
        name = f"{grid.outer} {i + 1}" if grid.outer else ""
        parts.append(tag("text", name, class_="head", x=x, y=y - 4) if name else Markup(""))
        parts += _cells(block, x, y + 4)
        parts.append(tag("text", f"{grid.columns}s", class_="note", text_anchor="middle",
                         x=x + columns * _CELL / 2, y=y + rows * _CELL + 18))  # fmt: skip
    at += high * -(-len(grid.cells) // across) + 14
    legend, at = _grid_legend(width, at)
    return [*parts, *legend], at


def _cells(block: Sequence[str], x: float, y: float) -> list[Markup]:
    side = _CELL - 3
    return [
        tag("rect", class_=_NAMES[mark], x=x + c * _CELL, y=y + r * _CELL, width=side, height=side,
            rx="3")
        for r, row in enumerate(block)
        for c, mark in enumerate(row)
    ]  # fmt: skip


def _grid_legend(width: int, at: int) -> tuple[list[Markup], int]:
    parts: list[Markup] = []
    x = _EDGE
    for mark, words in _WORDS.items():
        needed = 24 + int(6.5 * len(words)) + 14
        if x > _EDGE and x + needed > width:
            x, at = _EDGE, at + 20
        parts.append(tag("rect", class_=_NAMES[mark], x=x, y=at, width=12, height=12, rx="3"))
        parts.append(tag("text", words, class_="key", x=x + 18, y=at + 10))
        x += needed
    return parts, at + 16
