"""Profile a few steps of a run: a Chrome trace and the operations that took the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, supported_activities

from brickyard.errors import UserError
from brickyard.train.data import Batches
from brickyard.train.parts import Parts

__all__ = ["TRACE", "Profiled", "profiled"]

TRACE = "profile.json"
_WARMUP = 10  # steps: kernels are built and caches filled in the first ones
_MOST = 10


class Profiled:
    """Hand batches on, and record what happens from one step to ``steps`` steps later.

    Nothing of the run changes. Open the trace at ``chrome://tracing`` or in Perfetto.

    Args:
        inner: the training batches.
        steps: how many to record, each with all that is done in it.
        total: steps of the run.
        window: batches a step.

    Raises:
        UserError: the run has not so many steps after its first.
    """

    def __init__(self, inner: Batches, steps: int, total: int, window: int = 1):
        if not 1 <= steps < total:
            raise UserError(f"profile takes 1 to {total - 1} steps of this run; got {steps}")
        self.inner, self.steps = inner, steps
        #: Where the trace goes, and who is given the table; set before the first batch.
        self.path = Path(TRACE)
        self.tell: Callable[[str], Any] = print
        self._first = max(1, min(_WARMUP, total - steps - 1)) * window
        self._last = self._first + steps * window
        self._seen = 0
        self._profile: profile | None = None

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.inner)

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """Return the batches of an epoch from the batch ``start`` on."""
        try:
            for batch in self.inner.epoch(number, start=start):
                yield batch
                self._seen += 1
                if self._seen == self._first or self._seen == self._last:
                    self._turn()
        except GeneratorExit:  # the run ends here
            self._seen = max(self._seen, self._last)
            self._turn()
            raise

    def _turn(self) -> None:
        """Start or stop recording, whichever is due."""
        if self._seen < self._last:
            self._profile = profile(activities=self._activities(), acc_events=True)
            self._profile.start()
        elif self._profile is not None:
            done, self._profile = self._profile, None
            done.stop()
            done.export_chrome_trace(str(self.path))
            self.tell(_table(done, self.steps))
            self.tell(f"trace: {self.path}")

    @staticmethod
    def _activities() -> list[ProfilerActivity]:
        return [a for a in supported_activities() if a != ProfilerActivity.XPU]


def profiled(parts: Parts, steps: int) -> Profiled:
    """Let a run record some of its steps; return what does it.

    Args:
        parts: of the run; their training batches are wrapped.
        steps: how many.

    Raises:
        UserError: the run has not so many steps after its first.
    """
    parts.train = made = Profiled(parts.train, steps, parts.total, parts.accumulate)
    return made


def _table(done: profile, count: int) -> str:
    """Return the operations that took most time by themselves."""
    rows = [(e.self_cpu_time_total + e.self_device_time_total, e.count, e.key)
            for e in done.key_averages()]  # fmt: skip
    whole = sum(row[0] for row in rows) or 1.0
    shown = [f"{'operation':40} {'calls':>7} {'ms a step':>10} {'share':>6}"]
    for spent, calls, name in sorted(rows, reverse=True)[:_MOST]:
        shown.append(
            f"{name[:40]:40} {calls:>7} {spent / count / 1e3:>10.3f} {spent / whole:>6.1%}"
        )
    return "\n".join(shown)
