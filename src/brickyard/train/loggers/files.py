"""Log rows into files: a table as CSV, lines of JSON."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brickyard.catalog import brick
from brickyard.runs import atomic_write, to_json
from brickyard.train.loggers.base import Logger, RunFacts

__all__ = ["CsvLog", "JsonlLog"]

_FIRST = ("step", "epoch", "split")


@brick(
    "logger", "csv_log", aliases=("csv_logger",),
    summary="A table with a row per step and split, for spreadsheets, pandas and R.",
    use_when="You look at figures in a spreadsheet or read them with a tool that knows no JSON.",
    avoid_when="Code reads them: metrics.jsonl in every run folder has the same rows with types.",
    best_for="Handing figures to people who have neither Python nor TensorBoard.",
    paper="No paper; quoting as in RFC 4180 (2005).",
    tune_first="Nothing; path only when it must lie outside the run folder.",
    cost="One line a row; the file is written anew when a figure appears for the first time.",
    pairs_with=("tensorboard",),
)  # fmt: skip
class CsvLog(Logger):
    """Write a table: step, epoch, split, and a column for every figure.

    A split without a figure has an empty cell. On a resume, rows past the checkpoint are dropped
    and written again.

    Args:
        path: the file; a relative path starts at the run folder.

    Example:
        >>> import tempfile
        >>> log, folder = CsvLog(), Path(tempfile.mkdtemp())
        >>> log.start(RunFacts(folder, "run", {}))
        >>> log.row(10, 0.5, "train", {"loss": 2.0})
        >>> log.close({})
        >>> print((folder / "metrics.csv").read_text())
        step,epoch,split,loss
        10,0.5,train,2.0
        <BLANKLINE>

    Reference:
        Shafranovich, RFC 4180: Common Format and MIME Type for CSV Files, 2005.
    """

    def __init__(self, path: str = "metrics.csv"):
        self.path = _checked(path)
        self._columns = list(_FIRST)
        self._file: Any = None

    def start(self, run: RunFacts) -> None:
        """Open the file; keep its rows up to ``run.step``."""
        self.path = run.folder / self.path
        rows = [row for row in self._read() if int(row["step"]) <= run.step]
        self._columns = [c for c in self._columns if c in _FIRST or any(row[c] for row in rows)]
        self._write(rows)

    def row(self, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Append a line."""
        new = [name for name in values if name not in self._columns]
        if new:
            self._file.close()
            rows = self._read()
            self._columns += new
            self._write(rows)
        given = {"step": step, "epoch": round(epoch, 4), "split": split, **to_json(values)}
        csv.writer(self._file, lineterminator="\n").writerow(
            [given.get(name, "") for name in self._columns]
        )

    def flush(self) -> None:
        """Hand all lines to the system."""
        self._file.flush()

    def close(self, summary: Mapping[str, Any]) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> list[dict[str, str]]:
        """Return the file's rows; a last line cut off by a kill is left out."""
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
        found = csv.DictReader(lines)
        self._columns = list(found.fieldnames or _FIRST)
        return [{name: row.get(name) or "" for name in self._columns} for row in found]

    def _write(self, rows: list[dict[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as file:
            table = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows({k: v for k, v in row.items() if k in self._columns} for row in rows)
        self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115


@brick(
    "logger", "jsonl_log", aliases=("jsonl_logger",),
    summary="Lines of JSON in one file that many runs may share, each with its run and time.",
    use_when="Several runs shall report to one place, or another program follows a run by reading "
    "a file or a pipe.",
    avoid_when="There is one run: its folder has metrics.jsonl without any logger.",
    best_for="A sweep's rows in one file, for jq, DuckDB or pandas.read_json(lines=True).",
    paper="No paper; a line is a JSON text as in RFC 8259 (2017).",
    tune_first="path: where the shared file is.",
    cost="One system call a row.",
    pairs_with=("csv_log",),
)  # fmt: skip
class JsonlLog(Logger):
    """Append a JSON object per row to a file: run, time, step, epoch, split, figures.

    Each row is written at once, so runs may share a file. On a resume, rows that are there already
    are not written again.

    Args:
        path: the file; a relative path starts at the working directory.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/all.jsonl"
        >>> log = JsonlLog(path)
        >>> log.start(RunFacts(Path("runs/a"), "a", {}))
        >>> log.row(10, 0.5, "train", {"loss": 2.0})
        >>> log.close({})
        >>> json.loads(Path(path).read_text())["loss"]
        2.0

    Reference:
        Bray, RFC 8259: The JavaScript Object Notation (JSON) Data Interchange Format, 2017.
    """

    def __init__(self, path: str = "runs.jsonl"):
        self.path = _checked(path)
        self._there: set[tuple[int, str]] = set()
        self._run, self._handle = "", -1

    def start(self, run: RunFacts) -> None:
        """Open the file and look which rows past ``run.step`` it has."""
        self._run = str(run.folder.resolve())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = False
        if self.path.is_file():
            with open(self.path, encoding="utf-8") as file:
                for line in file:
                    torn = not line.endswith("\n")
                    self._note(line, run.step)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._handle = os.open(self.path, flags, 0o644)
        if torn:
            os.write(self._handle, b"\n")

    def _note(self, line: str, step: int) -> None:
        try:
            row = json.loads(line)
            if row["run"] == self._run and row["step"] > step:
                self._there.add((row["step"], row["split"]))
        except (ValueError, KeyError, TypeError):  # another program's line
            return

    def row(self, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Append a line, unless it is there."""
        if (step, split) in self._there:
            return
        row = {
            "run": self._run, "time": round(time.time(), 3), "step": step,
            "epoch": round(epoch, 4), "split": split, **to_json(values),
        }  # fmt: skip
        os.write(self._handle, json.dumps(row).encode() + b"\n")

    def close(self, summary: Mapping[str, Any]) -> None:
        """Close the file."""
        os.close(self._handle)


def _checked(path: str) -> Path:
    if not isinstance(path, str) or not path:
        raise ValueError(f"path must be the name of a file; got {path!r}")
    return Path(path).expanduser()
