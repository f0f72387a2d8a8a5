"""Find a learning rate: train for a hundred steps while it grows, and look at the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from brickyard.plots import Axis, Curve, Figure, Panel
from brickyard.train.data import Batches
from brickyard.train.loop import Batch, Loop, Parts
from brickyard.train.recipe import Resolved
from brickyard.train.setup import build_setup
from brickyard.train.untouched import Untouched

__all__ = ["RangeTest", "lr_range_of", "lr_range_test"]

Kind = Literal["exponential", "linear"]
_LABELS = {"steepest": "steepest slope", "valley": "half way down the valley",
           "minimum/10": "a tenth of the minimum's"}  # fmt: skip


@dataclass(frozen=True)
class RangeTest:
    """Hold what a learning rate range test measured.

    Args:
        rates: the rate of each step that was taken.
        losses: the loss that each step started from.
        smoothed: the same, smoothed.
        kind: how rates grew.
        stopped: why it ended.
        suggestions: rates by rule, None where the loss never fell: ``steepest``, where the
            smoothed loss falls fastest by factor of the rate; ``valley``, where half of the
            fall of the longest run of falling values is done; ``minimum/10``, a tenth of the rate
            of its minimum.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    kind: str = "exponential"
    stopped: str = ""
    suggestions: dict[str, float | None] = field(default_factory=dict)

    def table(self) -> str:
        """Return the suggestions and how the test went, as text."""
        width = max(map(len, _LABELS.values()))
        rows = [
            f"{_LABELS[name]:{width}}  {'-' if rate is None else format(rate, '.2e')}"
            for name, rate in self.suggestions.items()
        ]
        best = int(np.argmin(self.smoothed))
        rows += [
            "",
            f"{len(self.rates)} steps from {self.rates[0]:.1e} to {self.rates[-1]:.1e}, "
            f"{self.stopped}; smoothed loss {self.smoothed[0]:.4g} at the start, "
            f"{self.smoothed[best]:.4g} at its minimum, at {self.rates[best]:.2e}",
        ]
        if all(rate is None for rate in self.suggestions.values()):
            rows.append("the loss never fell: start lower, or look at data, loss and model")
        elif self.stopped == _ALL:
            rows.append("the loss never blew up: raise high to see where it does")
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {
            "suggestions": dict(self.suggestions), "stopped": self.stopped, "kind": self.kind,
            "rates": list(self.rates), "losses": list(self.losses),
            "smoothed": list(self.smoothed),
        }  # fmt: skip

    def figure(self) -> Figure:
        """Return the picture: loss by rate, with the suggestions as vertical lines."""
        marks = [(n, r) for n, r in self.suggestions.items() if r is not None]
        inside = [(n, r) for n, r in marks if self.rates[0] <= r <= self.rates[-1]]
        # A vertical line needs two points at its place, where the curves get a value between.
        at = sorted([*self.rates, *(r for _, r in inside for _ in range(2))])
        low, high = min(self.smoothed), max(self.smoothed)
        high += 0.1 * (high - low) or 1e-9
        smooth = np.interp(at, self.rates, self.smoothed)
        raw = np.interp(at, self.rates, self.losses)
        curves = [
            Curve("loss", tuple(float(v) if v <= high else None for v in raw), reference=True),
            Curve("smoothed", tuple(map(float, smooth))),
        ]
        for name, rate in inside:
            ends = iter((min(low, float(raw.min())), high))
            line = tuple(next(ends, None) if x == rate else None for x in at)
            curves.append(Curve(f"{_LABELS[name]}, {rate:.2e}", line))
        x = Axis("learning rate", log=self.kind == "exponential")
        panel = Panel("Loss by learning rate", x, Axis("loss"), tuple(at), tuple(curves))
        note = f"{len(self.rates)} steps, {self.stopped}."
        return Figure("lr_range", "Learning rate range test", note, (panel,))

    def plot(self, file: str | Path | None = None) -> Figure | Path:
        """Return the picture, or write it to a file and return its path.

        Args:
            file: a name that ends in ``.svg`` or ``.png``.
        """
        if file is None:
            return self.figure()
        from brickyard.plots.files import write

        return write(self.figure(), file)


_ALL = "all of them"


