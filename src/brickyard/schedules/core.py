"""Lengths with units, and schedules as pure functions of the step."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from brickyard.schedules.binding import BoundSchedule

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(ep|%)?")


@dataclass(frozen=True)
class Length:
    """Hold a length with its unit: steps, epochs, percent of the run, or the rest of it.

    Args:
        value: how many.
        unit: ``"steps"``, ``"ep"``, ``"%"`` or ``"rest"``.
    """

    value: float
    unit: Literal["steps", "ep", "%", "rest"]

    @classmethod
    def parse(cls, given: int | str | Length) -> Length:
        """Read ``500``, ``"3ep"``, ``"10%"`` or ``"rest"``.

        Raises:
            ValueError: anything else, zero, or more than 100 %.

        Example:
            >>> Length.parse("10%").steps(total=2000)
            200
        """
        if isinstance(given, Length):
            return given
        if given == "rest":
            return cls(0, "rest")
        text = "" if isinstance(given, bool) else str(given).strip()
        found = _LENGTH.fullmatch(text)
        if not found:
            raise ValueError(
                f"a length is a number of steps (500), epochs ('3ep'), a share of the run ('10%') "
                f"or 'rest'; got {given!r}"
            )
        value, unit = float(found.group(1)), found.group(2) or "steps"
        if value <= 0 or (unit == "%" and value > 100) or (unit == "steps" and value % 1):
            rule = {"%": "between 0 and 100 percent", "ep": "more than 0 epochs"}
            raise ValueError(
                f"a length must be {rule.get(unit, 'a whole number from 1')}; got {given!r}"
            )
        return cls(value, unit)  # pyright: ignore[reportArgumentType]

    def steps(self, total: int | None = None, epoch: int | None = None, used: int = 0) -> int:
        """Return this length in steps, at least 1.

        Args:
            total: steps of the whole run; needed for ``%`` and ``rest``.
            epoch: steps of one epoch; needed for ``ep``.
            used: steps that pieces before this one take; ``rest`` leaves them out.

        Raises:
            ValueError: what is needed is not known, or nothing is left for ``rest``.
        """
        if self.unit == "steps":
            return int(self.value)
        known = epoch if self.unit == "ep" else total
        if known is None:
            what = "steps per epoch" if self.unit == "ep" else "total steps"
            raise ValueError(
                f"the length {self} needs the run's {what}; call resolve() or bind() with it"
            )
        if self.unit == "rest":
            if known <= used:
                raise ValueError(
                    f"nothing is left for the last piece: {used} of {known} steps are taken by "
                    "those before it; make them shorter or the run longer"
                )
            return known - used
        return max(1, round(self.value * known / (100 if self.unit == "%" else 1)))

    def __str__(self) -> str:
        if self.unit == "rest":
            return "rest"
        return f"{self.value:g}{'' if self.unit == 'steps' else self.unit}"


class Schedule(ABC):
    """Give a factor for every step; subclasses say how long they are and what they are there."""

    length: Length | None

    @abstractmethod
    def __call__(self, step: float) -> float:
        """Return the factor at ``step``, counted from this schedule's own start.

        Raises:
            ValueError: a length in epochs or percent has not been resolved.
        """

    @abstractmethod
    def resolve(
        self, total: int | None = None, epoch: int | None = None, used: int = 0
    ) -> Schedule:
        """Return the schedule with all lengths in steps.

        Args:
            total: steps of the whole run.
            epoch: steps of one epoch.
            used: steps taken by what runs before.
        """

    def __rshift__(self, after: Schedule) -> Schedule:
        """Run ``after`` when this one has ended.

        Raises:
            ValueError: this one has no end.
        """
        pieces = [*getattr(self, "pieces", (self,)), *getattr(after, "pieces", (after,))]
        return Sequence(tuple(pieces))

    def values(self, total: int, epoch: int | None = None) -> np.ndarray:
        """Return the factors of steps 0 to ``total`` - 1 as a float64 array.

        Example:
            >>> from brickyard.schedules import cosine, warmup
            >>> (warmup(2) >> cosine(4)).values(7).round(2).tolist()
            [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
        """
        ready = self.resolve(total, epoch)
        return np.array([ready(step) for step in range(total)], dtype=np.float64)

    def bind(
        self,
        optimizer: Optimizer,
        total: int | None = None,
        epoch: int | None = None,
        hyper: str = "lr",
    ) -> BoundSchedule:
        """Return a scheduler with torch's interface that sets ``hyper`` in every group.

        Args:
            optimizer: any torch optimizer.
            total: steps of the run, for lengths in percent or ``rest``.
            epoch: steps of an epoch, for lengths in epochs.
            hyper: which hyperparameter of the groups.
        """
        from brickyard.schedules.binding import BoundSchedule

        return BoundSchedule(optimizer, self.resolve(total, epoch), hyper)


@dataclass(frozen=True)
class Piece(Schedule):
    """Hold one curve: ``shape(t, n)`` at step t of a length of n steps, its last value after it."""

    name: str
    shape: Callable[[float, float], float] = field(compare=False)
    length: Length | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, step: float) -> float:
        n = math.inf if self.length is None else self.length.steps()
        return self.shape(min(max(step, 0), n), n)

    def resolve(self, total: int | None = None, epoch: int | None = None, used: int = 0) -> Piece:
        if self.length is None:
            return self
        return replace(self, length=Length(self.length.steps(total, epoch, used), "steps"))

    def __repr__(self) -> str:
        inner = [] if self.length is None else [str(self.length)]
        return f"{self.name}({', '.join(inner + [f'{k}={v!r}' for k, v in self.options])})"


@dataclass(frozen=True)
class Sequence(Schedule):
    """Run pieces one after the other."""

    pieces: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        for piece in self.pieces[:-1]:
            if piece.length is None or piece.length.unit == "rest":
                raise ValueError(
                    f"{piece!r} has no end, so nothing can run after it; give it a length"
                )

    @property
    def length(self) -> Length | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the sum of the pieces' lengths, ``None`` when the last has no end."""
        lengths = [piece.length for piece in self.pieces]
        if any(one is None for one in lengths):
            return None
        if any(one is not None and one.unit == "rest" for one in lengths):
            return Length(0, "rest")
        return Length(sum(one.steps() for one in lengths if one is not None), "steps")

    def __call__(self, step: float) -> float:
        start = 0
        for piece in self.pieces[:-1]:
            n = piece.length.steps() if piece.length is not None else 0
            if step < start + n:
                return piece(step - start)
            start += n
        return self.pieces[-1](step - start)

    def resolve(
        self, total: int | None = None, epoch: int | None = None, used: int = 0
    ) -> Sequence:
        ready = []
        for piece in self.pieces:
            ready.append(piece.resolve(total, epoch, used))
            length = ready[-1].length
            used += length.steps() if length is not None else 0
        return Sequence(tuple(ready))

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.pieces))


def check(holds: bool, rule: str, received: Any) -> None:
    if not holds:
        raise ValueError(f"{rule}; got {received!r}")
