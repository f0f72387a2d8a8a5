"""A check is a card and one pure function from what was seen to what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from brickyard.doctor.finding import SEVERITIES, Finding
from brickyard.doctor.observe.record import NOWHERE, Place, Seen


@dataclass(frozen=True)
class Say:
    """One thing a check says; what it leaves open comes from the card."""

    evidence: str
    where: str = ""
    place: Place = NOWHERE
    severity: str = ""
    step: int = 0
    why: str = ""
    try_: str = ""
    weight: float = -1.0


Function = Callable[[Seen], Iterable[Say]]


@dataclass(frozen=True)
class Check:
    """Hold a check's card and its function.

    Args:
        number: its number in the table of checks.
        name: its name, as in reports.
        severity: the gravest it says.
        sees: the signal.
        why: why it matters.
        try_: what to change.
        allows: designs on which it stays silent, and how it knows them.
        source: where the bug was met, or what describes it.
        weight: how exact the signal is, from 0 to 1.
        judge: the function.
    """

    number: int
    name: str
    severity: str
    sees: str
    why: str
    try_: str
    allows: str
    source: str
    weight: float
    judge: Function

    def findings(self, seen: Seen) -> list[Finding]:
        """Return what the check finds in what was seen."""
        found = []
        for say in self.judge(seen):
            found.append(
                Finding(
                    check=self.name,
                    severity=say.severity or self.severity,
                    step=say.step,
                    where=say.where,
                    file=say.place.file,
                    line=say.place.line,
                    evidence=say.evidence,
                    why=say.why or self.why,
                    try_=say.try_ or self.try_,
                    weight=self.weight if say.weight < 0 else say.weight,
                )
            )
        return found


CHECKS: dict[str, Check] = {}


def check(number: int, name: str, severity: str, *, weight: float, **card: str) -> Any:
    """Register a function as the check of a card.

    Args:
        number: its number in the table of checks.
        name: its name.
        severity: error, warning or info.
        weight: how exact the signal is, from 0 to 1; orders findings of one severity.
        card: the texts ``sees``, ``why``, ``try_``, ``allows`` and ``source``.

    Raises:
        ValueError: an unknown severity or a name that is taken.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"a severity is one of {', '.join(SEVERITIES)}; got {severity!r}")
    if name in CHECKS:
        raise ValueError(f"there is a check {name!r} already; names are unique")

    def register(function: Function) -> Function:
        CHECKS[name] = Check(number, name, severity, weight=weight, judge=function, **card)
        return function

    return register


def some(names: Iterable[str], most: int = 3) -> str:
    """Return a few names, and how many more there are."""
    found = list(names)
    said = ", ".join(found[:most])
    return said + (f" and {len(found) - most} more" if len(found) > most else "")
