"""Put the page of a run together."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from brickyard.report import circumstances, composition, results
from brickyard.report.curves import Chart, Line, chart, time_axis
from brickyard.report.facts import Facts
from brickyard.report.layers import steps_of_layers
from brickyard.report.regularized import regularized
from brickyard.report.verdict import judge, notes
from brickyard.report.wording import duration, epochs, finite, metric, short_count, words
from brickyard.version import __version__

_HERE = Path(__file__).parent
SPLITS = {"train": "training", "val": "validation"}
#: Splits that are drawn beside them.
BESIDE = {"raw": "validation, raw weights"}
LAST = ("lr", "grad_norm", "update_ratio", "update_ratio_low", "update_ratio_high")
_MOST_CHARTS = 12
_SEVERITIES = {"error": "bad", "warning": "warn", "info": "none"}


def render(template: str, **values: Any) -> str:
    """Return a page: styles and script inside, nothing loaded, no other script allowed to run."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        _environment()
        .get_template(template)
        .render(
            style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=digest,
            version=__version__,
            **values,
        )
    )
    return page.strip() + "\n"


@cache
def _environment() -> Environment:
    """Return the templates, compiled once a process: that takes longer than filling them in."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["glue"] = lambda text: re.sub(r"\b(epoch|step) (?=\d)", "\\1\u00a0", text)
    return environment


def run_page(f: Facts) -> str:
    """Return the page of one run."""
    verdict = judge(f)
    return render(
        "report.html",
        f=f,
        verdict=verdict,
        notes=[
            *notes(f),
            *composition.lost(f),
            *(f"Could not read {what}." for what in f.unreadable),
        ],
        sentence=composition.sentence(f),
        tiles=figures if len(figures := tiles(f)) > 1 else [],
        charts=charts(f),
        steps=steps_of_layers(f.path),
        classification=results.classification(f),
        regression=results.regression(f),
        worst=results.worst(f),
        shown=results.shown(f),
        regularized=regularized(f),
        findings=findings(f),
        bricks=composition.bricks(f),
        settings=composition.settings(f),
        recipe=composition.recipe_text(f),
        data=composition.data_rows(f),
        layers=composition.layers(f),
        groups=composition.groups(f),
        time=circumstances.time_split(f),
        environment=circumstances.environment(f),
        files=circumstances.files(Path(f.path)),
        commands=circumstances.commands(f),
        ended=circumstances.ended(Path(f.path)),
    )


def tiles(f: Facts) -> list[dict[str, str]]:
    """Return the key figures: name, value and what stands under it."""
    found = []
    if f.evaluations:
        under = f"best, epoch {epochs(f.best_epoch)}"
        found.append({"name": f.monitor_words, "value": f.show(f.best), "under": under})
    best = f.part("best").get("val")
    others = best if isinstance(best, dict) else {}
    for name, value in others.items():
        if name != f.monitor and finite(value) is not None and len(found) < 3:
            found.append({"name": f"validation {words(name)}", "value": metric(name, value),
                          "under": "of the same weights"})  # fmt: skip
    if f.total_seconds:
        done = finite(f.summary.get("epochs")) or f.history.last_epoch
        each = f"{duration(f.total_seconds / done)} an epoch" if done >= 1 else "in all"
        found.append({"name": "time", "value": duration(f.total_seconds), "under": each})
    rate = finite(f.summary.get("samples_per_second"))
    if rate:
        speed = short_count(rate)
        found.append({"name": "throughput", "value": speed, "under": "samples a second"})
    weights = finite(f.part("model").get("parameters"))
    if weights:
        name = str(f.part("model").get("name") or "the model")
        found.append({"name": "parameters", "value": short_count(weights), "under": name})
    return found


def charts(f: Facts) -> dict[str, list[Chart]]:
    """Return the curves: the loss and the monitored metric first, then all others."""
    known = f.history.names
    names = [n for n in ("loss",) if n in known]
    names += [n for n in (f.monitor,) if n in known and n not in names]
    names += [n for n in known if n not in names and n not in LAST]
    names += [n for n in LAST if n in known]
    axis = time_axis(list(f.history.series.values()))
    drawn = []
    for i, name in enumerate(names):
        lines = [
            Line(f.history.get(split, name), label, split) for split, label in SPLITS.items()
        ] + [Line(s, BESIDE.get(split, split), "s1") for (split, n), s in f.history.series.items()
             if n == name and split not in SPLITS]  # fmt: skip
        lines = [line for line in lines if len(line.series)]
        best = f.best_epoch if any(line.style == "val" for line in lines) else None
        done = chart(f"c{i}", name, lines, axis, best)
        drawn += [done] if done else []
    return {"main": drawn[:_MOST_CHARTS], "more": drawn[_MOST_CHARTS:]}


def findings(f: Facts) -> list[dict[str, str]]:
    """Return what the doctor found, gravest first."""
    given = [x for x in f.summary.get("findings") or [] if isinstance(x, dict)]
    order = list(_SEVERITIES)
    found = []
    for one in given:
        severity = str(one.get("severity", "info")).lower()
        texts = {k: composition.plain(one[k]) if one.get(k) else ""
                 for k in ("check", "where", "evidence", "why", "try")}  # fmt: skip
        place = f"{one['file']}:{one.get('line', 0)}" if one.get("file") else ""
        found.append({**texts, "next": texts["try"], "severity": severity, "place": place,
                      "tone": _SEVERITIES.get(severity, "none")})  # fmt: skip
    return sorted(found, key=lambda x: order.index(x["severity"]) if x["severity"] in order else 9)
