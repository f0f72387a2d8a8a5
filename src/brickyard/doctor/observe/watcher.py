"""Watch one process: count steps, decide which are looked at closely, undo everything."""

from __future__ import annotations

from collections.abc import Callable

from torch.optim.optimizer import register_optimizer_step_post_hook

from brickyard.doctor.finding import Report


class Watcher:
    """Observe torch in this process between :meth:`start` and :meth:`stop`."""

    def __init__(self, limit: int | None = None, on_limit: Callable[[], None] | None = None):
        self.limit = limit
        self.on_limit = on_limit
        self.steps = 0

    def start(self) -> None:
        """Install hooks and patches."""
        self._handle = register_optimizer_step_post_hook(self._stepped)

    def _stepped(self, *_: object) -> None:
        self.steps += 1

    def stop(self) -> None:
        """Take everything back."""
        self._handle.remove()

    def report(self, seconds: float) -> Report:
        """Return what is known so far."""
        return Report(steps=self.steps, seconds=seconds)
