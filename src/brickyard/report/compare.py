"""Put the page that compares runs together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brickyard.report import composition
from brickyard.report.circumstances import time_split
from brickyard.report.curves import Chart, Line, chart, time_axis
from brickyard.report.facts import Facts
from brickyard.report.page import LAST, SPLITS, render
from brickyard.report.verdict import Verdict, judge
from brickyard.report.wording import (
    duration,
    epochs,
    finite,
    metric,
    more_is_better,
    short_count,
    title,
    words,
)


def comparison_page(runs: Sequence[Facts]) -> str:
    """Return the page that compares runs."""
    names = _distinct(runs)
    verdicts = [judge(f) for f in runs]
    rows = [
        {"name": name, "path": f.path, "verdict": v, "style": _style(i), "sentence":
         composition.sentence(f), "time": time_split(f)}
        for i, (f, name, v) in enumerate(zip(runs, names, verdicts, strict=True))
    ]  # fmt: skip
    return render(
        "comparison.html",
        runs=rows,
        headline=_headline(runs, names),
        settings=differing(runs),
        metrics=_metric_rows(runs),
        facts=_fact_rows(runs, verdicts),
        charts=_overlays(runs, names),
    )


def _style(i: int) -> str:
    """Return the colour class of the i-th run; colours repeat with another dash."""
    return f"s{i % 8}" + (f" d{i // 8 % 3}" if i >= 8 else "")


def _distinct(runs: Sequence[Facts]) -> list[str]:
    """Return the runs' names; with the folder, or a number, where several are the same."""
    names = [f.name for f in runs]
    folders = [Path(f.path).resolve().name for f in runs]
    found = []
    for i, (name, folder) in enumerate(zip(names, folders, strict=True)):
        same = [j for j, other in enumerate(names) if other == name]
        if len(same) > 1:
            unique = len({folders[j] for j in same}) == len(same)
            name += f" {folder}" if unique else f" #{same.index(i) + 1}"
        found.append(name)
    return found


def _headline(runs: Sequence[Facts], names: Sequence[str]) -> str:
    """Say which run is the best on the metric that all of them monitor, and by how much."""
    monitors = {(f.monitor, f.mode) for f in runs if f.evaluations}
    ranked = [(f, n) for f, n in zip(runs, names, strict=True) if f.evaluations]
    if len(monitors) != 1 or len(ranked) < 2:
        return f"{len(runs)} runs, without a metric that all of them monitor."
    ranked.sort(key=lambda pair: -pair[0].gain(pair[0].best, 0.0))
    (first, winner), (second, _) = ranked[0], ranked[1]
    lead = first.gain(first.best, second.best)
    noise = math.hypot(first.noise, second.noise)
    same = [n for f, n in ranked[1:] if first.gain(first.best, f.best) <= 2 * noise]
    what = f"{first.monitor_words} {first.show(first.best)}"
    if lead <= 2 * noise:
        others = "the next" if len(same) == 1 else f"the next {len(same)}"
        return (f"{winner} is first with {what}, but its lead over {others} is within the noise of "
                "one run.")  # fmt: skip
    return f"{winner} is best: {what}, {first.show_gap(lead)} ahead of the next."


def differing(runs: Sequence[Facts]) -> list[dict[str, Any]]:
    """Return the settings in which the recipes differ: dotted path, and a value for every run."""
    flats = [dict(composition.flat(f.recipe)) for f in runs]
    paths = list(dict.fromkeys(path for flat in flats for path in flat))
    rows = []
    for path in paths:
        values = [flat.get(path, "–") for flat in flats]
        if path != "name" and len(set(values)) > 1:
            common = max(set(values), key=values.count)
            usual = values.count(common) > 1
            cells = [{"text": v, "other": usual and v != common} for v in values]
            rows.append({"name": path, "cells": cells})
    return rows


def _metric_rows(runs: Sequence[Facts]) -> list[dict[str, Any]]:
    """Return every run's validation metrics by its best weights, the best of each marked."""
    bests = []
    for f in runs:
        told = f.part("best").get("val")
        known = {k: finite(v) for k, v in told.items()} if isinstance(told, dict) else {}
        if f.evaluations:
            known.setdefault(f.monitor, f.best)
        bests.append(known)
    names = list(dict.fromkeys(name for known in bests for name in known))
    names.sort(key=lambda n: n != (runs[0].monitor if runs else ""))
    rows = []
    for name in names:
        values = [known.get(name) for known in bests]
        good = [v for v in values if v is not None]
        if good:
            usual = "max" if more_is_better(name) else "min"
            mode = next((f.mode for f in runs if f.monitor == name), usual)
            top = max(good) if mode == "max" else min(good)
            cells = [{"text": metric(name, v), "top": v == top and len(good) > 1} for v in values]
            rows.append({"name": f"Validation {words(name)}", "cells": cells})
    return rows


def _fact_rows(runs: Sequence[Facts], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    def row(name: str, texts: list[str]) -> dict[str, Any]:
        return {"name": name, "cells": [{"text": t or "–", "top": False} for t in texts]}

    def told(f: Facts, key: str) -> float | None:
        return finite(f.summary.get(key))

    rows = [
        row("Verdict", [v.label for v in verdicts]),
        row("Best epoch", [epochs(f.best_epoch) if f.evaluations else "" for f in runs]),
        row("Epochs", [epochs(told(f, "epochs") or f.history.last_epoch) for f in runs]),
        row("Time", [duration(f.total_seconds) for f in runs]),
        row("Samples a second", [short_count(told(f, "samples_per_second") or 0) if
                                 told(f, "samples_per_second") else "" for f in runs]),
        row("Parameters", [short_count(finite(f.part("model").get("parameters")) or 0) if
                           f.part("model").get("parameters") else "" for f in runs]),
    ]  # fmt: skip
    return [r for r in rows if any(c["text"] != "–" for c in r["cells"])]


def _overlays(runs: Sequence[Facts], names: Sequence[str]) -> list[Chart]:
    """Return one chart for each metric, with a line for every run: validation where measured."""
    axis = time_axis([s for f in runs for s in f.history.series.values()])
    wanted = [("val", n) for f in runs for s, n in f.history.series if s == "val"]
    wanted = [("train", "loss"), *dict.fromkeys(wanted), ("train", "lr"), ("train", "grad_norm")]
    drawn = []
    for i, (split, name) in enumerate(wanted):
        lines = [
            Line(f.history.get(split, name), run, _style(j))
            for j, (f, run) in enumerate(zip(runs, names, strict=True))
        ]
        heading = title(name) if name in LAST else f"{title(SPLITS[split])} {words(name)}"
        done = chart(f"c{i}", name, lines, axis, heading=heading, quiet=True)
        drawn += [done] if done else []
    return drawn
