"""Decide when a run is saved and what of it stays, and go on when it cannot be saved just now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter as now
from typing import Any

from brickyard.errors import RunError
from brickyard.runs import METRICS, RunFolder
from brickyard.schedules import Length
from brickyard.train.checkpoint import Checkpoints, Retention, Scored
from brickyard.train.loggers import Rows
from brickyard.train.loop import State
from brickyard.train.setup import Setup
from brickyard.train.snapshot import capture, together

__all__ = ["Keeper"]


class Keeper:
    """Write a run's checkpoints.

    A checkpoint on the way that cannot be written, as on a full disk, is told once, and training
    goes on: what is trained is not lost while the process lives, there may be room again, and the
    checkpoints already there are whole. The one at the end of a run is an error: there is no later
    one, and the process is about to take the weights with it.

    Args:
        setup: what is trained.
        run: where it is written down.
        state: where the run stands.
        writer: of the metrics; no checkpoint is written without the rows before it.
        warn: shows a text to the user.
    """

    def __init__(
        self, setup: Setup, run: RunFolder, state: State, writer: Rows,
        warn: Callable[[str], None],
    ):  # fmt: skip
        self.setup, self.folder, self.state = setup, run, state
        self.writer, self.warn = writer, warn
        keep, often = setup.recipe.keep, setup.recipe.checkpoint_every
        self._milestones = self._steps(keep.every) if keep.every else 0
        timed = isinstance(often, str) and often.endswith("s")
        self._seconds = float(str(often)[:-1]) if timed else 0.0
        setup.parts.checkpoint_every = 0 if timed else self._steps(often)
        setup.parts.keep_every = self._milestones
        self.checkpoints = Checkpoints(
            run.checkpoints, Retention(keep.last, keep.best, self._milestones, setup.evaluator.mode)
        )
        self._waiting: list[Scored] = []  # among the best, for the next checkpoint
        self._newest: Scored | None = None  # the latest of them
        self._failed = 0  # checkpoints in a row that could not be written
        self._saved_at, self._saved_step = now(), -1

    def _steps(self, length: int | str) -> int:
        return Length.parse(length).steps(epoch=self.setup.parts.epoch_steps)

    def judged(self, epochs: float, values: Mapping[str, float], raw: Mapping[str, float]) -> None:
        """Keep weights that are among the best in memory, for the next checkpoint.

        Args:
            epochs: trained so far.
            values: of the weights that are in the model now.
            raw: of the trained weights, where those are an average.
        """
        weights, ranks = self.setup.parts.model.state_dict(), self.setup.parts.ranks
        if ranks is not None:
            weights = ranks.whole(weights)
            if not ranks.leads:
                return
        monitor = self.setup.evaluator.monitor
        found = Scored(self.state.step, monitor, values[monitor])
        self._waiting = self.checkpoints.among_best([*self._waiting, found])
        if not any(one is found for one in self._waiting):
            return
        found.state = {
            "step": self.state.step, "epoch": epochs, "val": dict(values),
            **({"raw": dict(raw)} if raw else {}),
            "model": {name: value.clone() for name, value in weights.items()},
        }  # fmt: skip
        self._newest = found

    def boundary(self) -> None:
        """Save when it is time to; a failure is told, and training goes on."""
        often = self.setup.parts.checkpoint_every
        if self._seconds:
            due = now() - self._saved_at >= self._seconds
        else:
            due = bool(often) and self.state.step % often == 0
        due = due or self._stays()
        if self.setup.parts.ranks is not None:  # their clocks differ
            due = self.setup.parts.ranks.decide(due)
        if not due:
            return
        try:
            self.save()
        except RunError as error:
            self._saved_at = now()
            if not self._failed:
                self.warn(f"{error}; training goes on, and the next checkpoint is tried")
            self._failed += 1

    def _stays(self) -> bool:
        """Say whether the recipe keeps a checkpoint of this step for good."""
        return bool(self._milestones) and self.state.step % self._milestones == 0

    def save(self) -> None:
        """Write the last checkpoint, and the best weights when there are newer ones.

        Raises:
            RunError: it cannot be written; what was there is intact.
        """
        ranks = self.setup.parts.ranks
        known = self.state.step == self._saved_step and not self._waiting
        if known if ranks is None else ranks.decide(known):
            return
        start = now()
        last = capture(self.setup, self.state)
        if ranks is not None:
            last = together(last, self.checkpoints.folder, ranks)
            if not ranks.leads:
                return
        try:
            self.writer.flush(sync=True)
        except OSError as error:
            raise RunError(
                f"cannot write {self.folder.path / METRICS}: {error.strerror or error}; no "
                "checkpoint is written without it, and those already there are intact"
            ) from error
        states, stays = {"last": last}, self._stays()
        self.checkpoints.save(states, self.state.step, self._waiting, milestone=stays)
        self._waiting = []
        self._saved_at, self._saved_step = now(), self.state.step
        self.state.seconds["checkpoint"] += now() - start
        if self._failed:
            self.warn(f"checkpoints are written again ({self._failed} could not be)")
            self._failed = 0

    def best(self) -> dict[str, Any] | None:
        """Return the best weights of the run and their values; None when they are lost."""
        ranked = self.checkpoints.entries().get("best")
        if self._newest is not None and ranked is not None and ranked.step == self._newest.step:
            return self._newest.state
        try:
            best, warning = self.checkpoints.load_best()
        except RunError as error:
            self.warn(f"{error}; the run ends with its last weights instead of its best ones")
            return None
        if warning:
            self.warn(warning)
        return best
