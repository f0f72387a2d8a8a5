"""Turn run folders into pages: one self-contained HTML file, readable without network or script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brickyard.errors import RunError
from brickyard.runs import RunFolder, atomic_write

__all__ = ["write_comparison", "write_report"]

COMPARISON = "comparison.html"


def write_report(run: str | Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    A file of the run that is missing or damaged costs only what it would have shown.

    Args:
        run: the run folder.

    Raises:
        RunError: there is no run in that folder, or the page cannot be written.
    """
    from brickyard.report.facts import Facts  # loads NumPy and jinja2 only when a page is made
    from brickyard.report.page import run_page

    return _write(RunFolder.open(run).report, run_page(Facts.read(run)))


def write_comparison(runs: Sequence[str | Path], out: Path | None = None) -> Path:
    """Write a page that compares runs and return its path.

    Args:
        runs: run folders, at least two.
        out: the page's file; ``comparison.html`` beside the first run when left out.

    Raises:
        RunError: fewer than two runs, no run in one of the folders, or the page cannot be written.
    """
    from brickyard.report.compare import comparison_page
    from brickyard.report.facts import Facts

    if len(runs) < 2:
        raise RunError(f"a comparison needs at least two runs; got {len(runs)}")
    path = Path(out) if out is not None else Path(runs[0]).resolve().parent / COMPARISON
    return _write(path, comparison_page([Facts.read(run) for run in runs]))


def _write(path: Path, page: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, flush=False) as file:  # it can be written again
            file.write(page)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    return path
