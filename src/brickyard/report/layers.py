"""Show how far each step moves each parameter, from the rows that ``telemetry`` writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from brickyard.errors import RunError
from brickyard.plots.svg import tag
from brickyard.report.wording import plural, setting
from brickyard.runs import TELEMETRY, RunFolder

#: A step of this share of the weights has no colour (Hinton, "A Practical Guide to Training
#: Restricted Boltzmann Machines", 2010, section 7.1); at a hundredth and a hundredfold it is full.
_USUAL, _DECADES = 1e-3, 2.0
_CELLS, _ROWS = 80, 40


def steps_of_layers(path: str | Path) -> dict[str, Any] | None:
    """Return what the page tells of every parameter; None where there is no telemetry.

    Args:
        path: the run folder.
    """
    looks: list[Mapping[str, Any]] = []
    with suppress(RunError, OSError, ValueError):  # damaged: the page is about more
        looks = [row for row in RunFolder(Path(path)).rows(TELEMETRY) if isinstance(row, dict)]
    last = looks[-1] if looks else {}
    names = [name for name, value in last.items() if isinstance(value, dict)]
    if not names:
        return None
    edges = np.array_split(np.arange(len(looks)), min(len(looks), _CELLS))
    rows = [_row(name, [look.get(name) for look in looks], edges) for name in names[:_ROWS]]
    return {
        "rows": rows,
        "more": len(names) - len(rows),
        "told": f"{plural(len(looks), 'look')}, the last at step {last.get('step', '?')}",
        "few": len(rows) <= 24,
    }


def _row(name: str, found: Sequence[Any], edges: Sequence[np.ndarray]) -> dict[str, Any]:
    given = [one if isinstance(one, dict) else {} for one in found]
    ratios = np.array([_number(one.get("update_ratio")) for one in given])
    cells = [_cell(i, ratios[part]) for i, part in enumerate(edges)]
    span = ratios[np.isfinite(ratios)]
    said = f"{name}: steps of {_short(span.min())} to {_short(span.max())} of the weights" if len(
        span) else f"{name}: no step could be measured"  # fmt: skip
    strip = tag(
        "svg", tag("title", said), *cells, class_="heat", role="img",
        viewBox=f"0 0 {len(edges)} 1", preserveAspectRatio="none",
    )  # fmt: skip
    last, middle = given[-1], float(np.median(span)) if len(span) else math.nan
    return {
        "name": name, "strip": strip, "ratio": _short(middle),
        "gradient": _short(_number(last.get("grad_norm"))),
        "size": _short(_number(last.get("param_norm"))),
    }  # fmt: skip


def _cell(place: int, ratios: np.ndarray) -> Markup:
    """Return a cell for a stretch of the run: its median ratio as a colour."""
    known = ratios[np.isfinite(ratios)]
    shape = {"x": place, "y": 0, "width": 1, "height": 1}
    if not len(known):
        return tag("rect", class_="gap", **shape)
    away = math.log10(max(float(np.median(known)), 1e-12) / _USUAL) / _DECADES
    style = "above" if away > 0 else "below"
    return tag("rect", class_=style, fill_opacity=f"{min(1.0, abs(away)):.2f}", **shape)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _short(value: float) -> str:
    return setting(value, 2) if math.isfinite(value) else "none"
