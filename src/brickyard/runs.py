"""The run folder: the names of its files, and the one place that writes and reads them.

=====================  ============================================================================
``recipe.yaml``        the resolved recipe: every default filled in
``environment.json``   versions, machine, git commit, command line
``groups.txt``         every parameter with its group's options, and why it has them
``metrics.jsonl``      one object a line: ``step``, ``epoch``, ``split`` (train or val), metrics
``telemetry.jsonl``    the same, with an object for every parameter: its norms; when asked for
``checkpoints/``       ``last.pt``, ``best.pt`` and ``manifest.json`` with their checksums
``evaluation.npz``     targets, predictions and worst samples of the best weights on validation data
``findings.json``      what the doctor found in the first steps: `brickyard doctor`'s JSON report
``summary.json``       final and best metrics, durations, exit reason, model, data
``report.html``        the page
``export/``            the best weights for use elsewhere, with a model card: `brickyard export`
=====================  ============================================================================
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from brickyard import yamls
from brickyard.errors import RunError

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
GROUPS = "groups.txt"
METRICS = "metrics.jsonl"
TELEMETRY = "telemetry.jsonl"
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation.npz"
FINDINGS = "findings.json"
SUMMARY = "summary.json"
REPORT = "report.html"


@contextmanager
def atomic_write(path: Path, mode: str = "w", flush: bool = True) -> Iterator[IO[Any]]:
    """Open a file that appears at ``path`` whole or not at all.

    Writes beside it, flushes to the disk, renames. After an error the old file is untouched and
    nothing is left behind.

    Args:
        path: where the file shall be.
        mode: ``"w"`` for text, ``"wb"`` for bytes.
        flush: wait for the disk, so that a power cut leaves the old file or the new one.
    """
    encoding = None if "b" in mode else "utf-8"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            if flush:
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if flush:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


#: Locked folders. Workers that are forked would keep them locked after their parent was killed.
_HELD: set[int] = set()


def _let_go() -> None:
    for handle in _HELD:
        os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class RunFolder:
    """Read and write the files of one run.

    Args:
        path: the folder; it need not exist for :meth:`create`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def create(cls, name: str, out: str | Path | None = None) -> RunFolder:
        """Make a new, empty run folder: ``out``, or ``runs/NAME/TIME``.

        Raises:
            RunError: the folder exists and is not empty, or cannot be made.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        path = Path(out) if out is not None else Path("runs") / name / stamp
        if out is None and path.exists():
            path = Path(f"{path}-{os.getpid()}")
        cls.refuse_used(path)
        try:
            (path / CHECKPOINTS).mkdir(parents=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror}") from error
        return cls(path)

    @staticmethod
    def refuse_used(path: str | Path) -> None:
        """Refuse a folder for a new run that holds something.

        Raises:
            RunError: it does.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} exists and is not empty; give another --out, or resume it")

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open a run folder that exists.

        Raises:
            RunError: there is no run in that folder.
        """
        run = cls(path)
        try:
            there = (run.path / RECIPE).is_file()
        except OSError as error:
            raise RunError(f"{run.path} cannot be read: {error.strerror or error}") from error
        if not there:
            what = "holds no run (no recipe.yaml)" if run.path.is_dir() else "does not exist"
            raise RunError(f"{run.path} {what}; give the folder that `brickyard train` made")
        return run

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training in this folder; a kill lets go of it.

        Raises:
            RunError: another process is training in it.
        """
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        _HELD.add(handle)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"another process is training in {self.path}; wait for it or stop it first"
                ) from None
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            if handle in _HELD:
                _HELD.remove(handle)
                os.close(handle)

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def report(self) -> Path:
        """Return where the page is."""
        return self.path / REPORT

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Write the resolved recipe."""
        with atomic_write(self.path / RECIPE) as file:
            file.write(yamls.dump(dict(recipe)))

    def recipe(self) -> dict[str, Any]:
        """Return the resolved recipe.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / RECIPE
        try:
            recipe = yamls.parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{path} is not readable YAML ({reason})") from error
        if not isinstance(recipe, dict):
            raise RunError(f"{path} is damaged: it holds no recipe")
        if "split_seed" not in recipe and "seed" in recipe:  # older runs had one seed for both
            recipe["split_seed"] = recipe["seed"]
        return recipe

    def write_text(self, name: str, text: str) -> None:
        """Write a file for people to read."""
        with atomic_write(self.path / name) as file:
            file.write(text)

    def write_json(self, name: str, value: Mapping[str, Any], flush: bool = True) -> None:
        """Write ``environment.json``, ``findings.json`` or ``summary.json``.

        Args:
            name: of the file.
            value: what it says.
            flush: wait for the disk.
        """
        with atomic_write(self.path / name, flush=flush) as file:
            json.dump(to_json(value), file, indent=1)
            file.write("\n")

    def environment(self) -> dict[str, Any]:
        """Return the environment that the run was made in; empty if it was not written."""
        return self._json(ENVIRONMENT)

    def summary(self) -> dict[str, Any]:
        """Return the summary; empty while the run has not ended."""
        return self._json(SUMMARY)

    def findings(self) -> dict[str, Any]:
        """Return the doctor's report; empty if the run was not watched."""
        return self._json(FINDINGS)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.exists():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path} is not readable JSON ({error})") from error

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of ``metrics.jsonl``; a last line cut off by a kill is left out."""
        return self.rows(METRICS)

    def telemetry(self) -> list[dict[str, Any]]:
        """Return the rows of ``telemetry.jsonl``: by parameter, ``grad_norm``, ``update_ratio`` ...

        Empty if the recipe asked for none.
        """
        return self.rows(TELEMETRY)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a file of lines; a last line cut off by a kill is left out."""
        path = self.path / name
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                if number == len(lines):
                    break
                raise RunError(f"{path} line {number} is not JSON: {line[:60]!r}") from error
        return rows

    def write_evaluation(self, **arrays: np.ndarray) -> None:
        """Write what the report shows of single samples."""
        with atomic_write(self.path / EVALUATION, "wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    def evaluation(self) -> dict[str, np.ndarray]:
        """Return the arrays of ``evaluation.npz``; empty if there is none."""
        path = self.path / EVALUATION
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)


