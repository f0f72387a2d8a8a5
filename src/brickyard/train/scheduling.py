"""Bind a recipe's schedules to its optimizer: of the rate, and of any other number that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from brickyard.errors import RecipeError
from brickyard.optim import Optimizer as Ours
from brickyard.optim.binding import number
from brickyard.schedules import Schedule
from brickyard.schedules.binding import BoundSchedule
from brickyard.schedules.plateau import Plateau
from brickyard.train.closure import innermost
from brickyard.train.evaluate import Evaluator
from brickyard.train.make import make, place
from brickyard.train.optimization import Built

__all__ = ["OwnSteps", "Schedules", "bind_schedules"]


class Schedules:
    """Step the schedules of several hyperparameters as one.

    Args:
        bound: schedulers with torch's interface, by hyperparameter.
    """

    def __init__(self, bound: Mapping[str, Any]):
        self.bound = dict(bound)

    def step(self) -> None:
        """Move on by one step."""
        for one in self.bound.values():
            one.step()

    @property
    def waits(self) -> bool:
        """Say whether one of them waits for a metric."""
        return any(one.waits for one in self.bound.values())

    def report(self, value: float) -> bool:
        """Give an evaluation's metric to those that wait for it; return whether one was lowered.

        Args:
            value: of the run's monitor.
        """
        lowered = [one.report(value) for one in self.bound.values() if one.waits]
        return any(lowered)

    def restarts(self, total: int) -> list[int]:
        """Return the steps up to ``total`` after which the rate's cycles end."""
        return self.bound["lr"].schedule.restarts(total) if "lr" in self.bound else []

    def others(self) -> dict[str, float]:
        """Return what is scheduled beside the rate, and its present values."""
        found: dict[str, float] = {}
        for one in self.bound.values():
            found |= one.others()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the positions by hyperparameter."""
        return {name: one.state_dict() for name, one in self.bound.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the positions of ``state``."""
        for name, one in self.bound.items():
            one.load_state_dict(state[name])


def bind_schedules(
    built: Built, total: int, epoch: int, evaluator: Evaluator | None = None
) -> Schedules | None:
    """Bind every schedule of a recipe to its optimizer; None when there is none.

    Args:
        built: the optimizer and its schedules.
        total: steps of the run.
        epoch: steps of an epoch.
        evaluator: gives the metric that plateaus wait for, and says what is good.

    Raises:
        RecipeError: a piece after one without end, a hyperparameter that cannot change or has two
            schedules, or a plateau that takes the wrong direction for good.
    """
    bound = {}
    for name, pieces in built.schedules.items():
        path = "schedule" if name == "lr" else f"optimizer.{name}"
        whole: Schedule | None = None
        for i, one in enumerate(pieces):
            with place(f"{path}.{i}" if path == "schedule" else f"{path}.schedule.{i}"):
                piece = _watching(make(one, "schedule"), evaluator)
                whole = piece if whole is None else whole >> piece
        if whole is None:
            continue
        with place(path):
            inner = innermost(built.optimizer)
            if name != "lr" and isinstance(inner, Ours):
                bound[name] = OwnSteps(inner, whole.resolve(total, epoch), name)
            else:
                bound[name] = whole.bind(built.optimizer, total, epoch, hyper=name)
    for name, one in bound.items():
        for other in one.schedule.companions:
            if other in bound:
                raise RecipeError(
                    f"{'schedule' if name == 'lr' else f'optimizer.{name}'}: it moves {other} too, "
                    f"and optimizer.{other} has a schedule of its own; keep one of them, or give "
                    f"{other}: null here"
                )
    return Schedules(bound) if bound else None


def _watching(piece: Schedule, evaluator: Evaluator | None) -> Schedule:
    """Return a piece with the direction of the run's monitor, where it waits for a metric."""
    if not isinstance(piece, Plateau) or evaluator is None:
        return piece
    if piece.mode not in ("auto", evaluator.mode):
        raise ValueError(
            f"reduce_on_plateau has mode {piece.mode!r}, and of the run's monitor "
            f"{evaluator.monitor} {'high' if evaluator.mode == 'max' else 'low'} values are good; "
            "leave mode out, or set monitor"
        )
    return replace(piece, mode=evaluator.mode)


@dataclass(frozen=True)
class _Scaled:
    """Be a hyperparameter that follows a schedule: a function of the steps taken."""

    bound: BoundSchedule
    base: float

    def __call__(self, step: int) -> float:
        return self.base * self.bound.factor(step)


class OwnSteps(BoundSchedule):
    """Put a schedule into our optimizer's groups as a function of the optimizer's own step.

    A number that is set from outside would do for the arithmetic, but an optimizer decides by some
    of them which pieces its chain has: a decay whose factor passes zero must not fall out of it.
    Groups whose base value is 0 are spared.

    Args:
        optimizer: one of ours.
        schedule: a resolved schedule.
        hyper: the hyperparameter's name in the groups.

    Raises:
        ValueError: no group has it, its base value is 0 in all, or it decides how the step is
            built.
    """

    optimizer: Ours

    def __init__(self, optimizer: Ours, schedule: Schedule, hyper: str):
        if not any(hyper in group for group in optimizer.param_groups):
            known = sorted(set(optimizer.defaults) - {"maximize"})
            raise ValueError(f"no group has {hyper!r} to schedule; it has {', '.join(known)}")
        if not any(group[hyper] for group in optimizer.param_groups):
            raise ValueError(
                f"a schedule is a factor, and the base value of {hyper} is 0; give base"
            )
        super().__init__(optimizer, schedule, hyper)

    def _apply(self) -> None:
        for group in self.optimizer.param_groups:
            if self._base in group:
                continue
            base = group[self._base] = number(group[self.hyper], 0)
            if not base:
                continue
            group[self.hyper] = _Scaled(self, base)
            if self.hyper not in self.optimizer.make_setup(group).binding.keys.values():
                raise ValueError(
                    f"{self.hyper} decides how the step is built, so it has no schedule"
                )
        self._last_lr = [group[self._base] * self.factor() for group in self.optimizer.param_groups]
