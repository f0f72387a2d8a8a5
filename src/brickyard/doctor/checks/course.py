"""Checks of the course of a run: divergence, nothing learned."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check
from brickyard.doctor.observe.record import LossSeen, Seen, Series


def _smooth(series: Series) -> list[float]:
    """Return the means of successive 10 losses."""
    values = [v for v in series.values if v - v == 0.0]
    return [fmean(values[i : i + 10]) for i in range(0, len(values) - 9, 10)]


def alone(seen: Seen) -> Series | None:
    """Return the series of losses when one line sends them, for one optimizer."""
    found = [s for s in seen.series.values() if len(s.values) >= 20]
    if len(found) != 1 or len([o for o in seen.optimizers if o.steps]) > 1:
        return None
    return found[0]


@check(
    50, "divergence", "warning", weight=0.5,
    sees="the smoothed loss against its minimum and its beginning",
    why="Training goes the wrong way.",
    try_="Lower the rate tenfold, warm up, clip gradients; look at the first errors above.",
    allows="noise, warm-up, losses that are not supervised (several optimizers, negative values, "
    "losses other than a criterion's), small losses",
    source="Goodfellow et al., Deep Learning, section 8.3",
)  # fmt: skip
def divergence(seen: Seen) -> Iterable[Say]:
    """Report losses that rise and stay high."""
    series = alone(seen)
    losses = criteria(seen)
    if series is None or not losses:
        return
    smooth = _smooth(series)
    if len(smooth) < 6 or min(smooth) <= 0:
        return
    start = series.values[0]
    above = T.ABOVE_START_STEPS // 10
    tail = smooth[-above:]
    over = start * T.ABOVE_START
    if start > 0 and len(tail) >= above and min(tail) > max(over, start + T.ABOVE_LEAST):
        yield Say(
            f"The loss was {start:.4g} at first and above {min(tail):.4g} over the last "
            f"{10 * len(tail)} steps.",
            "loss", series.place,
        )  # fmt: skip
        return
    tail = smooth[-(T.DIVERGED_STEPS // 10) :]
    lowest = min(smooth)
    half = T.DIVERGED_HALF * start
    if min(tail) > T.DIVERGED * lowest and min(tail) > half > lowest:
        yield Say(
            f"The loss fell to {lowest:.4g} and then rose above {min(tail):.4g} over the last "
            f"{10 * len(tail)} steps.",
            "loss", series.place,
        )  # fmt: skip


def criteria(seen: Seen) -> list[LossSeen]:
    """Return the call sites of losses that compare outputs with targets."""
    names = ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits", "nll_loss")
    return [x for x in seen.losses.values() if x.function in names]


def _constant(loss: LossSeen) -> tuple[float, str] | None:
    """Return the loss of the best constant answer, and what it is."""
    facts = loss.facts
    if loss.function in ("cross_entropy", "nll_loss") and facts.get("labels") is not None:
        share = facts["labels"].double() / facts["labels"].sum()
        share = share[share > 0]
        return float(-(share * share.log()).sum()), "the entropy of the labels"
    if loss.function == "binary_cross_entropy_with_logits" and facts.get("count"):
        p = facts["positive_sum"] / facts["count"]
        if 0 < p < 1:
            return -p * math.log(p) - (1 - p) * math.log(1 - p), "the entropy of the labels"
    if loss.function == "mse_loss" and facts.get("count", 0) > 1 and not facts.get("varies"):
        mean = facts["sum"] / facts["count"]
        variance = facts["squares"] / facts["count"] - mean * mean
        return float(variance.mean()), "the variance of the targets"
    return None


@check(
    52, "not-learning", "warning", weight=0.4,
    sees="the loss against that of the best constant answer, after an epoch and 300 steps",
    why="The model has learned nothing from its inputs.",
    try_="Overfit one batch first; then look at the rate, the labels and the scale of inputs.",
    allows="runs with several losses or optimizers, sums, weighted losses, targets that the model "
    "makes itself, tasks in which half of the labels are noise (it speaks at 98 %)",
    source="Karpathy 2019, input-independent baseline",
)  # fmt: skip
def not_learning(seen: Seen) -> Iterable[Say]:
    """Report losses that stay at a constant answer's."""
    series, losses = alone(seen), criteria(seen)
    if series is None or len(losses) != 1 or losses[0].facts.get("reduction") != "mean":
        return
    values = [v for v in series.values if v - v == 0.0]
    constant = _constant(losses[0])
    if constant is None or len(values) < T.NOT_LEARNING_STEPS or 0 < seen.epoch < 2:
        return
    if losses[0].facts.get("plain", 0) < T.LOOKS or "tokens" in losses[0].facts:
        return
    level, what = constant
    best = min(fmean(values[i : i + 50]) for i in range(0, len(values) - 49, 50))
    recent = fmean(values[-50:])
    if level > 0 and best > T.NOT_LEARNING * level:
        yield Say(
            f"After {len(values)} steps the loss is {recent:.4g} (at the best {best:.4g}); a "
            f"constant answer has {level:.4g}, {what}.",
            "loss", series.place,
        )  # fmt: skip
