"""One watched run from beginning to end: starts the watcher with torch, judges, merges children."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING

from brickyard.doctor.children import Children, Merged
from brickyard.doctor.finding import Finding, Report, ordered
from brickyard.doctor.hook.brickyard_hook import when_imported
from brickyard.errors import near
from brickyard.reading import Verdict

if TYPE_CHECKING:
    from brickyard.doctor.observe.watcher import Watcher


class Session:
    """Watch whatever trains between :meth:`open` and :meth:`close`.

    Args:
        steps: stop watching after so many optimizer steps; None watches to the end.
        on_limit: gets the report when that limit is reached.
        folder: where children of an outer session leave their findings; empty for one's own.
        light: judge once, at the end, and leave processes that the watched one starts alone.
        on_judged: called when what was seen has been judged during the run.
        ignore: names of checks whose findings are left out.

    Raises:
        ValueError: there is no check of such a name.
    """

    def __init__(
        self, steps: int | None = None, on_limit: Callable[[Report], None] | None = None,
        folder: str = "", light: bool = False, on_judged: Callable[[], None] | None = None,
        ignore: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.steps = steps
        self.on_limit = on_limit
        self.light = light
        self.on_judged = on_judged
        self.ignore = frozenset(ignore)
        if self.ignore:
            _known(self.ignore)
        self.limited = False
        self.watcher: Watcher | None = None
        self.children = Children(folder, steps)
        self._begun = 0.0
        self._seconds: float | None = None
        self._findings: dict[tuple[str, str, str, int], Finding] = {}
        self._times: dict[tuple[str, str, str, int], tuple[int, int]] = {}
        self._undo: Callable[[], None] | None = None
        self._merged = Merged([])
        self._last: Report | None = None  # what was said at the end

    def open(self) -> None:
        """Begin: at once when torch is imported, otherwise as soon as it is."""
        self._begun = perf_counter()
        if not self.light:
            self.children.open()
        if "torch" in sys.modules:
            self._start()
        else:
            self._undo = when_imported("torch", self._start)

    def _start(self) -> None:
        from brickyard.doctor.observe.watcher import Watcher

        # a few steps are judged once, at their end
        check = None if self.light else self._checked
        self.watcher = Watcher(self.steps, on_limit=self._reached, on_check=check)
        self.watcher.start()

    def _reached(self) -> None:
        """Stop watching at the limit of steps and hand out the report."""
        self.limited = True
        self._seconds = perf_counter() - self._begun
        report = self.report()
        if self.on_limit is not None:
            self.on_limit(report)

    def close(self, finished: bool = True) -> Report:
        """End: undo everything and return the report.

        Args:
            finished: the run came to its own end; False when it failed or was interrupted.
        """
        if self._undo is not None:
            self._undo()
            self._undo = None
        if self.watcher is not None:
            self.watcher.seen.finished = finished and not self.limited
            self.watcher.stop()
        self.children.close()
        if self._seconds is None:
            self._seconds = perf_counter() - self._begun
        self._merged = self.children.merged()
        self._last = None
        self._last = self.report()
        self.children.remove()
        return self._last

    def report(self, judge: bool = True) -> Report:
        """Return what is known so far.

        Args:
            judge: look at all that was seen once more; False takes the last judgement.
        """
        if self._last is not None:
            return self._last
        seconds = self._seconds
        if seconds is None:
            seconds = perf_counter() - self._begun
        merged, watcher = self._merged, self.watcher
        if watcher is None:
            return Report(
                seconds=seconds, steps=merged.steps, overhead=merged.overhead,
                findings=self._told(merged.findings), problems=sorted({*merged.problems}),
                verdict=merged.verdict,
            )  # fmt: skip
        if judge:
            self._judge()
        run = (watcher.ended or perf_counter()) - watcher.begun - watcher.own
        own = watcher.own / max(run, 1e-9)
        findings = self._told([*self._findings.values(), *merged.findings])
        return Report(
            steps=max(watcher.seen.step, merged.steps),
            overhead=own if watcher.seen.step else max(own, merged.overhead),
            findings=findings,
            problems=sorted({*watcher.problems.items(), *merged.problems}),
            seconds=seconds,
            verdict=self._verdict(findings) or merged.verdict,
        )

    def _told(self, findings: list[Finding]) -> list[Finding]:
        """Return findings in order, without those that nobody wants to hear of."""
        return ordered(f for f in findings if f.check not in self.ignore)

    def _verdict(self, findings: list[Finding]) -> Verdict | None:
        """Read the curves, unless only their beginning was watched."""
        from brickyard.doctor.curve import read

        watcher = self.watcher
        if watcher is None or self.limited or self.light:
            return None
        with watcher.own_time("curves"):
            return read(watcher.seen, findings)

    def _checked(self) -> None:
        """Judge during the run, and tell who wants to know."""
        self._judge()
        if self.on_judged is not None:
            self.on_judged()

    def _judge(self) -> None:
        """Judge all that was seen; a finding keeps the step at which it was first made."""
        from brickyard.doctor.checks import judge

        watcher = self.watcher
        if watcher is None:
            return
        seen = watcher.seen
        findings: dict[tuple[str, str, str, int], Finding] = {}
        for finding in judge(seen, watcher.problem):
            step = finding.step or seen.step
            first = self._times.setdefault(finding.key, (step, seen.epoch_of(step)))
            findings.setdefault(finding.key, finding.at(*first))
        self._findings = findings


def _known(names: Iterable[str]) -> None:
    """Refuse names that no check has."""
    from brickyard.doctor.checks import CHECKS

    for name in names:
        if name not in CHECKS:
            raise ValueError(f"there is no check {name!r} to ignore{near(name, CHECKS)}")
