"""Say what the regularizers of a run did to its weights and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from brickyard.plots.svg import axes, linear, margin, pct, plot, tag
from brickyard.report.curves import Chart
from brickyard.report.facts import Facts
from brickyard.report.wording import count, finite, metric, more_is_better, number, percent, plural
from brickyard.report.wording import words as in_words


def regularized(f: Facts) -> list[dict[str, Any]]:
    """Return for each regularizer that left something to see: name, sentences, rows, figure."""
    given = f.summary.get("regularizers")
    found = []
    for i, row in enumerate(given if isinstance(given, list) else []):
        if not isinstance(row, Mapping):
            continue
        make = {"average": _average, "ensemble": _ensemble, "weights": _weights}.get(
            str(row.get("kind"))
        )
        told = make(f, row, i) if make is not None else None
        if told:
            found.append({"name": str(row.get("name", "")), "head": (), "rows": (), "figure": None,
                          **told})  # fmt: skip
    return found


def _values(row: Any) -> dict[str, float]:
    pairs = ((str(k), finite(v)) for k, v in row.items()) if isinstance(row, Mapping) else ()
    return {k: v for k, v in pairs if v is not None}


def _average(f: Facts, row: Mapping[str, Any], place: int) -> dict[str, Any] | None:
    averaged, raw = _values(row.get("averaged")), _values(row.get("raw"))
    if not averaged or not raw:
        return {"told": "The best evaluation came before there was an average."}
    rows = [
        (in_words(name), metric(name, averaged[name]), metric(name, raw[name]),
         _gain(name, averaged[name], raw[name]))
        for name in averaged if name in raw
    ]  # fmt: skip
    told = (
        f"At the best evaluation, epoch {number(f.best_epoch or 0.0)}: the averaged weights, which "
        "are kept, against the raw ones of the same step."
    )
    return {"told": told, "head": ("Metric", "Averaged", "Raw", "Averaged is"), "rows": rows}


def _gain(name: str, mine: float, other: float) -> str:
    if mine == other:
        return "equal"
    return "better" if (mine > other) == more_is_better(name) else "worse"


def _ensemble(f: Facts, row: Mapping[str, Any], place: int) -> dict[str, Any] | None:
    joint = _values(row.get("ensemble"))
    members = [_values(one) for one in row.get("members") or []]
    if not joint or not members:
        return {"told": "No cycle ended, so there is no snapshot."}
    taken = [str(step) for step in row.get("taken") or []]
    who = f"{plural(len(members), 'snapshot')} (after steps {', '.join(taken)}) together"
    if row.get("others"):
        who = f"The model of this run and {plural(len(members) - 1, 'other')} together"
    rows = []
    for name, value in joint.items():
        each = [m[name] for m in members if name in m]
        if each:
            best = max(each) if more_is_better(name) else min(each)
            mean = float(np.mean(each))
            rows.append((in_words(name), metric(name, value), metric(name, best),
                         metric(name, mean), _gain(name, value, best)))  # fmt: skip
    told = f"{who}, against each alone; the same validation data."
    if row.get("others"):
        told += f" The others: {', '.join(map(str, row['others']))}."
    return {"told": told, "rows": rows,
            "head": ("Metric", "Together", "Best alone", "Mean alone", "Together is")}  # fmt: skip


def _weights(f: Facts, row: Mapping[str, Any], place: int) -> dict[str, Any] | None:
    share, bound = finite(row.get("near_zero")), finite(row.get("bound"))
    if share is not None:
        size, value = (finite(row.get(k)) or 0.0 for k in ("mean_size", "penalty"))
        return {"told": f"{percent(share)} of {count(row.get('weights') or 0)} weights are near "
                f"zero (below a thousandth of the largest of their tensor). Mean size "
                f"{number(size)}; penalty {number(value)}."}  # fmt: skip
    counts = row.get("histogram")
    if bound is None or not isinstance(counts, list) or not counts:
        return None
    at, units = finite(row.get("at_bound")) or 0.0, finite(row.get("units")) or 0.0
    told = (
        f"{percent(at)} of {count(units)} units are within 1 % of the bound of {number(bound)}; "
        f"the largest norm is {number(finite(row.get('largest')) or 0.0)}."
    )
    return {"told": told, "figure": _norms(counts, finite(row.get("top")) or bound, bound, told,
                                           f"norms{place}")}  # fmt: skip


def _norms(counts: list[Any], top: float, bound: float, told: str, key: str) -> Chart:
    """Draw the histogram of the units' norms, with a line at the bound."""
    total = np.array([finite(n) or 0.0 for n in counts])
    x, y = linear(0.0, top, about=4), linear(0.0, max(float(total.max()), 1.0), about=3)
    edges, heights = x(np.linspace(0.0, top, len(total) + 1)), y(total)
    bars = [
        tag("rect", class_="bar", x=pct(a + 0.001), width=pct(max(b - a - 0.002, 0.001)),
            y=pct(1 - h), height=pct(h))
        for a, b, h in zip(edges[:-1].tolist(), edges[1:].tolist(), heights.tolist(), strict=True)
        if h > 0
    ]  # fmt: skip
    at = pct(float(x(np.array([bound]))[0]))
    line = tag("line", class_="zero", x1=at, x2=at, y1="0", y2="100%")
    svg = plot(key, "Norms of the units", told, axes(x, y, "norm", "units"), *bars, line)
    return Chart(key, "Norms of the units", svg, margin(y.labels))
