"""Write checkpoints that a kill cannot damage, and read them with their checksums verified.

``manifest.json`` names the files of ``last`` and ``best`` with their SHA-256. A checkpoint is
written under a new name and flushed; then the manifest is replaced in one step; only then are the
files removed that no manifest names. Whenever the process dies, the manifest names whole files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from brickyard.errors import RunError
from brickyard.runs import atomic_write

MANIFEST = "manifest.json"
FORMAT = 1


class _Hashing:
    """Pass bytes on to a file and hash them on the way."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


@dataclass(frozen=True)
class Entry:
    """Describe one checkpoint file."""

    file: str
    step: int
    sha256: str
    bytes: int


class Checkpoints:
    """Keep the checkpoints of one run.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def entries(self) -> dict[str, Entry]:
        """Return what the manifest names, by role (``last``, ``best``, ``previous``).

        Raises:
            RunError: the manifest cannot be read.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise RunError(
                    f"{path} has format {content['format']}; this version reads {FORMAT}"
                )
            return {role: Entry(**entry) for role, entry in content["entries"].items()}
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunError(f"{path} is damaged ({error}); the run cannot be resumed") from None

    def save(self, states: dict[str, dict[str, Any]], step: int) -> None:
        """Write checkpoints for some roles at once; the others stay.

        Args:
            states: what to save, by role: ``last``, ``best`` or both.
            step: the step that they belong to.

        Raises:
            RunError: the disk is full or the folder cannot be written; what was there is intact.
        """
        try:
            entries = self.entries()
            if "last" in states and "last" in entries:
                entries["previous"] = entries["last"]
            for role, state in states.items():
                entries[role] = self._write(role, state, step)
            with atomic_write(self.folder / MANIFEST) as file:
                content = {role: vars(entry) for role, entry in entries.items()}
                json.dump({"format": FORMAT, "entries": content}, file, indent=1)
        except OSError as error:
            raise RunError(
                f"cannot write a checkpoint into {self.folder}: {error.strerror or error}; "
                "the checkpoints already there are intact"
            ) from error
        self._tidy({entry.file for entry in entries.values()})
        self._link({role: entries[role].file for role in states})

    def _write(self, role: str, state: dict[str, Any], step: int) -> Entry:
        path = self.folder / f"{role}-{step:08d}.pt"
        if path.exists():  # never write over a file that a manifest may name
            path = self.folder / f"{role}-{step:08d}-{os.urandom(4).hex()}.pt"
        with atomic_write(path, "wb") as file:
            hashing = _Hashing(file)
            torch.save(state, hashing)  # pyright: ignore[reportArgumentType]
            size = file.tell()
        return Entry(path.name, step, hashing.digest.hexdigest(), size)

    def _tidy(self, keep: set[str]) -> None:
        for path in self.folder.iterdir():
            stale = path.suffix == ".pt" and not path.is_symlink() and path.name not in keep
            if stale or path.name.endswith(".tmp"):
                path.unlink(missing_ok=True)

    def _link(self, files: dict[str, str]) -> None:
        """Point ``last.pt`` and ``best.pt`` at the newest files, for people; code reads names."""
        for role, name in files.items():
            link, fresh = self.folder / f"{role}.pt", self.folder / f".{role}.link.tmp"
            with contextlib.suppress(OSError):  # no symbolic links here: the manifest has it all
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(name)
                os.replace(fresh, link)

    def load(self, role: str) -> dict[str, Any]:
        """Read a checkpoint after verifying its checksum; nothing in it is executed.

        Raises:
            RunError: there is none, or it is missing, cut off or damaged.
        """
        entry = self.entries().get(role)
        if entry is None:
            raise RunError(f"{self.folder} has no {role!r} checkpoint: none was written yet")
        path = self.folder / entry.file
        if not path.exists():
            raise RunError(f"the {role!r} checkpoint {path} is missing")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry.sha256:
            raise RunError(
                f"the {role!r} checkpoint {path} is damaged: its SHA-256 is {found[:12]}..., "
                f"the manifest says {entry.sha256[:12]}... "
                f"({path.stat().st_size} of {entry.bytes} bytes)"
            )
        return torch.load(path, weights_only=True, map_location="cpu")

    def load_last(self) -> tuple[dict[str, Any], str]:
        """Read the last checkpoint, or the one before it when the last is damaged.

        Returns:
            The state, and a warning to show (empty when all is well).

        Raises:
            RunError: neither can be read.
        """
        try:
            return self.load("last"), ""
        except RunError as error:
            if "previous" not in self.entries():
                raise
            state = self.load("previous")
            return state, f"{error}; going on from the previous one at step {state['step']}"
