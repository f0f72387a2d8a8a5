"""Schedules made from schedules: products, scaled and clamped ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from brickyard.schedules.core import Length, Schedule

if TYPE_CHECKING:
    from brickyard.schedules.plateau import Plateau

__all__: list[str] = []


@dataclass(frozen=True)
class Product(Schedule):
    """Multiply schedules step by step; it ends when the longest does."""

    factors: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        _ = self.length
        if sum(one.plateau() is not None for one in self.factors) > 1:
            raise ValueError(f"only one factor can wait for a metric; got {self!r}")

    @property
    def length(self) -> Length | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the longest length; endless factors do not count.

        Raises:
            ValueError: lengths in different units.
        """
        lengths = [one.length for one in self.factors if one.length is not None]
        if len({one.unit for one in lengths}) > 1:
            raise ValueError(
                f"lengths of a product must be in one unit; got {', '.join(map(str, lengths))}"
            )
        return max(lengths, key=lambda one: one.value) if lengths else None

    def __call__(self, step: float) -> float:
        return math.prod(one(step) for one in self.factors)

    def resolve(self, total: int | None = None, epoch: int | None = None, used: int = 0) -> Product:
        return Product(tuple(one.resolve(total, epoch, used) for one in self.factors))

    def restarts(self, total: int) -> list[int]:
        return sorted({step for one in self.factors for step in one.restarts(total)})

    def plateau(self) -> tuple[Plateau, int] | None:
        return next((found for one in self.factors if (found := one.plateau())), None)

    def at(self, reduced: float) -> Product:
        return Product(tuple(one.at(reduced) for one in self.factors))

    @property
    def companions(self) -> dict[str, Schedule]:
        """Return those of the factors."""
        return {name: found for one in self.factors for name, found in one.companions.items()}

    def __repr__(self) -> str:
        return " * ".join(f"({x!r})" if " >> " in repr(x) else repr(x) for x in self.factors)


@dataclass(frozen=True)
class Mapped(Schedule):
    """Scale or clamp a schedule's factors."""

    inner: Schedule
    how: str
    numbers: tuple[float, ...]

    @property
    def length(self) -> Length | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the inner schedule's length."""
        return self.inner.length

    def __call__(self, step: float) -> float:
        return self.change(self.inner(step))

    def change(self, factor: float) -> float:
        """Return what becomes of a factor."""
        if self.how == "scaled":
            return factor * self.numbers[0]
        return min(max(factor, self.numbers[0]), self.numbers[1])

    def resolve(self, total: int | None = None, epoch: int | None = None, used: int = 0) -> Mapped:
        return Mapped(self.inner.resolve(total, epoch, used), self.how, self.numbers)

    def restarts(self, total: int) -> list[int]:
        return self.inner.restarts(total)

    def plateau(self) -> tuple[Plateau, int] | None:
        return self.inner.plateau()

    def at(self, reduced: float) -> Mapped:
        return Mapped(self.inner.at(reduced), self.how, self.numbers)

    @property
    def companions(self) -> dict[str, Schedule]:
        """Return those of the inner schedule."""
        return self.inner.companions

    def __repr__(self) -> str:
        inner = f"({self.inner!r})" if " " in repr(self.inner) else repr(self.inner)
        return f"{inner}.{self.how}({', '.join(f'{x:g}' for x in self.numbers)})"
