"""Show a report on a terminal or as plain text."""

from __future__ import annotations

import shutil
import textwrap
from typing import IO

from brickyard.doctor.finding import Finding, Report
from brickyard.reading import Verdict

_COLOURS = {"error": "31;1", "warning": "33;1", "info": "36"}
_TONES = {"bad": "31;1", "warn": "33;1", "good": "32", "none": "36"}
_WIDTH = 96


def show(report: Report, out: IO[str]) -> None:
    """Print a report.

    Args:
        report: what to print.
        out: where; in colour when it is a terminal.
    """
    colour = hasattr(out, "isatty") and out.isatty()
    print("\n" + text(report, colour=colour), file=out, flush=True)


def text(report: Report, colour: bool = False) -> str:
    """Return a report as lines: each finding with evidence, place, why and what to try."""
    lines = [*wrapped(_head(report), ""), ""]
    for finding in report.findings:
        lines += [*_finding(finding, colour), ""]
    for name, problem in report.problems:
        lines += [*wrapped(f"doctor: {name} could not be checked: {problem}", "  "), ""]
    if report.verdict is not None:
        lines += _curve(report.verdict, colour)
    return "\n".join(lines).rstrip()


def _head(report: Report) -> str:
    counts = [
        f"{n} {name}{'s' if n > 1 and name != 'info' else ''}"
        for name in _COLOURS
        if (n := sum(f.severity == name for f in report.findings))
    ]
    if not (counts or report.steps):
        script = f" {report.script}:" if report.script else ""
        return f"brickyard doctor:{script} nothing found: no training step was seen"
    said = ", ".join(counts) if counts else "nothing found"
    steps = f"{report.steps:,} step{'s' * (report.steps != 1)} watched"
    cost = f"overhead {report.overhead:.1%}" if report.steps else ""
    script = f" {report.script}:" if report.script else ""
    return f"brickyard doctor:{script} {said} ({', '.join(x for x in (steps, cost) if x)})"


def _curve(verdict: Verdict, colour: bool) -> list[str]:
    """Return what the loss curves say, as the closing lines."""
    name = f"\x1b[{_TONES[verdict.tone]}mCURVE\x1b[0m" if colour else "CURVE"
    lines = [f"{name}  {verdict.label}"]
    seen = " ".join([f"{verdict.sentence[:1].upper()}{verdict.sentence[1:]}", *verdict.evidence])
    for title, said in (("seen", seen), ("try", verdict.advice)):
        if said:
            lines += wrapped(said, f"  {title:6}")
    return lines


def _finding(finding: Finding, colour: bool) -> list[str]:
    name = finding.severity.upper()
    if colour:
        name = f"\x1b[{_COLOURS[finding.severity]}m{name}\x1b[0m"
    when = f"step {finding.step}" if finding.step else "before the first step"
    if finding.epoch:
        when += f", epoch {finding.epoch}"
    lines = [f"{name}  {finding.check}   ({when})"]
    where = "   ".join(x for x in (finding.where, finding.place) if x)
    for title, said in (
        ("where", where), ("seen", finding.evidence), ("why", finding.why), ("try", finding.try_)
    ):  # fmt: skip
        if said:
            lines += wrapped(said, f"  {title:6}")
    return lines


def wrapped(said: str, first: str, others: str | None = None) -> list[str]:
    """Return a text as lines of the terminal's width.

    Args:
        said: the text.
        first: what stands before its first line.
        others: what stands before the other ones; blanks if None.
    """
    width = max(40, min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns))
    return textwrap.wrap(
        said, width, initial_indent=first, break_long_words=False, break_on_hyphens=False,
        subsequent_indent=" " * max(8, len(first)) if others is None else others,
    )  # fmt: skip
