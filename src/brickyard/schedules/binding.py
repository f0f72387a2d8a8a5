"""Bind a schedule to an optimizer: torch's scheduler interface over a pure function of the step."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from brickyard.schedules.core import Schedule


class BoundSchedule(LRScheduler):
    """Set a hyperparameter of every group to its base value times the schedule's factor.

    The base value is the group's own (kept as ``initial_lr``, as torch does), so several groups
    keep their own peaks, and a group added later is scheduled from its next step on. The state is
    one number, the step; loading it sets the values of that step.

    Args:
        optimizer: any torch optimizer.
        schedule: a resolved schedule.
        hyper: the hyperparameter's name in the groups.

    Raises:
        ValueError: a group has no such hyperparameter.

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
        self._apply()

    def step(self, epoch: int | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move on by one step; call it after ``optimizer.step()``.

        Args:
            epoch: go to this step instead, as with torch's schedulers.
        """
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._apply()

    def _apply(self) -> None:
        factor = self.schedule(self.last_epoch)
        for group in self.optimizer.param_groups:
            base = group.get(self._base)
            if base is None:
                if self.hyper not in group:
                    known = sorted(k for k in group if k != "params")
                    raise ValueError(f"no group has {self.hyper!r} to schedule; it has {known}")
                base = group[self._base] = float(group[self.hyper])
            group[self.hyper] = base * factor
        self._last_lr = [group[self.hyper] for group in self.optimizer.param_groups]

    @property
    def base_lrs(self) -> list[float]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the base value of every group."""
        return [group[self._base] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the values that are set now, one a group."""
        return [float(value) for value in self._last_lr]

    def get_lr(self) -> list[float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return what the schedule says for the present step, one a group."""
        return [base * self.schedule(self.last_epoch) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the step; the schedule itself comes from code or recipe."""
        return {"step": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the step of ``state_dict`` and set the values that belong to it.

        Raises:
            ValueError: the state is not one of this class.
        """
        if set(state_dict) != {"step"}:
            raise ValueError(
                f"a bound schedule's state has the key 'step' alone; got {sorted(state_dict)}"
            )
        self.last_epoch = int(state_dict["step"])
        self._apply()
