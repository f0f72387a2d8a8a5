"""Watch processes that the watched one starts, and merge what they find.

``multiprocessing`` (and ``torch.multiprocessing``) children run their target inside a session of
their own and leave its findings in a folder. Workers of data loaders are left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from multiprocessing import process
from typing import Any

from brickyard.doctor.finding import Finding
from brickyard.doctor.observe.record import Note, Seen


class Target:
    """Call a process's function watched; picklable as long as the function is."""

    def __init__(self, function: Callable[..., Any], folder: str) -> None:
        self.function = function
        self.folder = folder

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function and leave the findings."""
        from brickyard.doctor.session import Session

        session = None
        with contextlib.suppress(Exception):
            _leave_parents()
            session = Session(folder=self.folder)
            session.open()
        try:
            return self.function(*args, **kwargs)
        finally:
            if session is not None:
                with contextlib.suppress(Exception):
                    report = session.close()
                    _write(self.folder, {
                        "pid": os.getpid(), "steps": report.steps, "problems": report.problems,
                        "findings": [{**f.to_dict(), "weight": f.weight} for f in report.findings],
                        "ranks": session.watcher.swaps.ranks() if session.watcher else {},
                    })  # fmt: skip


def _leave_parents() -> None:
    """Take back what a fork copied from the parent."""
    from brickyard.doctor.observe import watcher

    for one in list(watcher._ACTIVE):
        one.active = False
        one.patches.undo()
    watcher._ACTIVE.clear()


def _write(folder: str, found: dict[str, Any]) -> None:
    handle, name = tempfile.mkstemp(dir=folder, prefix="child-", suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(found, file)
    os.replace(name, name.removesuffix(".part") + ".json")


class Children:
    """Follow the processes started while a session is open.

    Args:
        folder: of an outer session, for its children's children; a new one if empty.
    """

    def __init__(self, folder: str = "") -> None:
        self.folder = folder
        self._own = False
        self._original: Any = None

    def open(self) -> None:
        """Begin."""
        original = process.BaseProcess.start
        self._original = original
        mine = self

        def start(child: Any) -> None:
            target = getattr(child, "_target", None)
            loader = getattr(target, "__module__", "").startswith("torch.utils.data")
            if target is None or loader or isinstance(target, Target):
                return original(child)
            child._target = Target(target, mine._folder())
            try:
                original(child)
            finally:
                child._target = target

        self._start = start
        process.BaseProcess.start = start  # pyright: ignore[reportAttributeAccessIssue]

    def _folder(self) -> str:
        if not self.folder:
            self.folder = tempfile.mkdtemp(prefix="brickyard-doctor-")
            self._own = True
        return self.folder

    def close(self) -> None:
        """End: children started later are not watched."""
        if process.BaseProcess.start is getattr(self, "_start", None):
            process.BaseProcess.start = self._original

    def merged(self) -> tuple[list[Finding], int, list[tuple[str, str]]]:
        """Return the children's findings, their most steps and their problems."""
        reports = self._reports() if self._own else []
        findings: dict[Any, Finding] = {}
        problems = []
        for report in reports:
            for data in report["findings"]:
                finding = Finding.from_dict(data)
                findings.setdefault(finding.key, finding)
            problems += [(str(name), str(text)) for name, text in report["problems"]]
        found = list(findings.values()) + self._replicas([r["ranks"] for r in reports])
        return found, max((r["steps"] for r in reports), default=0), problems

    def _reports(self) -> list[dict[str, Any]]:
        found = []
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".json"):
                with (
                    contextlib.suppress(OSError, ValueError),
                    open(os.path.join(self.folder, name), encoding="utf-8") as file,
                ):
                    found.append(json.load(file))
        return found

    def _replicas(self, ranks: list[dict[str, Any]]) -> list[Finding]:
        """Compare the weights of processes after the same step."""
        from brickyard.doctor.checks import CHECKS

        tables = [r["steps"] for r in ranks if r]
        differ: dict[str, list[str]] = {}
        for step in sorted(set.intersection(*map(set, tables)), key=int) if len(tables) > 1 else ():
            first = tables[0][step]
            apart = [n for n in first if any(t[step].get(n) != first[n] for t in tables[1:])]
            if apart:
                differ[step] = apart
        if len(differ) < 2:
            return []
        step, apart = next(iter(differ.items()))
        values = {
            "at": int(step), "differ": len(apart), "params": len(tables[0][step]),
            "ranks": len(tables), "name": apart[0],
        }  # fmt: skip
        seen = Seen()
        seen.notes["replicas-differ"] = {
            0: Note("replicas-differ", apart[0], step=int(step), values=values)
        }
        return CHECKS["replica-divergence"].findings(seen)

    def remove(self) -> None:
        """Remove the folder."""
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder, self._own = "", False
