"""Watch processes that the watched one starts, and merge what they find.

Processes started by ``multiprocessing`` (and ``torch.multiprocessing``) run their target inside a
session of their own; pythons started by ``subprocess``, ``os.system`` or a launcher such as
``torch.distributed.run`` begin one when they import torch. Each leaves its findings in a folder as
soon as there are any, so that those of a process that is killed are known, too. Workers of data
loaders are left alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from multiprocessing import process
from typing import Any

from brickyard.doctor.finding import Finding
from brickyard.doctor.hook import brickyard_hook as hook
from brickyard.doctor.observe.record import Note, Seen
from brickyard.reading import Verdict

# --- In the child ---------------------------------------------------------------------------------


class Leaving:
    """Watch this process, and leave what is found in the folder of the one that started it.

    Args:
        told: ``STEPS:FOLDER``, as the parent says it.
    """

    def __init__(self, told: str) -> None:
        from brickyard.doctor.session import Session

        steps, _, self.folder = told.partition(":")
        self.pid = os.getpid()
        self.rank: int | None = None
        handle, self.name = tempfile.mkstemp(".part", f"child-{self.pid}-", self.folder)
        os.close(handle)
        self.session = Session(steps=int(steps) or None, folder=self.folder, on_judged=self._write)
        self.session.open()

    def end(self) -> None:
        """Stop watching and leave the last word; a fork of this process says nothing."""
        if self.pid == os.getpid():
            with contextlib.suppress(Exception):
                self.session.close(finished=not hasattr(sys, "last_type"))
                self._write()

    def _write(self) -> None:
        """Write what is known so far; the folder may be gone when the parent ended first."""
        with contextlib.suppress(OSError):
            report, watcher = self.session.report(judge=False), self.session.watcher
            found = {
                "pid": self.pid, "rank": self._rank(), "script": sys.argv[0] if sys.argv else "",
                "steps": report.steps, "overhead": report.overhead, "problems": report.problems,
                "findings": [{**f.to_dict(), "weight": f.weight} for f in report.findings],
                "verdict": asdict(report.verdict) if report.verdict else None,
                "replicas": watcher.swaps.ranks() if watcher else {},
            }  # fmt: skip
            with open(self.name, "w", encoding="utf-8") as file:
                json.dump(found, file)
            os.replace(self.name, self.name.removesuffix(".part") + ".json")

    def _rank(self) -> int | None:
        """Return this process's rank, also when its group is gone already."""
        distributed = sys.modules.get("torch.distributed")
        if self.rank is None and distributed is not None and distributed.is_available():
            if distributed.is_initialized():
                self.rank = int(distributed.get_rank())
            elif os.environ.get("RANK", "").isdigit():
                self.rank = int(os.environ["RANK"])
        return self.rank


def follow(told: str) -> None:
    """Watch this process to its end: called when a child has imported torch.

    Args:
        told: ``STEPS:FOLDER``, as the parent says it.
    """
    if os.path.isdir(told.partition(":")[2]):  # else the parent ended: nobody would read it
        atexit.register(Leaving(told).end)


