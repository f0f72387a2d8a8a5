"""Bind a schedule to an optimizer: torch's scheduler interface over a pure function of the step."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from brickyard.schedules.core import Schedule
from brickyard.schedules.plateau import Watch


class BoundSchedule(LRScheduler):
    """Set a hyperparameter of every group to its base value times the schedule's factor.

    The base value is the group's own (kept as ``initial_lr``, as torch does), so several groups
    keep their own peaks, and a group added later is scheduled from its very first step. The state
    is one number, the step (and what a plateau has seen); loading it sets the values of that step.
    Values that are tensors stay the same tensors, so that compiled steps need not be compiled anew.

    Args:
        optimizer: any torch optimizer.
        schedule: a resolved schedule.
        hyper: the hyperparameter's name in the groups; ``beta1``, ``beta2`` and ``momentum`` are
            found in ``betas`` where that is the groups' form.

    Raises:
        ValueError: a group has no such hyperparameter, or no number there.

    Example:
        >>> import torch
        >>> from brickyard.schedules import cosine, warmup
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        >>> scheduler = (warmup(10) >> cosine(90)).bind(optimizer)
        >>> optimizer.param_groups[0]["lr"]
        0.0
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, hyper: str = "lr"):
        # torch's own __init__ patches optimizer.step and takes a step: neither is wanted here.
        self.optimizer = optimizer
        self.schedule = schedule
        self.hyper = hyper
        self._base = f"initial_{hyper}"
        self.last_epoch = 0
        self._plateau = schedule.plateau()
        self._watch = Watch()
        peak = getattr(schedule, "peak", None)
        if peak is not None:
            for group in optimizer.param_groups:
                group[self._base] = float(peak)
        self._apply()
        optimizer.register_step_pre_hook(_Latecomers(self))

    def step(self, epoch: int | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move on by one step; call it after ``optimizer.step()``.

        Args:
            epoch: go to this step instead, as with torch's schedulers.
        """
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._apply()

    @property
    def waits(self) -> bool:
        """Say whether a piece of the schedule waits for a metric."""
        return self._plateau is not None

    def report(self, value: float) -> bool:
        """Take an evaluation's metric; return whether the schedule was lowered by it.

        Args:
            value: of the metric that ``reduce_on_plateau`` waits for.

        Raises:
            ValueError: no piece of the schedule waits for a metric.
        """
        if self._plateau is None:
            raise ValueError(f"no piece of {self.schedule!r} waits for a metric; only "
                             "reduce_on_plateau does")  # fmt: skip
        plateau, start = self._plateau
        if self.last_epoch < start:  # what a warmup brings counts, what it does not bring does not
            self._watch.best = (
                value if plateau.better(value, self._watch.best) else self._watch.best
            )
            return False
        lowered = self._watch.take(plateau, value)
        self._apply()
        return lowered

    def factor(self, step: int | None = None) -> float:
        """Return the schedule's factor at a step, the present one unless given.

        Args:
            step: how many steps have been taken.
        """
        at = self.last_epoch if step is None else step
        return (self.schedule if self._plateau is None else self.schedule.at(self._watch.factor))(
            at
        )

    def others(self) -> dict[str, float]:
        """Return what is scheduled beside the rate, and its present value in the first such group.

        The names are ``hyper`` where that is not the rate, and what the schedule moves beside it.
        """
        found = {name: other(self.last_epoch) for name, other in self.schedule.companions.items()}
        if self.hyper != "lr":
            bases = (group[self._base] for group in self.optimizer.param_groups)
            found[self.hyper] = self.factor() * next((base for base in bases if base), 0.0)
        return found

    def _apply(self) -> None:
        factor = self.factor()
        for group in self.optimizer.param_groups:
            base = group.get(self._base)
            if base is None:
                base = group[self._base] = _number(_read(group, self.hyper), self.hyper)
            _put(group, self.hyper, base * factor)
            for name, other in self.schedule.companions.items():
                _accompany(group, name, other(self.last_epoch))
        self._last_lr = [float(_read(group, self.hyper)) for group in self.optimizer.param_groups]

    @property
    def base_lrs(self) -> list[float]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the base value of every group."""
        return [group[self._base] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the values that are set now, one a group."""
        return [float(value) for value in self._last_lr]

    def get_lr(self) -> list[float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return what the schedule says for the present step, one a group."""
        factor = self.factor()
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the step, and what a plateau has seen; the schedule comes from code or recipe."""
        found: dict[str, Any] = {"step": self.last_epoch}
        return found if self._plateau is None else {**found, "plateau": self._watch.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the step of ``state_dict`` and set the values that belong to it.

        Raises:
            ValueError: the state is not one of this schedule.
        """
        wanted = set(self.state_dict())
        if set(state_dict) != wanted:
            raise ValueError(f"the state of {self.schedule!r} has the keys {sorted(wanted)}; got "
                             f"{sorted(state_dict)}: another schedule was saved")  # fmt: skip
        self.last_epoch = int(state_dict["step"])
        if "plateau" in state_dict:
            self._watch = Watch(**state_dict["plateau"])
        self._apply()


class _Latecomers:
    """Schedule groups that were added since, before their first step: a hook of the optimizer.

    Args:
        bound: the scheduler; it may be forgotten while the optimizer lives on.
    """

    def __init__(self, bound: BoundSchedule):
        self.bound = weakref.ref(bound)

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        bound = self.bound()
        if bound is not None and any(bound._base not in g for g in bound.optimizer.param_groups):
            bound._apply()


def _number(value: Any, name: str) -> float:
    """Return a base value as a plain number.

    Raises:
        ValueError: it is None, a function of the step that the optimizer calls itself, or several.
    """
    if value is None or callable(value) or isinstance(value, tuple | list):
        what = "a function already" if callable(value) else repr(value)
        raise ValueError(f"a schedule is a factor of the base value of {name}, which is {what} "
                         "here; give a number")  # fmt: skip
    return float(value)


def _place(group: dict[str, Any], name: str) -> tuple[str, int | None] | None:
    """Return where a group keeps a hyperparameter: its key, and the place in it if it is a tuple.

    ``beta1`` and ``beta2`` are found in ``betas``, and ``momentum``, where there is none, is the
    first of them.
    """
    if name in group:
        return name, None
    if name == "momentum" and "beta1" in group:
        return "beta1", None
    place = {"momentum": 0, "beta1": 0, "beta2": 1, "beta3": 2}.get(name)
    betas = group.get("betas")
    if place is None or not isinstance(betas, tuple | list) or place >= len(betas):
        return None
    return "betas", place


def _read(group: dict[str, Any], name: str) -> Any:
    found = _place(group, name)
    if found is None:
        known = sorted(k for k in group if k != "params")
        raise ValueError(f"no group has {name!r} to schedule; it has {known}")
    key, place = found
    return group[key] if place is None else group[key][place]


def _put(group: dict[str, Any], name: str, value: float) -> None:
    """Set a value; a tensor keeps its identity, which compiled steps rely on."""
    key, place = _place(group, name) or (name, None)
    old = _read(group, name)
    if isinstance(old, Tensor):
        old.fill_(value)
    elif place is None:
        group[key] = value
    else:
        group[key] = (*group[key][:place], value, *group[key][place + 1 :])


def _accompany(group: dict[str, Any], name: str, value: float) -> None:
    """Set what a schedule moves beside the rate.

    Raises:
        ValueError: the group has nothing of the kind.
    """
    if _place(group, name) is None:
        known = sorted(k for k in group if k != "params")
        raise ValueError(f"the schedule moves {name}, and the group has none: {known}; give the "
                         f"schedule {name}=None")  # fmt: skip
    _put(group, name, value)
