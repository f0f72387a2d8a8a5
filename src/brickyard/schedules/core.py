"""Lengths with units, and schedules as pure functions of the step."""

from __future__ import annotations

import itertools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from brickyard.plots import Figure
    from brickyard.schedules.binding import BoundSchedule
    from brickyard.schedules.plateau import Plateau

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

    def __mul__(self, other: Schedule | float) -> Schedule:
        """Multiply with a number or, step by step, with another schedule."""
        from brickyard.schedules.algebra import Product

        if isinstance(other, Schedule):
            return Product(
                (*getattr(self, "factors", (self,)), *getattr(other, "factors", (other,)))
            )
        return self.scaled(other)

    __rmul__ = __mul__

    def scaled(self, factor: float) -> Schedule:
        """Return this schedule times a number.

        Raises:
            ValueError: a negative factor.

        Example:
            >>> from brickyard.schedules import linear
            >>> linear(10).scaled(0.1)(0)
            0.1
        """
        from brickyard.schedules.algebra import Mapped

        check(factor >= 0, "factor must be 0 or more", factor)
        return Mapped(self, "scaled", (factor,))

    def clamped(self, low: float = 0.0, high: float = math.inf) -> Schedule:
        """Return this schedule, kept between two factors.

        Raises:
            ValueError: a negative bound, or ``low`` above ``high``.

        Example:
            >>> from brickyard.schedules import linear
            >>> linear(10).clamped(low=0.2)(10)
            0.2
        """
        from brickyard.schedules.algebra import Mapped

        check(0 <= low <= high, "bounds must be 0 <= low <= high", (low, high))
        return Mapped(self, "clamped", (low, high))

    def restarts(self, total: int) -> list[int]:
        """Return the steps up to ``total`` at which a cycle has ended and the next begins."""
        return []

    def plateau(self) -> tuple[Plateau, int] | None:
        """Return the piece that waits for a metric and the step it starts at, if there is one."""
        return None

    def at(self, reduced: float) -> Schedule:
        """Return this schedule with the piece that waits for a metric at a factor."""
        return self

    @property
    def companions(self) -> dict[str, Schedule]:
        """Return schedules of other hyperparameters that belong to this one, in values."""
        return {}

    def values(self, total: int, epoch: int | None = None) -> np.ndarray:
        """Return the factors of steps 0 to ``total`` - 1 as a float64 array.

        Example:
            >>> from brickyard.schedules import cosine, warmup
            >>> (warmup(2) >> cosine(4)).values(7).round(2).tolist()
            [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
        """
        ready = self.resolve(total, epoch)
        return np.array([ready(step) for step in range(total)], dtype=np.float64)

    def plot(
        self, total: int, epoch: int | None = None, file: str | Path | None = None
    ) -> Figure | Path:
        """Return the picture of the factors of a run, or write it to a file and return its path.

        Args:
            total: steps of the run.
            epoch: steps of an epoch, for lengths in epochs.
            file: a name that ends in ``.svg`` or ``.png``.
        """
        from brickyard.plots import plot_schedule

        return plot_schedule(self, total, epoch, file)

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
            hyper: which hyperparameter of the groups; ``beta1`` is the first of ``betas``.
        """
        from brickyard.schedules.binding import BoundSchedule

        return BoundSchedule(optimizer, self.resolve(total, epoch), hyper)


@dataclass(frozen=True)
class Piece(Schedule):
    """Hold one curve: ``shape(t, n, *marks)`` at step t of n steps, its last value after them.

    Args:
        name: of the function that made it.
        shape: the curve; ``marks`` are further lengths, in steps.
        length: of the piece, or None where it has no end.
        options: further options, for its text.
        marks: lengths that the curve needs beside its own: milestones, cycles.
        cycles: ``cycles(n, *marks)`` yields the steps at which cycles end, if it has any.
    """

    name: str
    shape: Callable[..., float] = field(compare=False)
    length: Length | None = None
    options: tuple[tuple[str, Any], ...] = ()
    marks: tuple[Length, ...] = ()
    cycles: Callable[..., Iterator[float]] | None = field(default=None, compare=False)

    def __call__(self, step: float) -> float:
        n = math.inf if self.length is None else self.length.steps()
        return self.shape(min(max(step, 0), n), n, *(mark.steps() for mark in self.marks))

    def resolve(self, total: int | None = None, epoch: int | None = None, used: int = 0) -> Piece:
        marks = tuple(Length(mark.steps(total, epoch), "steps") for mark in self.marks)
        length = self.length
        if length is not None:
            length = Length(length.steps(total, epoch, used), "steps")
        return replace(self, length=length, marks=marks)

    def restarts(self, total: int) -> list[int]:
        if self.cycles is None:
            return []
        n = math.inf if self.length is None else self.length.steps()
        ends = self.cycles(n, *(mark.steps() for mark in self.marks))
        return [math.ceil(end) for end in itertools.takewhile(lambda end: end <= total, ends)]

    def __repr__(self) -> str:
        inner = [] if self.length is None else [str(self.length)]
        inner += [str(mark) for mark in self.marks]
        return f"{self.name}({', '.join(inner + [f'{k}={v!r}' for k, v in self.options])})"


@dataclass(frozen=True)
class Sequence(Schedule):
    """Run pieces one after the other."""

    pieces: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        for piece in self.pieces[:-1]:
            if piece.length is None:
                raise ValueError(
                    f"{piece!r} has no end, so nothing can run after it; give it a length"
                )
        rest = [p for p in self.pieces if p.length is not None and p.length.unit == "rest"]
        if len(rest) > 1:
            raise ValueError(
                f"only one piece can take the rest of the run; got {len(rest)}: {rest}"
            )
        if rest and self.pieces[-1].length is None:
            raise ValueError(
                f"{rest[0]!r} has no end, so nothing can run after it; give it a length"
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

    def starts(self) -> list[int]:
        """Return the step that each piece starts at."""
        sizes = (0 if p.length is None else p.length.steps() for p in self.pieces[:-1])
        return [0, *itertools.accumulate(sizes)]

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
        lengths = [piece.length for piece in self.pieces]
        known = [0 if one is None or one.unit == "rest" else one.steps(total, epoch)
                 for one in lengths]  # fmt: skip
        ready, start = [], used
        for piece, own in zip(self.pieces, known, strict=True):
            rest = piece.length is not None and piece.length.unit == "rest"
            ready.append(piece.resolve(total, epoch, used + sum(known) if rest else start))
            length = ready[-1].length
            start += own if length is None else length.steps()
        return Sequence(tuple(ready))

    def restarts(self, total: int) -> list[int]:
        found = []
        for start, piece in zip(self.starts(), self.pieces, strict=True):
            room = total - start
            if piece.length is not None and piece is not self.pieces[-1]:
                room = min(room, piece.length.steps())
            found += [start + end for end in piece.restarts(room)]
        return found

    def plateau(self) -> tuple[Plateau, int] | None:
        for start, piece in zip(self.starts(), self.pieces, strict=True):
            found = piece.plateau()
            if found is not None:
                return found[0], start + found[1]
        return None

    def at(self, reduced: float) -> Sequence:
        return Sequence(tuple(piece.at(reduced) for piece in self.pieces))

    @property
    def companions(self) -> dict[str, Schedule]:
        """Return those of the pieces; a piece without any keeps what it found."""
        with_some = [piece for piece in self.pieces if piece.companions]
        if with_some and len(self.pieces) > 1:
            raise ValueError(
                f"{with_some[0]!r} moves momentum too, which cannot be put together with other "
                "pieces; give it momentum=None"
            )
        return {}

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.pieces))


def check(holds: bool, rule: str, received: Any) -> None:
    if not holds:
        raise ValueError(f"{rule}; got {received!r}")
