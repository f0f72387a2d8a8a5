"""Reduce on plateau: the one schedule that waits for a metric, and its small state."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from brickyard.catalog import brick
from brickyard.schedules.core import Length, Schedule, check

__all__ = ["reduce_on_plateau"]


@dataclass(frozen=True)
class Plateau(Schedule):
    """Keep the factor ``now`` until a watched metric no longer improves."""

    factor: float
    patience: int
    threshold: float
    threshold_mode: str
    mode: str
    cooldown: int
    end: float
    now: float = 1.0
    length: Length | None = None

    def __call__(self, step: float) -> float:
        return self.now

    def resolve(self, total: int | None = None, epoch: int | None = None, used: int = 0) -> Plateau:
        return self

    def plateau(self) -> tuple[Plateau, int]:
        return self, 0

    def at(self, reduced: float) -> Plateau:
        return replace(self, now=reduced)

    def better(self, value: float, best: float) -> bool:
        """Say whether a value improves on the best so far by more than the threshold."""
        if math.isnan(best):
            return math.isfinite(value)
        sign = -1.0 if self.mode == "max" else 1.0
        room = self.threshold * (abs(best) if self.threshold_mode == "rel" else 1.0)
        return sign * value < sign * best - room

    def __repr__(self) -> str:
        return f"reduce_on_plateau(factor={self.factor:g}, patience={self.patience})"


@dataclass
class Watch:
    """Hold what a plateau has seen: the best value, how long ago, and the factor now."""

    best: float = math.nan
    waited: int = 0
    resting: int = 0
    factor: float = 1.0

    def take(self, plateau: Plateau, value: float) -> bool:
        """Take the newest value; return whether the factor was lowered.

        Args:
            plateau: what to wait for.
            value: of the metric; one that is not finite counts as no improvement.
        """
        if plateau.better(value, self.best):
            self.best, self.waited = float(value), 0
        elif self.resting == 0:
            self.waited += 1
        if self.resting > 0:
            self.resting, self.waited = self.resting - 1, 0
        if self.waited <= plateau.patience:
            return False
        before, self.waited, self.resting = self.factor, 0, plateau.cooldown
        self.factor = max(self.factor * plateau.factor, plateau.end)
        return self.factor < before

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers."""
        return {"best": self.best, "waited": self.waited, "resting": self.resting,
                "factor": self.factor}  # fmt: skip


@brick(
    "schedule", "reduce_on_plateau", aliases=("plateau",),
    summary="Lowers the rate when a validation metric has stopped improving.",
    use_when="The length of the run is open and a validation metric is at hand that is not noise.",
    avoid_when="The length is known: a decay over it ends lower and needs no metric. Metrics so "
    "noisy that patience runs out by chance.",
    best_for="Small and medium data trained until it stops improving, with early stopping behind.",
    paper="The rule of He et al. 2016 (ResNet, section 3.4: divide by 10 when the error plateaus), "
    "made automatic; form as torch's ReduceLROnPlateau.",
    tune_first="patience (longer than the metric's noise), then factor (0.1 to 0.5).",
    cost="Nothing beside the evaluations it looks at; late by patience evaluations.",
    pairs_with=("warmup", "early_stopping"),
)  # fmt: skip
def reduce_on_plateau(
    factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel", mode: Literal["auto", "min", "max"] = "auto",
    cooldown: int = 0, end: float = 0.0,
) -> Schedule:  # fmt: skip
    """Multiply the factor when ``patience`` evaluations in a row have not improved.

    Bound to an optimizer, ``scheduler.report(value)`` takes each evaluation's metric;
    ``scheduler.step()`` is called after every step as with all schedules. Evaluations before this
    piece's start (in a warmup, say) count for the best value only.

    Math:
        improved(v) = v < best - threshold*|best|   ("rel"; best - threshold for "abs")
        after patience + 1 evaluations without: f = max(f * factor, end), then rest for cooldown

    Args:
        factor: what the rate is multiplied by, above 0 and below 1.
        patience: evaluations without improvement that are let pass.
        threshold: smallest change that counts.
        threshold_mode: share of the best value, or absolute.
        mode: whether small or large is good; ``"auto"`` asks the run's monitor in a recipe, and is
            ``"min"`` in a loop of your own.
        cooldown: evaluations after a reduction during which nothing is counted.
        end: lowest factor.

    Raises:
        ValueError: an option outside its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = reduce_on_plateau(0.5, patience=1).bind(optimizer)
        >>> [scheduler.report(loss) for loss in (3.0, 2.0, 2.0, 2.0)]
        [False, False, False, True]
        >>> optimizer.param_groups[0]["lr"]
        0.5

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2016, section 3.4.
    """
    check(0 < factor < 1, "factor must be above 0 and below 1", factor)
    whole = isinstance(patience, int) and isinstance(cooldown, int)
    check(whole and patience >= 0 and cooldown >= 0,
          "patience and cooldown must be whole numbers from 0", (patience, cooldown))  # fmt: skip
    check(threshold >= 0, "threshold must be 0 or more", threshold)
    check(threshold_mode in ("rel", "abs"), "threshold_mode must be 'rel' or 'abs'", threshold_mode)
    check(mode in ("auto", "min", "max"), "mode must be 'auto', 'min' or 'max'", mode)
    check(0 <= end <= 1, "end must be from 0 to 1", end)
    return Plateau(factor, patience, threshold, threshold_mode, mode, cooldown, end)
