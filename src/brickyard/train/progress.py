"""Show progress: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

if TYPE_CHECKING:
    from brickyard.train.loop import Loop

_REFRESH_SECONDS = 0.2


class ProgressLines:
    """Print a line for every evaluation, and keep a bar below them in a terminal.

    Args:
        console: where to print; standard error by default, so that output stays clean.
        batch_size: samples a step, for the throughput.
        quiet: print nothing: another process of the run does.
    """

    def __init__(self, console: Console | None = None, batch_size: int = 1, quiet: bool = False):
        self.console = console or Console(stderr=True, highlight=False, quiet=quiet)
        self.batch_size = batch_size
        self._bar: Progress | None = None
        self._shown = 0.0
        self._mark = (monotonic(), 0)
        self._train: dict[str, float] = {}

    def start(self, total: int, step: int = 0) -> None:
        """Begin at ``step`` of ``total``."""
        self._mark = (monotonic(), step)
        if self.console.is_terminal:
            # No refresh thread: on few cores it would take time from training.
            self._bar = Progress(
                BarColumn(bar_width=max(6, min(24, self.console.width - 66))),
                TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn(),
                TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                console=self.console, auto_refresh=False, transient=True,
            )  # fmt: skip
            self._bar.add_task("", total=total, completed=step)
            self._bar.start()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def logged(self, loop: Loop, values: dict[str, float]) -> None:
        """Remember the training figures and move the bar."""
        self._train = values
        if self._bar is not None and monotonic() - self._shown > _REFRESH_SECONDS:
            text = f"loss {values['loss']:.4f}  lr {values['lr']:.1e}  {self._speed(loop):,.0f}/s"
            self._bar.update(self._bar.task_ids[0], completed=loop.state.step, description=text)
            self._bar.refresh()
            self._shown = monotonic()

    def evaluated(self, loop: Loop, values: dict[str, float], best: bool) -> None:
        """Print the evaluation's line."""
        rate = self._speed(loop)
        self._mark = (monotonic(), loop.state.step)
        epochs = loop.parts.total / loop.parts.epoch_steps
        shown = "  ".join(f"val {k} {v:.4f}" for k, v in values.items())
        known = {"loss": self._train["loss"]} if self._train else {}
        train = "".join(f"train {k} {v:.4f}  " for k, v in {**known, **loop.training}.items())
        width = len(f"{epochs:.4g}")
        self.console.print(
            f"epoch {loop.epochs():>{width}.4g}/{epochs:.4g}  {train}{shown}  "
            f"{rate:,.0f} samples/s{'  *' if best else ''}",
            soft_wrap=True,
        )

    def _speed(self, loop: Loop) -> float:
        """Return the samples a second since the last evaluation."""
        then, step = self._mark
        return (loop.state.step - step) * self.batch_size / max(monotonic() - then, 1e-9)

    def boundary(self, loop: Loop) -> None:
        """Do nothing: the bar moves with the training rows."""
