"""Hold a picture as data: panels with axes and curves, or grids of cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Axis", "Curve", "Figure", "Grid", "Panel", "panel", "points"]


@dataclass(frozen=True)
class Axis:
    """Describe an axis.

    Args:
        title: what it measures, with its unit if it has one.
        log: logarithmic.
        share: values are shares of one, labelled as per cent.
        low: where it starts; from the data when None.
        high: where it ends; from the data when None.
    """

    title: str
    log: bool = False
    share: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """Hold one curve of a panel.

    Args:
        label: what the reader calls it.
        y: a value for each of the panel's ``at``; None where there is none.
        reference: it is what the others are compared with.
    """

    label: str
    y: tuple[float | None, ...]
    reference: bool = False


@dataclass(frozen=True)
class Panel:
    """Hold one plot.

    Args:
        title: what it shows.
        x: the horizontal axis.
        y: the vertical axis.
        at: horizontal positions that all curves share.
        curves: the curves; those of one label have one colour in all panels.
    """

    title: str
    x: Axis
    y: Axis
    at: tuple[float, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Grid:
    """Hold a picture of cells: which values share a statistic with the marked one.

    Args:
        outer: what the blocks are, such as ``"sample"``; empty for a single block.
        rows: what runs down a block.
        columns: what runs across a block.
        cells: for each block its rows: ``"@"`` the value, ``"x"`` shared with it, ``"."`` not.
    """

    outer: str
    rows: str
    columns: str
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """Hold the picture of a brick.

    Args:
        key: the brick's key.
        title: what is drawn, in one line.
        note: how it was computed, and how to read it.
        panels: plots, in reading order.
        grids: pictures of cells.
        reason: why there is nothing to draw; empty when there is.
    """

    key: str
    title: str = ""
    note: str = ""
    panels: tuple[Panel, ...] = ()
    grids: tuple[Grid, ...] = ()
    reason: str = ""

    @property
    def labels(self) -> list[str]:
        """Return the labels of all curves, each once."""
        return list(dict.fromkeys(c.label for panel in self.panels for c in panel.curves))

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as plain data, for JSON, without what says nothing."""
        return _lean(asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figure:
        """Return the figure that :meth:`to_dict` wrote."""
        panels = tuple(
            Panel(p["title"], Axis(**p["x"]), Axis(**p["y"]), tuple(p["at"]),
                  tuple(Curve(c["label"], tuple(c["y"]), c.get("reference", False))
                        for c in p["curves"]))
            for p in data.get("panels", ())
        )  # fmt: skip
        grids = tuple(
            Grid(g.get("outer", ""), g["rows"], g["columns"], tuple(map(tuple, g["cells"])))
            for g in data.get("grids", ())
        )
        words = {name: data.get(name, "") for name in ("key", "title", "note", "reason")}
        return cls(panels=panels, grids=grids, **words)


def _lean(value: Any) -> Any:
    if isinstance(value, dict):
        says = {k: v for k, v in value.items() if v is not None and v is not False}
        return {k: _lean(v) for k, v in says.items() if v not in ("", (), [])}
    if isinstance(value, list | tuple):
        return [_lean(v) for v in value]
    return value


def points(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return ``count`` evenly spaced positions, free of the noise of adding steps up."""
    return tuple(round(low + (high - low) * i / (count - 1), 4) for i in range(count))


def panel(
    title: str, x: Axis, y: Axis, at: Iterable[float],
    curves: Iterable[tuple[str, Iterable[float]]], reference: str = "",
) -> Panel:  # fmt: skip
    """Return a plot whose values are rounded to what an eye can tell apart.

    Args:
        title: what it shows.
        x: the horizontal axis.
        y: the vertical axis; three significant digits are kept on a logarithmic one, else a
            two-thousandth of the range.
        at: horizontal positions.
        curves: label and values of each curve; values that are not finite become gaps.
        reference: label of the curve that the others are compared with.
    """
    given = [(label, [float(v) for v in values]) for label, values in curves]
    known = [v for _, values in given for v in values if math.isfinite(v)]
    range_ = max(known, default=0.0) - min(known, default=0.0)
    digits = max(0, math.ceil(-math.log10(range_ / 2000))) if range_ > 0 else 3

    def short(value: float) -> float | None:
        if not math.isfinite(value):
            return None
        return float(f"{value:.2e}") if y.log else round(value, digits) + 0.0

    made = tuple(
        Curve(label, tuple(map(short, values)), label == reference) for label, values in given
    )
    return Panel(title, x, y, tuple(at), made)
