"""Name a run's checkpoints with their checksums, and find them again when the list is gone.

``manifest.json`` is the one truth about which file has which role. Where it is damaged or missing,
the files speak for themselves: their names say the kind and the step, and each is a zip archive
whose records carry checksums, so a cut or changed file is told from a whole one all the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from brickyard.errors import RunError
from brickyard.runs import atomic_write

MANIFEST = "manifest.json"
FORMAT = 1

#: Our files; ``last-`` is what ``step-`` was called before there were milestones.
_OURS = re.compile(r"(step|last|best|ensemble)-(\d{8,})(?:-[0-9a-f]{8})?\.pt")


@dataclass(frozen=True)
class Entry:
    """Describe one checkpoint file.

    Args:
        file: its name in the folder.
        step: the step that its weights are of.
        sha256: of the whole file.
        bytes: its size.
        metric: what the best ones are ranked by.
        value: of that metric.
        shards: folder of the tensors that are cut over processes, if there are any.
    """

    file: str
    step: int
    sha256: str
    bytes: int
    metric: str = ""
    value: float | None = None
    shards: str = ""


Entries = dict[str, Entry]


class ManifestDamaged(RunError):  # noqa: N818  says what it is
    """The manifest cannot be read; the files may be whole."""


def last_role(place: int) -> str:
    """Return what the newest resume points are called: last, previous, previous-2 ..."""
    return ("last", "previous")[place] if place < 2 else f"previous-{place}"


def best_role(place: int) -> str:
    """Return what the best weights are called: best, best-2, best-3 ..."""
    return f"best-{place + 1}" if place else "best"


def step_role(step: int) -> str:
    """Return what a resume point that is kept for good is called."""
    return f"step-{step}"


def line(entries: Mapping[str, Entry], role: Callable[[int], str]) -> list[Entry]:
    """Return the entries of roles that stand in a row, the first one first."""
    found = []
    while (name := role(len(found))) in entries:
        found.append(entries[name])
    return found


def replaced(
    entries: Mapping[str, Entry], role: Callable[[int], str], many: Iterable[Entry]
) -> Entries:
    """Return the entries with others in the roles that stand in a row."""
    old = {role(place) for place in range(len(line(entries, role)))}
    rest = {name: entry for name, entry in entries.items() if name not in old}
    return {role(place): entry for place, entry in enumerate(many)} | rest


def without(entries: Mapping[str, Entry], files: Collection[str]) -> Entries:
    """Return the entries of other files; those behind in a row move up."""
    found = dict(entries)
    for role in (last_role, best_role):
        found = replaced(found, role, [e for e in line(found, role) if e.file not in files])
    return {role: entry for role, entry in found.items() if entry.file not in files}


def milestones(entries: Mapping[str, Entry]) -> list[Entry]:
    """Return the resume points that are kept for good, the newest first."""
    found = [entry for role, entry in entries.items() if role == step_role(entry.step)]
    return sorted(found, key=lambda entry: -entry.step)


def worth(value: float | None, sign: float, step: int) -> tuple[bool, float, int]:
    """Return a key that sorts the best to the front; of equal ones the earlier, NaN last.

    Args:
        value: of the metric.
        sign: 1.0 where small is good, -1.0 where large is.
        step: that it was measured at.
    """
    if value is None or math.isnan(value):
        return True, 0.0, step
    return False, sign * value, step


def is_ours(path: Path) -> bool:
    """Say whether a file is a checkpoint or the beginning of one; links for people are not."""
    name = path.name
    unfinished = re.fullmatch(r"\.(manifest\.json|.*\.pt|.*\.link)(\.\w+)?\.tmp", name)
    return bool(unfinished) or (bool(_OURS.fullmatch(name)) and not path.is_symlink())


def read_manifest(folder: Path) -> Entries:
    """Return what the manifest names, by role; empty when there is none.

    Raises:
        ManifestDamaged: it cannot be read.
        RunError: a newer version wrote it.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestDamaged(f"{path} is damaged ({error})") from None
    try:
        content = json.loads(text)
        written = content["format"]
        if isinstance(written, int) and written > FORMAT:
            raise RunError(
                f"{path} has format {written}, and this version reads {FORMAT}; go on with the "
                "version that wrote it"
            )
        entries = {role: Entry(**entry) for role, entry in content["entries"].items()}
        for entry in entries.values():
            if Path(entry.file).name != entry.file or not isinstance(entry.step, int):
                raise ValueError(f"no file of this folder: {entry.file!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestDamaged(f"{path} is damaged ({error})") from None
    return entries


def write_manifest(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Replace the manifest in one step."""
    content = {role: vars(entry) for role, entry in entries.items()}
    with atomic_write(folder / MANIFEST) as file:
        json.dump({"format": FORMAT, "entries": content}, file, indent=1)


def rebuild(folder: Path) -> tuple[Entries, list[str]]:
    """Return entries for the whole files of a folder without its manifest, and what is not whole.

    The newest resume point becomes ``last``, then ``previous`` and so on.
    """
    points, best, others, bad = list[Entry](), list[Entry](), Entries(), list[str]()
    sign = 1.0
    for path in sorted(folder.glob("*.pt")):
        named = _OURS.fullmatch(path.name)
        if path.is_symlink() or named is None:
            continue
        state = read_whole(path)
        if state is None:
            bad.append(path.name)
            continue
        kind, step = named.group(1), int(named.group(2))
        step = int(state.get("step", step))
        shards = str(state.get("shards", {}).get("folder", ""))
        entry = Entry(path.name, step, checksum(path), path.stat().st_size,
                      str(state.get("metric", "")), state.get("value"), shards)  # fmt: skip
        if kind in ("step", "last"):
            points.append(entry)
        elif kind == "best":
            best.append(entry)
            sign = -1.0 if state.get("mode") == "max" else 1.0
        else:
            others[kind] = entry
    points.sort(key=lambda entry: -entry.step)
    best.sort(key=lambda entry: worth(entry.value, sign, entry.step))
    found = {last_role(i): entry for i, entry in enumerate(points)}
    found |= {best_role(i): entry for i, entry in enumerate(best)}
    return found | others, bad


def read_whole(path: Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint file that its own checksums find whole; else None."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # whatever a damaged file makes zipfile and torch raise
        return None
    return state if isinstance(state, dict) and state.get("format") == FORMAT else None


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