def lr_range_test(
    model: nn.Module, loss: Callable[[Any, Any], Tensor], optimizer: Optimizer,
    batches: Iterable[Batch] | Batches, low: float = 1e-7, high: float = 10.0, steps: int = 100,
    kind: Kind = "exponential", smooth: float = 0.8, stop: float | None = 4.0,
) -> RangeTest:  # fmt: skip
    """Train while the learning rate grows; return the losses and what they suggest.

    Model, optimizer, random numbers and loader are afterwards as they were, bit by bit: also after
    an error or Ctrl-C. Where parameter groups have different rates, the largest follows the test
    and the others keep their share of it.

    Math:
        exponential: rate_i = low * (high/low)^(i/(steps - 1));  linear: low + i (high - low)/...
        s_i = (smooth s_{i-1} + (1 - smooth) loss_i), divided by 1 - smooth^(i + 1)

    Args:
        model: in the mode in which it shall train.
        loss: called with the model's output and the targets.
        optimizer: any torch optimizer whose groups have a rate.
        batches: pairs of inputs and targets on the model's device, begun anew when they end: a
            DataLoader, a list.
        low: first rate.
        high: last rate.
        steps: how many rates.
        kind: by equal factors, or by equal differences.
        smooth: weight of the past in the smoothed loss; 0 smooths nothing.
        stop: end when the smoothed loss exceeds this multiple of its minimum; None goes on to the
            end. A loss that is not finite always ends the test.

    Raises:
        ValueError: an option out of range, groups without a rate, no batches, or a loss that is
            not finite from the start.
        TypeError: ``batches`` is an iterator, which would be left exhausted.

    Example:
        >>> import torch
        >>> net, x = nn.Linear(4, 1), torch.randn(32, 4)
        >>> y, sgd = x.sum(1, keepdim=True), torch.optim.SGD(net.parameters(), lr=0.1)
        >>> found = lr_range_test(net, nn.MSELoss(), sgd, [(x, y)])
        >>> found.stopped, 1e-4 < found.suggestions["steepest"] < 1
        ('diverged', True)

    Reference:
        Smith 2017, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186,
        section 3.3; the longest falling run is fastai's valley.
    """
    if isinstance(batches, Iterator):
        raise TypeError(
            "batches must be something that can be gone through again, such as a DataLoader or a "
            f"list; a {type(batches).__name__} would be left exhausted"
        )
    train: Any = batches if hasattr(batches, "epoch") else _Again(batches)  # pyright: ignore
    parts = Parts(model=model, loss=loss, optimizer=optimizer, train=train, total=steps)
    rates = _rates(low, high, steps, kind)
    _check(smooth, stop)
    with Untouched([model, loss, optimizer], [batches]):
        return _sweep(parts, rates, kind, smooth, stop)


def lr_range_of(
    resolved: Resolved, low: float = 1e-7, high: float = 10.0, steps: int = 100,
    kind: Kind = "exponential", smooth: float = 0.8, stop: float | None = 4.0,
) -> RangeTest:  # fmt: skip
    """Run the range test on a recipe: its steps with everything but the schedule of the rate.

    Args:
        resolved: a checked recipe.
        low: as in :func:`lr_range_test`.
        high: the same.
        steps: the same.
        kind: the same.
        smooth: the same.
        stop: the same.
    """
    rates = _rates(low, high, steps, kind)
    _check(smooth, stop)
    parts = build_setup(resolved).parts
    live = [parts.model, parts.loss, parts.optimizer, parts.task, *parts.penalties,
            *parts.constraints]  # fmt: skip
    with Untouched(live, [parts.train]):
        return _sweep(replace(parts, tally=None), rates, kind, smooth, stop)


class _Again:
    """Give out the batches of an iterable, epoch by epoch."""

    def __init__(self, batches: Iterable[Batch]):
        self.batches = batches

    def __len__(self) -> int:
        return 1 << 62  # never asked for an end: an epoch is what the iterable gives

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        return iter(self.batches)


def _rates(low: float, high: float, steps: int, kind: str) -> list[float]:
    if kind not in ("exponential", "linear"):
        raise ValueError(f"kind must be 'exponential' or 'linear'; got {kind!r}")
    fits = low > 0 if kind == "exponential" else low >= 0
    if not (math.isfinite(high) and fits and low < high):
        least = "0 < low" if kind == "exponential" else "0 <= low"
        raise ValueError(f"rates must be {least} < high; got low={low!r} and high={high!r}")
    if isinstance(steps, bool) or steps != int(steps) or steps < 2:
        raise ValueError(f"steps must be a whole number from 2; got {steps!r}")
    make: Any = np.geomspace if kind == "exponential" else np.linspace
    return make(low, high, int(steps)).tolist()


