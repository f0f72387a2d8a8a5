"""Say where, when and how long it ran, what it left behind, and how to do it again."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

from brickyard.report.composition import plain
from brickyard.report.facts import Facts
from brickyard.report.wording import (
    duration,
    finite,
    moment,
    percent,
    short_count,
    size,
    title,
)

_FILES = {
    "recipe.yaml": "the resolved recipe, every default filled in",
    "environment.json": "versions, machine, git commit, command line",
    "metrics.jsonl": "every measurement, one JSON object a line",
    "telemetry.jsonl": "gradient, step and size of every parameter, one JSON object a line",
    "summary.json": "final and best metrics, durations, exit reason",
    "evaluation.npz": "target, prediction, confidence and loss of every validation sample",
    "checkpoints/last.pt": "everything needed to resume",
    "checkpoints/best.pt": "the best weights",
    "report.html": "this page",
}


def environment(f: Facts) -> list[tuple[str, str]]:
    """Return the environment, without the command line, as names and texts."""
    rows = []
    for key, value in f.environment.items():
        if key in ("command", "git_changes") or value in (None, "", [], {}):
            continue
        if key == "git_commit":
            dirty = ", with changes not committed" if f.environment.get("git_changes") else ""
            value = str(value)[:12] + dirty
        if key in ("started", "ended"):
            value = str(value).replace("T", " ")[:16]
        rows.append((title(str(key)), plain(value)))
    return rows


def files(run: Path) -> list[dict[str, str]]:
    """Return the files of the run folder with their size and meaning."""
    found = []
    for name, meaning in _FILES.items():
        path = run / name
        if name == "report.html" or path.is_file():
            length = size(path.stat().st_size) if path.is_file() and name != "report.html" else ""
            found.append({"name": name, "size": length, "meaning": meaning})
    return found


def ended(run: Path) -> str:
    """Return when the run's last file was written."""
    times = [
        (run / n).stat().st_mtime for n in _FILES if n != "report.html" and (run / n).is_file()
    ]
    return moment(max(times)) if times else ""


def commands(f: Facts) -> list[dict[str, str]]:
    """Return the commands that repeat, resume and compare this run."""
    where = shlex.quote(f.path)
    found = []
    asked = f.environment.get("command")
    words = [str(w) for w in asked] if isinstance(asked, list) else str(asked or "").split()
    if len(words) > 1:  # one word is an interpreter that read its program from elsewhere
        words[0] = "brickyard" if words[0] == "__main__.py" else words[0]
        found.append({"what": "As it was started", "line": shlex.join(words)})
    recipe = shlex.quote(f"{f.path.rstrip('/')}/recipe.yaml")
    found.append({"what": "The resolved recipe again", "line": f"brickyard train {recipe}"})
    seed = f.recipe.get("seed")
    if isinstance(seed, int) and not isinstance(seed, bool):
        found.append({"what": "Another seed", "line": f"brickyard train {recipe} seed={seed + 1}"})
    if f.exit_reason in ("interrupted", "failed", ""):
        found.append(
            {"what": "Go on from the last checkpoint", "line": f"brickyard resume {where}"}
        )
    found.append({"what": "Compare it with another run", "line": f"brickyard report {where} OTHER"})
    return found


_PHASES = {
    "data": ("Data", "waiting for batches"),
    "forward": ("Forward", "model and loss"),
    "backward": ("Backward", "gradients"),
    "step": ("Step", "clipping and the optimizer"),
    "evaluate": ("Evaluate", "validation"),
    "checkpoint": ("Checkpoint", "writing to the disk"),
    "setup": ("Setup", "data and model"),
    "other": ("Other", "all the rest"),
}


def time_split(f: Facts) -> dict[str, Any] | None:
    """Return where the time went: phases with share and text, in the order they are drawn."""
    parts = {k: v for k, v in f.seconds.items() if k != "total" and v > 0}
    total = max(f.total_seconds or 0.0, math.fsum(parts.values()))
    if not parts or total <= 0:
        return None
    rest = total - math.fsum(parts.values())
    if rest > 0.005 * total:
        parts["other"] = parts.get("other", 0.0) + rest
    order = [*(k for k in _PHASES if k in parts), *(k for k in parts if k not in _PHASES)]
    rows = []
    for key in order:
        name, meaning = _PHASES.get(key, (title(key), ""))
        share = parts[key] / total
        rows.append({
            "key": key if key in _PHASES else "other", "name": name, "meaning": meaning,
            "share": share, "percent": percent(share), "time": duration(parts[key]),
        })  # fmt: skip
    rate = finite(f.summary.get("samples_per_second"))
    told = ", ".join(f"{r['name'].lower()} {r['percent']}" for r in rows)
    speed = f"{short_count(rate)} samples a second in training" if rate else ""
    return {"rows": rows, "total": duration(total), "told": told, "rate": speed}
