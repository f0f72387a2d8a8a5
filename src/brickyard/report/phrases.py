"""The sentences that several rules say."""

from __future__ import annotations

import math

import numpy as np

from brickyard.reading import Verdict as Verdict
from brickyard.report.facts import Facts
from brickyard.report.history import Series
from brickyard.report.wording import count, epochs, number
from brickyard.report.yardsticks import constant


def told(sentences: list[str]) -> tuple[str, ...]:
    """Return the sentences that are not empty."""
    return tuple(s for s in sentences if s)


def best_so_far(f: Facts) -> str:
    """Name the best evaluation."""
    if not f.evaluations:
        return ""
    return f"Best so far: {f.monitor_words} {f.show(f.best)} in epoch {epochs(f.best_epoch)}."


def against(f: Facts) -> str:
    """Compare the best with a constant answer."""
    same = constant(f)
    if same is None:
        return ""
    value, how = same
    return f"Best {f.monitor_words}: {f.show(f.best)}; {how} gets {f.show(value)}."


def chance(f: Facts) -> str:
    """Say how small a difference is chance."""
    if not (f.share and f.val_size):
        return ""
    return (
        f"With {count(f.val_size)} validation samples, two runs that differ by less than "
        f"{2 * math.sqrt(2) * f.noise * 100:.1f} points cannot be told apart."
    )


def gap(f: Facts) -> str:
    """Compare with training data: by the monitored metric if it was measured there, or the loss."""
    if not math.isnan(f.train_monitor):
        apart = f.show_gap(abs(f.train_monitor - f.best))
        how = f" (with {' and '.join(f.training_noise)})" if f.training_noise else ""
        return f"On training batches{how}: {f.show(f.train_monitor)}, a gap of {apart}."
    train, val = f.train_at("loss", f.best_epoch), f.val_loss_at_best
    if math.isnan(train) or math.isnan(val):
        return ""
    where = f"Loss in epoch {epochs(f.best_epoch)}"
    return f"{where}: training {number(train)}, validation {number(val)}."


def loss_path(loss: Series) -> str:
    """Say how the training loss went from its first to its last finite row."""
    good = loss.finite
    if not len(good):
        return "No training loss was finite." if len(loss) else ""
    return (
        f"Training loss: {number(good.value[0])} at step {count(good.step[0])}, "
        f"{number(good.value[-1])} at step {count(good.step[-1])}."
    )


def ends_broken(loss: Series) -> bool:
    """Say whether the last rows of a loss are not finite."""
    return len(loss) > 0 and not np.isfinite(loss.value[-3:]).any()


def last_line(text: str) -> str:
    """Return the last line that is not empty, cut to 160 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return last if len(last) <= 160 else last[:159] + "…"
