"""Findings and reports: what the doctor says, and its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from brickyard.reading import Verdict

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """Hold one finding: what was seen, where, why it matters and what to change.

    Args:
        check: the check's name, as in the table of checks.
        severity: error, warning or info.
        step: optimizer step at which the evidence sufficed; 0 before the first one.
        epoch: pass over the training data, from 1; 0 when none was seen.
        where: module path, parameter, optimizer or function that it is about.
        file: the user's file; empty when unknown.
        line: the line in it; 0 when unknown.
        evidence: what was seen, in numbers.
        why: why it matters.
        try_: what to change; ``try`` in JSON.
        weight: how exact the signal is, from 0 to 1; orders findings, not part of the JSON.
    """

    check: str
    severity: str
    step: int = 0
    epoch: int = 0
    where: str = ""
    file: str = ""
    line: int = 0
    evidence: str = ""
    why: str = ""
    try_: str = ""
    weight: float = 0.5

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Return what makes two findings the same one."""
        return self.check, self.where, self.file, self.line

    @property
    def place(self) -> str:
        """Return ``file:line``; empty when unknown."""
        return f"{self.file}:{self.line}" if self.file else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as in the JSON report."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "weight"}
        return {name.rstrip("_"): value for name, value in found.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """Return the finding that :meth:`to_dict` wrote."""
        known = {f.name for f in fields(cls)}
        values = {("try_" if k == "try" else k): v for k, v in data.items()}
        return cls(**{k: v for k, v in values.items() if k in known})

    def at(self, step: int, epoch: int) -> Finding:
        """Return the same finding with another time."""
        return replace(self, step=step, epoch=epoch)


@dataclass
class Report:
    """Hold what one watched run gave.

    Args:
        script: the script, as given; empty in a notebook.
        exit_code: the script's own exit code.
        steps: optimizer steps (backward passes where no optimizer steps).
        overhead: the doctor's time as a fraction of the run's own.
        findings: most likely cause first.
        problems: errors inside the doctor itself, which never stop a run: name and text.
        seconds: duration of the run.
        verdict: what the loss curves say in words; None where there is no curve to read. Not part
            of the JSON.
    """

    script: str = ""
    exit_code: int = 0
    steps: int = 0
    overhead: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    verdict: Verdict | None = None

    def worst(self) -> str:
        """Return the gravest severity; empty when there is no finding."""
        return next((s for s in SEVERITIES if any(f.severity == s for f in self.findings)), "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, the documented JSON."""
        return {
            "script": self.script,
            "exit_code": self.exit_code,
            "steps": self.steps,
            "overhead": round(self.overhead, 5) if math.isfinite(self.overhead) else None,
            "findings": [finding.to_dict() for finding in [*self.findings, *self._failed()]],
        }

    def _failed(self) -> list[Finding]:
        """Return the doctor's own errors as findings, so that no reader misses them."""
        why = "An error inside the doctor, not in your script; what it looks for was not checked."
        return [
            Finding(name, "info", evidence=f"the check itself failed: {text}", why=why)
            for name, text in self.problems
        ]

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """Return the report as one self-contained page."""
        from brickyard.doctor.page import page

        return page(self)

    def __str__(self) -> str:
        """Return the report as plain text."""
        from brickyard.doctor.terminal import text

        return text(self)

    def _repr_html_(self) -> str:
        """Show the findings in a notebook."""
        from brickyard.doctor.page import fragment

        return fragment(self)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by how likely each is the cause: severity, exactness, then time."""
    return sorted(
        findings,
        key=lambda f: (SEVERITIES.index(f.severity), -f.weight, f.step, f.check, f.where),
    )
