"""Read what happened between two steps of an optimizer: backward, zero_grad, clip, unscale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from brickyard.doctor.observe.record import Place
from brickyard.doctor.observe.tensors import dense

if TYPE_CHECKING:
    from brickyard.doctor.observe.track import Track
    from brickyard.doctor.observe.watcher import Watcher


@dataclass(frozen=True)
class Event:
    """One call between two steps.

    Args:
        kind: backward, zero, clip or unscale.
        place: the user's line.
        held: gradients were not zero before it.
        plain: a backward pass of a criterion's mean itself.
        scaled: a backward pass of a loss that a GradScaler multiplied.
        versions: sum of the version counters of the parameters, which updates raise.
        total: sum of the first gradient's elements after it.
    """

    kind: str
    place: Place
    held: bool = False
    plain: bool = False
    scaled: bool = False
    versions: int = 0
    total: float = 0.0


def versions(params: Iterable[torch.Tensor]) -> int:
    """Return the sum of version counters: changed by every update in place."""
    return sum(p._version for p in params)


def grad_sum(params: Iterable[torch.Tensor]) -> float:
    """Return the sum of absolute values of the first gradient there is."""
    for p in params:
        if p.grad is not None:
            return float(dense(p.grad.detach()).abs().sum())
    return 0.0


def analyse(w: Watcher, track: Track) -> None:
    """Note what is odd in the order of calls before a step."""
    if not track.whole and track.seen.steps > 0:
        return
    events, name = track.events, track.seen.name
    backs = [e for e in events if e.kind == "backward"]
    zeros = [e for e in events if e.kind == "zero"]
    if backs and track.seen.steps > 0 and all(e.held for e in backs) and not zeros:
        w.seen.note("stale-grad", name, backs[0].place)
    _discarded(w, track)
    _accumulated(w, track)


def _discarded(w: Watcher, track: Track) -> None:
    """Find backward passes whose gradients were cleared and never used, in one loop."""
    events = track.events
    last = max((i for i, e in enumerate(events) if e.kind == "backward"), default=None)
    if last is None:
        return
    used, lost, cleared = events[last], 0, None
    for i, event in enumerate(events[:last]):
        if event.kind == "zero" and event.held:
            before = [e for e in events[:i] if e.kind == "backward"]
            if before and before[-1].place == used.place and before[-1].versions == used.versions:
                lost, cleared = lost + 1, event
    if cleared is not None:
        w.seen.note("discarded-grad", track.seen.name, cleared.place, lost=lost,
                    backwards=sum(e.kind == "backward" for e in events))  # fmt: skip


def _accumulated(w: Watcher, track: Track) -> None:
    """Find sums of several mean losses that nobody divided."""
    events = track.events
    zero = max((i for i, e in enumerate(events) if e.kind == "zero"), default=-1)
    backs = [e for e in events[zero + 1 :] if e.kind == "backward"]
    if len(backs) < 2 or len({e.place for e in backs}) > 1:
        return
    if len({e.versions for e in backs}) > 1 or not all(e.plain for e in backs):
        return
    clipped = any(e.kind == "clip" for e in events)
    now, then = grad_sum(track.params), backs[-1].total
    if not clipped and then > 0 and abs(now / then - 1.0) > 1e-3:
        return  # the gradients were divided afterwards
    w.seen.note("accumulated", track.seen.name, backs[-1].place, passes=len(backs))
