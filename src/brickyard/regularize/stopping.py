"""Stop training when it no longer improves on held-out data."""

from __future__ import annotations

import math
from typing import Any, Literal

from brickyard.catalog import brick

__all__ = ["EarlyStopping"]


@brick(
    "regularizer",
    "early_stopping",
    public="brickyard.regularize",
    summary="Stops after some evaluations without improvement and keeps the best weights.",
    use_when="The validation loss turns up before the budget ends, or its length is unknown.",
    avoid_when="The schedule must run to its end to pay off (cosine, one-cycle), or the validation "
    "set is so small that its noise decides.",
    best_for="Small data, fine-tuning, tables.",
    paper="Prechelt 1998, Early Stopping - But When?",
    tune_first="patience: long enough to outlast the noise and the plateaus of the schedule.",
    cost="A copy of the best weights on disk; the evaluations that it looks at.",
)
class EarlyStopping:
    """Watch a metric and say when to stop.

    Stops at the ``patience``-th evaluation in a row without an improvement greater than
    ``min_delta``. A value that is not finite counts as no improvement.

    Math:
        improved(v) = v < best - min_delta        (mode "min"; mirrored for "max")
        stop when the last `patience` evaluations brought no improvement

    Args:
        monitor: name of the validation metric; the run's own monitor when empty.
        patience: evaluations without improvement to wait for, 1 or more.
        min_delta: smallest change that counts, in the metric's units.
        mode: whether small or large is good; ``"auto"`` asks the metric's card.
        restore_best: end with the weights of the best evaluation, not with the last ones.

    Raises:
        ValueError: patience below 1, a negative min_delta, an unknown mode.

    Example:
        >>> stop = EarlyStopping(patience=2, mode="min")
        >>> [stop.update(v) for v in (1.0, 0.8, 0.9, 0.85)]
        [False, False, False, True]

    Reference:
        Prechelt, Early Stopping - But When?, 1998 (the class UP, with a patience).
    """

    def __init__(
        self,
        monitor: str = "",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: Literal["auto", "min", "max"] = "auto",
        restore_best: bool = True,
    ):
        if patience < 1 or patience != int(patience):
            raise ValueError(f"patience must be a whole number from 1; got {patience!r}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must be 0 or more; got {min_delta!r}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max'; got {mode!r}")
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.mode = mode
        self.restore_best = restore_best
        self.best = math.nan
        self.waited = 0

    def update(self, value: float) -> bool:
        """Take the newest value; return whether to stop.

        Raises:
            ValueError: ``mode`` is still ``"auto"``: nobody has said what is good.
        """
        if self.mode == "auto":
            raise ValueError("mode is 'auto' and no trainer has set it; give mode='min' or 'max'")
        gain = (self.best - value) if self.mode == "min" else (value - self.best)
        if math.isfinite(value) and (math.isnan(self.best) or gain > self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.stopped

    @property
    def stopped(self) -> bool:
        """Say whether the values so far are a reason to stop."""
        return self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the evaluations waited."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.best, self.waited = float(state["best"]), int(state["waited"])