class MetricsWriter:
    """Append rows to ``metrics.jsonl``, or to another file of lines.

    Rows that cannot be written, as on a full disk, are kept and written by a later flush, which
    also completes a row that was written in part.

    Args:
        run: the run.
        keep_until: on resume, rows past this step are dropped: the resumed run writes them again.
        name: the file.

    Raises:
        RunError: the folder cannot be written.
    """

    _MOST = 1 << 13  # bytes that wait for a flush

    def __init__(self, run: RunFolder, keep_until: int | None = None, name: str = METRICS):
        path = run.path / name
        try:
            if keep_until is not None and path.exists():
                kept = [row for row in run.rows(name) if row["step"] <= keep_until]
                with atomic_write(path) as file:
                    file.writelines(json.dumps(to_json(row)) + "\n" for row in kept)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by close()
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error
        self._waiting = bytearray()

    def row(self, step: int, epoch: float, split: str, values: Mapping[str, Any]) -> None:
        """Append one row."""
        row = {"step": step, "epoch": round(epoch, 4), "split": split, **to_json(values)}
        self._waiting += json.dumps(row).encode() + b"\n"
        if len(self._waiting) > self._MOST:
            with suppress(OSError):  # kept; the next checkpoint tells
                self.flush()

    def flush(self, sync: bool = False) -> None:
        """Hand what was written to the system, so that it outlives this process.

        Args:
            sync: wait until it is on the disk, so that it outlives the machine, too.

        Raises:
            OSError: it cannot be written; nothing is lost as long as the process lives.
        """
        while self._waiting:
            del self._waiting[: self._file.write(self._waiting)]
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is left and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()


def to_json(value: Any) -> Any:
    """Return ``value`` with numbers as JSON has them: non-finite ones become text."""
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, float):
        return float(f"{value:.8g}")
    return value if isinstance(value, str | int | bool | type(None) | float) else str(value)
