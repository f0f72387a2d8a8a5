"""Write checkpoints that a kill cannot damage, and read them with their checksums verified.

``manifest.json`` names the files by role with their SHA-256. A checkpoint is written under a new
name and flushed; then the manifest is replaced in one step; only then are the files removed that
no manifest names. Whenever the process dies, the manifest names whole files.

===============  ==================================================================================
``last``         the newest resume point: everything that decides the next step
``previous``     the one before it, then ``previous-2`` and so on: as many as ``keep.last`` says
``step-N``       resume points that stay for good, at the distance that ``keep.every`` says
``best``         weights of the best evaluation, then ``best-2`` and so on, by the metric's value
``ensemble``     weights of all members, of recipes that make an ensemble of snapshots
===============  ==================================================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from brickyard.errors import RunError
from brickyard.runs import RECIPE, atomic_write
from brickyard.train.manifest import (
    FORMAT,
    Entries,
    Entry,
    ManifestDamaged,
    best_role,
    checksum,
    is_ours,
    last_role,
    line,
    milestones,
    read_manifest,
    rebuild,
    replaced,
    step_role,
    without,
    worth,
    write_manifest,
)

__all__ = ["FORMAT", "Checkpoints", "Entry", "Retention", "Scored"]


@dataclass(frozen=True)
class Retention:
    """Say how many checkpoints stay.

    Args:
        last: resume points; with 2 or more there is one to go on from when the newest is damaged.
        best: weights of the best evaluations.
        every: steps between resume points that are never removed; 0 for none.
        mode: ``"min"`` or ``"max"``: what is good for the metric of the best ones.
    """

    last: int = 2
    best: int = 1
    every: int = 0
    mode: str = "min"


@dataclass
class Scored:
    """Hold weights that may be among the best.

    Args:
        step: after which they were evaluated.
        metric: its name.
        value: what it was.
        state: what to write; may be filled in once it is known that they rank.
    """

    step: int
    metric: str
    value: float
    state: dict[str, Any] | None = None


class _Hashing:
    """Pass bytes on to a file, hash them on the way, and remember what went wrong."""

    def __init__(self, file: Any):
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is not None:  # torch writes on after an error, to close its archive
            raise self.error
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes

    def flush(self) -> None:
        self._file.flush()


class Checkpoints:
    """Keep the checkpoints of one run.

    Args:
        folder: where they are.
        retention: how many stay.
    """

    def __init__(self, folder: Path, retention: Retention | None = None):
        self.folder = folder
        self.retention = retention or Retention()
        #: Files that could not be read; the next save takes them out of the manifest.
        self.unreadable: set[str] = set()
        self._best: list[Entry] | None = None  # as the manifest has them; read once

    def entries(self) -> Entries:
        """Return what the manifest names, by role.

        Raises:
            RunError: the manifest cannot be read.
        """
        return read_manifest(self.folder)

    def _known(self) -> tuple[Entries, str]:
        """Return the manifest's entries, or those found without it and a sentence on that."""
        try:
            entries, why = self.entries(), ""
        except ManifestDamaged as error:
            entries, why = {}, str(error)
        if entries:
            return entries, ""
        found, bad = rebuild(self.folder)
        if every := self.retention.every:
            points = _line_of_points(found)
            found |= {step_role(e.step): e for e in points if e.step % every == 0}
        if not found and not bad:
            return {}, why
        why = why or f"{self.folder} has checkpoints and no manifest.json"
        left = f", without {', '.join(bad)}, which cannot be read" if bad else ""
        return found, f"{why}; read from the files themselves{left}"

    def save(
        self, states: dict[str, dict[str, Any]], step: int, best: Sequence[Scored] = (),
        milestone: bool = False,
    ) -> None:  # fmt: skip
        """Write checkpoints at once, and then remove what the retention says.

        Args:
            states: what to write, by role: ``last``, or a role of its own.
            step: the step that they belong to.
            best: weights that may be among the best; those that are not are left out.
            milestone: let ``last`` stay for good.

        Raises:
            RunError: the disk is full or the folder cannot be written; what was there is intact.
        """
        try:
            entries = without(self._known()[0], self.unreadable)
            for role, state in states.items():
                if role != "last":
                    entries[role] = self._write(role, state, step)
            if "last" in states:
                made = self._write("step", states["last"], step)
                # Later steps than this one are of a past that a resume has left.
                points = [made, *(e for e in _line_of_points(entries) if e.step < step)]
                entries = replaced(entries, last_role, points[: self.retention.last])
                if milestone:
                    entries[step_role(step)] = made
            ranked = [one if isinstance(one, Entry) else self._write_scored(one)
                      for one in self._ranked(_line_of_best(entries), best)]  # fmt: skip
            entries = replaced(entries, best_role, ranked)
            write_manifest(self.folder, entries)
        except OSError as error:
            self._tidy()
            raise RunError(
                f"cannot write a checkpoint into {self.folder}: {error.strerror or error}; "
                "the checkpoints already there are intact"
            ) from error
        self.unreadable.clear()
        self._best = None
        self._tidy()
        self._link(
            {role: e.file for role, e in entries.items() if role in ("last", "best", "ensemble")}
        )

    def _ranked(self, best: list[Entry], candidates: Sequence[Scored]) -> list[Entry | Scored]:
        steps = {one.step for one in candidates}
        old = [e for e in best if e.step not in steps and e.file not in self.unreadable]
        sign = 1.0 if self.retention.mode == "min" else -1.0
        both: list[Entry | Scored] = [*old, *candidates]
        return sorted(both, key=lambda one: worth(one.value, sign, one.step))[: self.retention.best]

    def among_best(self, candidates: Sequence[Scored]) -> list[Scored]:
        """Return those candidates that the next save would keep."""
        if self._best is None:
            self._best = _line_of_best(self._known()[0])
        ranked = self._ranked(self._best, candidates)
        return [one for one in ranked if isinstance(one, Scored)]

    def _write_scored(self, one: Scored) -> Entry:
        rank = {"metric": one.metric, "value": one.value, "mode": self.retention.mode}
        state = {**rank, **(one.state or {})}
        made = self._write("best", state, one.step)
        return Entry(made.file, made.step, made.sha256, made.bytes, one.metric, one.value)

    def _write(self, kind: str, state: dict[str, Any], step: int) -> Entry:
        path = self.folder / f"{kind}-{step:08d}.pt"
        if path.exists():  # never write over a file that a manifest may name
            path = self.folder / f"{kind}-{step:08d}-{os.urandom(4).hex()}.pt"
        with atomic_write(path, "wb") as file:
            hashing = _Hashing(file)
            try:
                torch.save({"format": FORMAT, **state}, hashing)  # pyright: ignore
            except RuntimeError:
                if hashing.error is None:
                    raise
            if hashing.error is not None:  # torch tells of it as a failure to close its archive
                raise hashing.error
        shards = state.get("shards", {}).get("folder", "")
        return Entry(path.name, step, hashing.digest.hexdigest(), hashing.size, shards=shards)

    def _tidy(self) -> None:
        """Remove what the manifest does not name; what cannot be removed now goes the next time."""
        with contextlib.suppress(OSError, RunError):
            named = {entry.file for entry in self.entries().values()}
            cut = {entry.shards for entry in self.entries().values()}
            for path in self.folder.iterdir():
                if named and path.name.startswith("shards-") and path.name not in cut:
                    shutil.rmtree(path, ignore_errors=True)
                if named and is_ours(path) and path.name not in named:
                    path.unlink(missing_ok=True)

    def _link(self, files: dict[str, str]) -> None:
        """Point ``last.pt`` and ``best.pt`` at the newest files, for people; code reads names."""
        for role, name in files.items():
            link, fresh = self.folder / f"{role}.pt", self.folder / f".{role}.link.tmp"
            with contextlib.suppress(OSError):  # no symbolic links here: the manifest has it all
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(name)
                os.replace(fresh, link)

    def any(self, role: str = "last") -> bool:
        """Say whether there is such a checkpoint, or a file that may be one.

        Raises:
            RunError: a newer version wrote the manifest.
        """
        entries, why = self._known()
        return role in entries or bool(why)

    def load(self, role: str) -> dict[str, Any]:
        """Read a checkpoint after verifying its checksum; nothing in it is executed.

        Args:
            role: such as ``last``, ``best`` or ``step-500``.

        Raises:
            RunError: there is none, or it is missing, cut off, damaged or something else.
        """
        entries, _ = self._known()
        if role not in entries:
            raise RunError(f"{self.folder} has no {role!r} checkpoint: none was written yet")
        return self._read(role, entries[role])

    def _read(self, role: str, entry: Entry) -> dict[str, Any]:
        path = self.folder / entry.file
        try:
            return _verified(f"the {role!r} checkpoint {path}", path, entry)
        except RunError:
            self.unreadable.add(entry.file)
            raise

    def load_last(self) -> tuple[dict[str, Any], str]:
        """Read the newest resume point that is whole.

        Returns:
            The state, and a warning to show (empty when all is well).

        Raises:
            RunError: none can be read.
        """
        return self._first("last", _line_of_points)

    def load_best(self) -> tuple[dict[str, Any], str]:
        """Read the best weights that are whole.

        Returns:
            The state, and a warning to show (empty when all is well).

        Raises:
            RunError: none can be read.
        """
        return self._first("best", _line_of_best)

    def _first(self, role: str, choose: Any) -> tuple[dict[str, Any], str]:
        """Return the first readable one of a line; files that no manifest names come last."""
        entries, why = self._known()
        told = [why] if why else []
        tried: set[str] = set()
        for source in (entries, None):
            many: Iterable[Entry] = choose(rebuild(self.folder)[0] if source is None else source)
            for entry in many:
                if entry.file in tried:
                    continue
                tried.add(entry.file)
                try:
                    state = self._read(role, entry)
                except RunError as error:
                    told.append(str(error))
                    continue
                if told:
                    told.append(f"taken instead: {entry.file}, of step {entry.step}")
                return state, "; ".join(told)
        nothing = f"{self.folder} has no {role!r} checkpoint: none was written yet"
        again = f": brickyard train {self.folder.parent / RECIPE} begins anew"
        lost = f"and no other can be read{again if role == 'last' else ''}"
        raise RunError("; ".join([*told, lost]) if told else nothing)


