"""Draw a figure in a terminal: braille dots, or plain letters where the encoding has no braille."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from brickyard.plots.figure import Curve, Figure, Grid, Panel
from brickyard.plots.scales import scales
from brickyard.plots.svg import Scale

__all__ = ["draw"]

_COLOURS = ("blue", "dark_orange3", "green", "magenta", "yellow")
_LETTERS = "abcdefgh"
_ROWS = 12
#: Bits of a braille cell's dots, by row and column.
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_PLAIN = str.maketrans({"\u2212": "-", "\u202f": " "})
_POWER = re.compile("(\u00d7)?10([\u207b\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+)")
_DIGITS = str.maketrans("\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079",
                        "-0123456789")  # fmt: skip


def draw(figure: Figure, width: int = 80, plain: bool = False) -> RenderableType:
    """Return a figure for ``rich`` to print.

    Curves are told apart by colour where there is colour, and by the letter at their end.

    Args:
        figure: what to draw.
        width: columns of the terminal.
        plain: ASCII characters only.
    """
    parts: list[RenderableType] = [Text(figure.title, "bold")]
    letters = {label: _LETTERS[i % len(_LETTERS)] for i, label in enumerate(figure.labels)}
    if len(letters) > 1:
        parts.append(_legend(letters, width, plain))
    columns = 2 if width >= 76 and len(figure.panels) > 1 else 1
    for start in range(0, len(figure.panels), columns):
        row = figure.panels[start : start + columns]
        wide = (width - 2 * (columns - 1)) // columns
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in row:
            grid.add_column(width=wide, no_wrap=True)
        grid.add_row(*(_panel(panel, letters, wide, plain) for panel in row))
        parts += [Text(""), grid]
    for one in figure.grids:
        parts += [Text(""), *_grid(one, width, plain)]
    if figure.note:
        parts += [Text(""), Text(_ascii(figure.note, plain), "dim")]
    return Group(*parts)


def _legend(letters: dict[str, str], width: int, plain: bool) -> Text:
    """Return letter and label of each curve; a label is not parted from its letter."""
    legend, used = Text(), 0
    for label, letter in letters.items():
        shown = _ascii(label, plain)
        needed = len(shown) + 5
        if used and used + needed - 3 > width:
            legend.append("\n")
            used = 0
        legend.append(f"{letter} ", f"bold {_colour(letters, label)}").append(f"{shown}   ")
        used += needed
    return legend


def _ascii(text: str, plain: bool) -> str:
    if not plain:
        return text
    text = _POWER.sub(lambda m: f"{'' if m[1] else '1'}e{m[2].translate(_DIGITS)}", text)
    return text.translate(_PLAIN).encode("ascii", "replace").decode()


# --- Curves ---------------------------------------------------------------------------------------


def _panel(panel: Panel, letters: dict[str, str], width: int, plain: bool) -> Text:
    x, y = scales(panel, x_ticks=max(2, width // 10), y_ticks=4)
    labels = [_ascii(label, plain) for label in y.labels]
    inset = max(map(cell_len, labels), default=1) + 1
    wide = max(10, width - inset - 3)
    canvas = _Canvas(wide, plain)
    if not y.log and y.low < 0 < y.high:
        canvas.level(float(y(0.0)))
    ends: dict[int, list[tuple[str, str]]] = {}
    for curve in panel.curves:
        colour, letter = _colour(letters, curve.label), letters[curve.label]
        canvas.trace(curve, panel, x, y, colour, letter)
        last = next((v for v in reversed(curve.y) if v is not None), None)
        if last is not None and len(letters) > 1:
            ends.setdefault(canvas.row(float(y(last))), []).append((letter, colour))
    beside = _beside(ends)
    ticks = {canvas.row(float(y(value))): label
             for value, label in zip(y.ticks, labels, strict=True)}  # fmt: skip
    text = Text(_ascii(panel.title, plain), "bold")
    said = panel.y.title.lower() in panel.title.lower()
    text.append(f"{'' if said else '  ' + _ascii(panel.y.title, plain)}\n", "not bold dim")
    for row in range(_ROWS):
        text.append(f"{ticks.get(row, ''):>{inset - 1}}", "not bold dim")
        text.append("|" if plain else "\u2502", "not bold dim")
        text.append_text(canvas.line(row))
        for letter, colour in beside.get(row, ()):
            text.append(letter, f"bold {colour}")
        text.append("\n")
    text.append(" " * (inset - 1) + ("+" + "-" * wide if plain else "\u2514" + "\u2500" * wide),
                "not bold dim")  # fmt: skip
    text.append("\n" + " " * inset + _under(x, wide, plain), "not bold dim")
    for line in textwrap.wrap(_ascii(panel.x.title, plain), inset + wide):
        text.append(f"\n{line:>{inset + wide}}", "not bold dim")
    return text


def _colour(letters: dict[str, str], label: str) -> str:
    return _COLOURS[list(letters).index(label) % len(_COLOURS)]


def _beside(ends: dict[int, list[tuple[str, str]]]) -> dict[int, list[tuple[str, str]]]:
    """Return at most two letters a row; further ones move to the next free row."""
    placed: dict[int, list[tuple[str, str]]] = {}
    for row, marks in sorted(ends.items()):
        for mark in marks:
            free = next((r for d in range(_ROWS) for r in (row + d, row - d)
                         if 0 <= r < _ROWS and len(placed.get(r, ())) < 2), row)  # fmt: skip
            placed.setdefault(free, []).append(mark)
    return placed


def _under(x: Scale, wide: int, plain: bool) -> str:
    """Return the labels below the axis, as many as fit."""
    line = [" "] * (wide + 2)
    taken = -1
    for value, label in zip(x.ticks, x.labels, strict=True):
        label = _ascii(label, plain)
        at = round(float(x(value)) * (wide - 1)) - len(label) // 2
        at = max(0, min(at, wide - len(label)))
        if at > taken:
            line[at : at + len(label)] = label
            taken = at + len(label)
    return "".join(line).rstrip()


class _Canvas:
    """Hold the cells of a plot: 2 by 4 braille dots each, or one letter."""

    def __init__(self, wide: int, plain: bool):
        self.wide, self.plain = wide, plain
        self.bits = [[0] * wide for _ in range(_ROWS)]
        self.marks = [[" "] * wide for _ in range(_ROWS)]
        self.styles = [[""] * wide for _ in range(_ROWS)]

    def row(self, share: float) -> int:
        return min(_ROWS - 1, max(0, int((1 - share) * _ROWS * 4 - 0.5) // 4))

    def level(self, share: float) -> None:
        """Mark a level with a faint line."""
        row = self.row(share)
        self.marks[row] = ["-" if self.plain else "\u00b7"] * self.wide
        self.styles[row] = ["dim"] * self.wide

    def trace(
        self, curve: Curve, panel: Panel, x: Scale, y: Scale, colour: str, letter: str
    ) -> None:
        px = [float(v) * (self.wide * 2 - 1) for v in x(list(panel.at))]  # pyright: ignore
        places: list[tuple[float, float] | None] = [
            None if v is None else (a, (1 - float(y(v))) * (_ROWS * 4 - 1))
            for a, v in zip(px, curve.y, strict=True)
        ]
        for one, other in pairwise(places):
            if one is None or other is None:
                continue
            steps = max(1, math.ceil(max(abs(other[0] - one[0]), abs(other[1] - one[1]))))
            for k in range(steps + 1):
                share = k / steps
                self._dot(round(one[0] + share * (other[0] - one[0])),
                          round(one[1] + share * (other[1] - one[1])), colour, letter)  # fmt: skip

    def _dot(self, column: int, row: int, colour: str, letter: str) -> None:
        if 0 <= column < self.wide * 2 and 0 <= row < _ROWS * 4:
            self.bits[row // 4][column // 2] |= _BITS[row % 4][column % 2]
            self.marks[row // 4][column // 2] = letter
            self.styles[row // 4][column // 2] = colour

    def line(self, row: int) -> Text:
        text = Text(style="not bold")
        for bits, mark, style in zip(
            self.bits[row], self.marks[row], self.styles[row], strict=True
        ):
            text.append(chr(0x2800 + bits) if bits and not self.plain else mark, style)
        return text


# --- Grids ----------------------------------------------------------------------------------------

_FACES = {
    "@": ("\u25c6", "@", "bold red"), "x": ("\u25a0", "#", "blue"), ".": ("\u00b7", ".", "dim"),
}  # fmt: skip
_WORDS = {"@": "one value", "x": "shares its statistics", ".": "does not"}


def _grid(grid: Grid, width: int, plain: bool) -> list[RenderableType]:
    columns = len(grid.cells[0][0])
    wide = max(2 * columns, len(grid.outer) + 2) + 4
    across = max(1, min(len(grid.cells), width // wide))
    table = Table.grid(padding=(0, 4, 0, 0))
    for start in range(0, len(grid.cells), across):
        blocks = grid.cells[start : start + across]
        table.add_row(*(_block(grid, block, start + i, plain) for i, block in enumerate(blocks)))
    legend = Text()
    for mark, words in _WORDS.items():
        face = _FACES[mark]
        legend.append(face[plain], face[2]).append(f" {words}   ")
    return [table, Text(f"down: {grid.rows}s; across: {grid.columns}s", "dim"), legend]


def _block(grid: Grid, block: Sequence[str], number: int, plain: bool) -> Text:
    text = Text(f"{grid.outer} {number + 1}\n" if grid.outer else "", "bold")
    for row in block:
        for mark in row:
            face = _FACES[mark]
            text.append(f"{face[plain]} ", f"not bold {face[2]}")
        text.append("\n")
    return text