class Target:
    """Call a process's function watched; picklable as long as the function is."""

    def __init__(self, function: Callable[..., Any], told: str) -> None:
        self.function = function
        self.told = told

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function and leave the findings."""
        leaving = None
        with contextlib.suppress(Exception):
            _leave_parents()
            leaving = Leaving(self.told)
        try:
            return self.function(*args, **kwargs)
        finally:
            if leaving is not None:
                leaving.end()


def _leave_parents() -> None:
    """Take back what a fork copied from the parent."""
    if "torch" not in sys.modules:
        return
    from brickyard.doctor.observe import watcher

    for one in list(watcher._ACTIVE):
        one.active = False
        one.patches.undo()
    watcher._ACTIVE.clear()


# --- In the parent --------------------------------------------------------------------------------


class Children:
    """Follow the processes started while a session is open.

    Args:
        folder: of an outer session, for its children's children; a new one if empty.
        steps: how many steps of each child are watched; None for all.
    """

    def __init__(self, folder: str = "", steps: int | None = None) -> None:
        self.folder = folder
        self.steps = steps
        self._own = False
        self._undo: list[Callable[[], None]] = []

    def open(self) -> None:
        """Begin."""
        self._replace(process.BaseProcess, "start", self._starting)
        self._replace(subprocess.Popen, "__init__", lambda old: hook.starting(old, self._told))
        self._replace(os, "system", self._system)

    def _replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        new = make(original)
        setattr(owner, name, new)

        def undo() -> None:
            if getattr(owner, name) is new:
                setattr(owner, name, original)

        self._undo.append(undo)

    def _starting(self, original: Any) -> Any:
        def start(child: Any) -> None:
            target = getattr(child, "_target", None)
            loader = getattr(target, "__module__", "").startswith("torch.utils.data")
            if target is None or loader or isinstance(target, Target):
                return original(child)
            child._target = Target(target, self._told())
            try:
                original(child)
            finally:
                child._target = target

        return start

    def _system(self, original: Any) -> Any:
        def system(command: Any) -> int:
            names = (hook.NAME, hook.PATHS)
            given = hook.lent(None, self._told())
            for name in names:
                os.putenv(name, given[name])
            try:
                return original(command)
            finally:
                for name in names:
                    if name in os.environ:
                        os.putenv(name, os.environ[name])
                    else:
                        os.unsetenv(name)

        return system

    def _told(self) -> str:
        """Return what children are told; the folder is made when the first one starts."""
        if not self.folder:
            self.folder = tempfile.mkdtemp(prefix="brickyard-doctor-")
            self._own = True
        return f"{self.steps or 0}:{self.folder}"

    def close(self) -> None:
        """End: children started later are not watched."""
        while self._undo:
            self._undo.pop()()

    def merged(self) -> Merged:
        """Return what the children left."""
        return Merged(list(self._reports()) if self._own else [])

    def _reports(self) -> Iterator[dict[str, Any]]:
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".json"):
                with (
                    contextlib.suppress(OSError, ValueError),
                    open(os.path.join(self.folder, name), encoding="utf-8") as file,
                ):
                    yield json.load(file)

    def remove(self) -> None:
        """Remove the folder."""
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder, self._own = "", False


class Merged:
    """Hold what several processes found; each finding once, with the processes it was made in.

    Args:
        reports: what each left.
    """

    def __init__(self, reports: list[dict[str, Any]]) -> None:
        self.reports = sorted(reports, key=lambda r: (r.get("rank") is None, r.get("rank") or 0))
        self.steps = max((r.get("steps", 0) for r in reports), default=0)
        self.overhead = max((r.get("overhead", 0.0) for r in reports), default=0.0)
        self.problems = [(str(n), str(t)) for r in reports for n, t in r.get("problems", ())]

    @property
    def findings(self) -> list[Finding]:
        """Return the findings, each of which names the processes it was made in."""
        made: dict[Any, tuple[Finding, list[dict[str, Any]]]] = {}
        for report in self.reports:
            for data in report.get("findings", ()):
                finding = Finding.from_dict(data)
                made.setdefault(finding.key, (finding, []))[1].append(report)
        found = [replace(f, evidence=f"{f.evidence} {_who(which)}") for f, which in made.values()]
        return [*found, *self._replicas()]

    @property
    def verdict(self) -> Verdict | None:
        """Return what the curves say of the first process, by rank, that trained."""
        said = next((r["verdict"] for r in self.reports if r.get("verdict")), None)
        return Verdict(**{**said, "evidence": tuple(said["evidence"])}) if said else None

    def _replicas(self) -> list[Finding]:
        """Compare the weights of processes after the same step."""
        from brickyard.doctor.checks import CHECKS

        tables = [r["replicas"]["steps"] for r in self.reports if r.get("replicas")]
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


def _who(reports: list[dict[str, Any]]) -> str:
    """Name the processes that made a finding: by rank where they have one, and by number."""
    ranks = [str(r["rank"]) for r in reports if r.get("rank") is not None]
    ids = ", ".join(str(r["pid"]) for r in reports[:4]) + (", ..." if len(reports) > 4 else "")
    ids = f"process{'es' * (len(reports) > 1)} {ids}"
    if len(ranks) == len(reports):
        ids = f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks)}: {ids}"
    return f"({ids})"