def _check(smooth: float, stop: float | None) -> None:
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth must lie in [0, 1); got {smooth!r}")
    if stop is not None and not stop > 1:
        raise ValueError(f"stop is a multiple of the smallest loss, more than 1; got {stop!r}")


def _sweep(
    parts: Parts, rates: list[float], kind: str, smooth: float, stop: float | None
) -> RangeTest:
    """Take a step with every rate until the loss blows up."""
    loop = Loop(replace(parts, scheduler=None, allowed_skips=len(rates)))
    groups, shares = parts.optimizer.param_groups, _shares(parts.optimizer)
    take = loop._step_by_closure if loop._by_closure else loop._step
    losses: list[float] = []
    smoothed: list[float] = []
    mean, stopped = 0.0, _ALL
    for rate, window in zip(rates, _windows(loop), strict=False):
        for group, share in zip(groups, shares, strict=True):
            _set_rate(group, rate * share)
        value = float(take(window))
        if not math.isfinite(value):
            stopped = "the loss became non-finite"
            break
        for constrain in parts.constraints:
            constrain(parts.task.trained(parts.model))
        losses.append(value)
        mean = smooth * mean + (1 - smooth) * value
        smoothed.append(mean / (1 - smooth ** len(losses)))
        least = min(smoothed)
        if stop is not None and smoothed[-1] > least + (stop - 1) * abs(least):
            stopped = "diverged"
            break
    if not losses:
        raise ValueError("the loss is not finite at the first step; look at data, loss and model")
    done = rates[: len(losses)]
    return RangeTest(tuple(done), tuple(losses), tuple(smoothed), kind, stopped,
                     suggest(done, smoothed))  # fmt: skip


def _windows(loop: Loop) -> Iterator[list[Batch]]:
    """Yield the batches of each step, epoch after epoch without end."""
    while True:
        some = False
        for window in loop._windows():
            some = True
            yield window
        if not some:
            raise ValueError("there are no batches to train on")
        loop.state.epoch += 1


def _shares(optimizer: Optimizer) -> list[float]:
    """Return each group's rate as a share of the largest."""
    found = []
    for group in optimizer.param_groups:
        if "lr" not in group:
            raise ValueError(f"{type(optimizer).__name__} has groups without a learning rate 'lr'")
        given = group.get("initial_lr", group["lr"])  # a schedule may have it at 0 now
        found.append(1.0 if given is None or callable(given) else float(given))
    top = max(found)
    return [one / top for one in found] if top > 0 else [1.0] * len(found)


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def suggest(rates: Iterable[float], smoothed: Iterable[float]) -> dict[str, float | None]:
    """Return suggested rates by rule; see :class:`RangeTest`."""
    x, y = np.asarray(list(rates)), np.asarray(list(smoothed))
    best = int(y.argmin())
    if best == 0:
        return dict.fromkeys(_LABELS)
    # The slope by factor of the rate, up to the minimum: what comes after is noise of the climb.
    logs = np.log(np.maximum(x[: best + 1], x[x > 0][0] / 10))
    steepest = int(np.gradient(y[: best + 1], logs).argmin())
    begin, end = _valley(y)
    # fastai takes the middle by steps, which a long flat start moves to rates that do nothing.
    half = begin + int((y[begin : end + 1] <= (y[begin] + y[end]) / 2).argmax())
    return {
        "steepest": float(x[steepest]),
        "valley": float(x[half]),
        "minimum/10": float(x[best] / 10),
    }


def _valley(y: np.ndarray) -> tuple[int, int]:
    """Return first and last place of the longest sequence of ever smaller values (gaps allowed)."""
    length = np.ones(len(y), dtype=int)
    start = np.arange(len(y))
    for i in range(1, len(y)):
        above = np.flatnonzero(y[:i] > y[i])
        if len(above):
            before = above[length[above].argmax()]
            length[i], start[i] = length[before] + 1, start[before]
    end = int(length.argmax())
    return int(start[end]), end
