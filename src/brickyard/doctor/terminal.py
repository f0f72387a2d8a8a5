"""Show a report on a terminal or as plain text."""

from __future__ import annotations

import textwrap
from typing import IO

from brickyard.doctor.finding import Finding, Report

_COLOURS = {"error": "31;1", "warning": "33;1", "info": "36"}
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
    lines = [_head(report), ""]
    for finding in report.findings:
        lines += [*_finding(finding, colour), ""]
    for name, problem in report.problems:
        lines += [*_wrapped(f"doctor: {name} could not be checked: {problem}", "  "), ""]
    return "\n".join(lines).rstrip()


def _head(report: Report) -> str:
    counts = [
        f"{n} {name}{'s' if n > 1 and name != 'info' else ''}"
        for name in _COLOURS
        if (n := sum(f.severity == name for f in report.findings))
    ]
    said = ", ".join(counts) if counts else "nothing found"
    steps = f"{report.steps:,} step{'s' * (report.steps != 1)} watched"
    cost = f"overhead {report.overhead:.1%}" if report.steps else ""
    script = f" {report.script}:" if report.script else ""
    return f"brickyard doctor:{script} {said} ({', '.join(x for x in (steps, cost) if x)})"


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
            lines += _wrapped(said, f"  {title:6}")
    return lines


def _wrapped(said: str, first: str) -> list[str]:
    return textwrap.wrap(
        said, _WIDTH, initial_indent=first, subsequent_indent=" " * max(8, len(first)),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
