"""Draw schedules: the factor at every step of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brickyard.catalog import Card
from brickyard.plots.figure import Axis, Figure, panel

__all__ = ["draw", "plot_schedule"]

_STEPS, _EPOCH = 200, 10
#: Options that must be given, or whose default hides what the schedule does.
_GIVEN: dict[str, Any] = {
    "steps": "10%", "every": "20%", "milestones": ["50%", "75%"], "rate": 0.98, "k": 0.02,
    "warmup": "5%", "stable": "55%", "decay": "40%", "first": 30, "low": 0.1, "high": 1.0,
    "up": 25, "power": 2.0, "factor": 0.5, "gamma": 0.5, "total": "rest", "peak": 1.0,
    "period": 40, "length": "rest",
}  # fmt: skip
#: Options whose default shows only in longer runs.
_SHORT: dict[str, dict[str, Any]] = {"cyclic": {"gamma": 0.99}}
#: The option that shapes the curve, and values of it to compare.
_FAMILIES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "constant": ("factor", (1.0, 0.5)),
    "linear": ("end", (0.0, 0.1)),
    "cosine": ("end", (0.0, 0.1)),
    "warmup": ("kind", ("linear", "exponential")),
    "polynomial": ("power", (0.5, 1.0, 2.0)),
    "exponential": ("rate", (0.98, 0.95)),
    "cosine_restarts": ("mult", (1, 2)),
    "cyclic": ("mode", ("triangular", "triangular2", "exp_range")),
    "inverse_time": ("k", (0.02, 0.1)),
    "natural_exponential": ("k", (0.01, 0.03)),
    "inverse_sqrt": ("timescale", (5, 20, 100)),
}


def draw(card: Card) -> Figure:
    """Return the factor of every step of a run of 200 steps.

    Args:
        card: a schedule's card.
    """
    names = {option.name for option in card.options}
    needed = [option.name for option in card.options if option.required]
    unknown = [name for name in needed if name not in _GIVEN]
    if unknown:
        reason = f"{card.key} needs {unknown[0]}, for which no example is written yet"
        return Figure(card.key, reason=reason)
    option, values = _FAMILIES.get(card.key, ("", (None,)))
    if option not in names:
        option, values = "", (None,)
    curves = []
    for value in values:
        options = {name: _GIVEN[name] for name in needed} | _SHORT.get(card.key, {})
        options.update({option: value} if option else {})
        schedule: Any = card.load()(**options)
        try:
            ready = schedule.resolve(_STEPS, _EPOCH)
            if getattr(ready, "plateau", lambda: None)() is not None:
                reason = f"{card.key} follows what the run measures, not the step"
                return Figure(card.key, reason=reason)
            factors = ready.values(_STEPS, epoch=_EPOCH)
        except (ValueError, TypeError) as error:
            return Figure(card.key, reason=f"{card.key} has no curve by step alone: {error}")
        shown = f"{value:g}" if isinstance(value, int | float) else str(value)
        curves.append((f"{option} = {shown}" if option else card.key, factors))
    at = tuple(float(step) for step in range(_STEPS))
    given = ", ".join(f"{name} {_GIVEN[name]}" for name in needed if name != option)
    given += "".join(f", {n} {v:g}" for n, v in _SHORT.get(card.key, {}).items())
    note = f"A run of {_STEPS} steps{f', with {given}' if given else ''}."
    shown = panel("Factor", Axis("step"), Axis("factor of the rate", low=0.0), at, curves)
    return Figure(card.key, f"{card.key}: factor by step", note, (shown,))


def plot_schedule(
    schedule: Any, total: int, epoch: int | None = None, file: str | Path | None = None
) -> Figure | Path:
    """Return the picture of a schedule over a run, or write it to a file and return its path.

    Args:
        schedule: any schedule, such as ``warmup(500) >> cosine()``.
        total: steps of the run.
        epoch: steps of an epoch, for lengths in epochs.
        file: a name that ends in ``.svg`` or ``.png``.

    Raises:
        ValueError: ``total`` is no number of steps, or a length needs ``epoch``.

    Example:
        >>> from brickyard.schedules import cosine, warmup
        >>> plot_schedule(warmup("10%") >> cosine(), 100).labels
        ['factor']
    """
    if total < 2 or total != int(total):
        raise ValueError(f"total must be a number of steps from 2; got {total!r}")
    ready = schedule.resolve(total, epoch)
    every = max(1, total // 1000)  # an eye sees no more
    at = [*range(0, total, every)]
    factors = ready.values(total)[::every]
    note = f"A run of {total} steps."
    shown = panel("Factor", Axis("step"), Axis("factor of the base value", low=0.0), at,
                  [("factor", factors)])  # fmt: skip
    made = Figure("schedule", repr(schedule), note, (shown,))
    if file is None:
        return made
    from brickyard.plots.files import write

    return write(made, file)