def _line_of_points(entries: Entries) -> list[Entry]:
    """Return all resume points, the newest first."""
    found = {e.file: e for e in [*line(entries, last_role), *milestones(entries)]}
    return sorted(found.values(), key=lambda entry: -entry.step)


def _line_of_best(entries: Entries) -> list[Entry]:
    """Return the best weights, the best first."""
    return line(entries, best_role)


def _verified(what: str, path: Path, entry: Entry) -> dict[str, Any]:
    try:
        found, size = checksum(path), path.stat().st_size
    except FileNotFoundError:
        raise RunError(f"{what} is missing") from None
    except OSError as error:
        raise RunError(f"{what} cannot be read: {error.strerror or error}") from None
    if found != entry.sha256:
        raise RunError(
            f"{what} is damaged: its SHA-256 is {found[:12]}..., the manifest says "
            f"{entry.sha256[:12]}... ({size} of {entry.bytes} bytes)"
        )
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # right checksum, and yet not what torch writes
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:120]
        raise RunError(
            f"{what} is no checkpoint: it holds more than tensors and plain values, or was not "
            f"written by torch.save ({reason}); nothing in it was run"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"{what} is no checkpoint of a run that this version can go on with")
    shards = state.get("shards", {"folder": "", "files": {}})
    for name, found in shards["files"].items():
        file = path.parent / shards["folder"] / name
        if not file.is_file() or checksum(file) != found:
            raise RunError(f"{what} is damaged: {file} is missing or not what was written")
    return state
