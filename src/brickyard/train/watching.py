"""Let the doctor look at a run's first steps, and write down what it finds.

The light set: the first steps are looked at closely, as ``brickyard doctor run`` does, with all
checks that so few steps can answer; then every hook is taken back, so that all later steps cost
nothing. What shows only later (a loss that diverges, units that die) the loop itself and the
verdict on the page tell. Nothing that the doctor does changes the run, and no error of its own
ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from brickyard.doctor.finding import Finding, Report
from brickyard.errors import RunError
from brickyard.runs import FINDINGS, RunFolder
from brickyard.train.loop import State
from brickyard.train.setup import Setup


class Watching:
    """Watch the first steps of a run, and keep its findings.

    Args:
        setup: what is trained.
        run: gets ``findings.json``.
        state: where the run goes on from; a resumed run was watched before.
        tell: gets a line for every error and warning, as soon as it is found.
    """

    def __init__(self, setup: Setup, run: RunFolder, state: State, tell: Callable[[str], None]):
        ranks = setup.parts.ranks
        self.setup, self.run, self.tell = setup, run, tell
        self.leads = ranks is None or ranks.leads
        self.resumed = state.step > 0
        self.found: list[dict[str, Any]] = []
        if self.resumed:
            self.found = [one for one in _read(run) if not _among(one, setup.findings)]

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Return what was found before training and in its first steps."""
        return [*self.setup.findings, *self.found]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch what trains inside the block until the first steps are over."""
        session = None
        with suppress(Exception):
            session = self._open()
        if session is None:
            yield
            return
        try:
            yield
        finally:
            with suppress(Exception):
                if session.limited:
                    session.close(finished=False)
                else:  # it ended before the limit
                    self._ended(session.close(finished=False))

    def _open(self) -> Any:
        """Begin to watch; None where there is nothing to watch, or somebody watches already."""
        if not (self.setup.recipe.doctor and self.leads) or self.resumed:
            return None
        from brickyard.doctor import thresholds as T
        from brickyard.doctor.observe import watcher
        from brickyard.doctor.observe.places import user_place
        from brickyard.doctor.session import Session

        model, ranks = self.setup.parts.model, self.setup.parts.ranks
        if watcher.active() is not None or any(
            hasattr(p, "placements") for p in model.parameters()
        ):
            return None  # reading a sharded weight is a question to the other processes
        caller = user_place()
        self._outside = (caller.file, caller.line)
        session = Session(steps=T.FIRST_STEPS, on_limit=self._ended, light=True)
        session.open()
        if session.watcher is not None:
            session.watcher.introduce(model)
            if self.setup.recipe.compile:
                session.watcher.compiled()
            if ranks is not None:  # a forward pass of one process alone would wait for the others
                session.watcher.probes.asks = False
        return session

    def _ended(self, report: Report) -> None:
        """Write the findings down, and tell the grave ones."""
        placed = replace(report, findings=[self._placed(one) for one in report.findings])
        written = {**placed.to_dict(), "script": self.setup.recipe.name}
        self.found = written["findings"]
        for one in self.found:
            if one["severity"] != "info":
                self.tell(_in_words(one))
        before = [Finding.from_dict(one).to_dict() for one in self.setup.findings]
        written["findings"] = [*before, *self.found]
        with suppress(OSError):  # the summary has them, too: no need to wait for the disk
            self.run.write_json(FINDINGS, written, flush=False)

    def _placed(self, found: Finding) -> Finding:
        """Return a finding without a place where that is only the line that calls the trainer."""
        if (found.file, found.line) != self._outside:
            return found
        return replace(found, file="", line=0)


def _read(run: RunFolder) -> list[dict[str, Any]]:
    """Return the findings of the part of a run before it was resumed."""
    with suppress(RunError, OSError):
        return [one for one in run.findings().get("findings", []) if isinstance(one, dict)]
    return []


def _among(one: dict[str, Any], others: list[dict[str, str]]) -> bool:
    return any(all(one.get(k) == other[k] for k in ("check", "where")) for other in others)


def _in_words(found: dict[str, Any]) -> str:
    """Return a finding as one line."""
    at = f"{found['file']}:{found['line']}" if found["file"] else ""
    place = ", ".join(filter(None, (found["where"], at)))
    said = f"{found['severity']}: doctor: {found['check']}{f' ({place})' if place else ''}: "
    return f"{said}{found['evidence'].rstrip('.')}. Try: {found['try']}"
