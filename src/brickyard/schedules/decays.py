"""The curves: constant, warmup and the decays."""

from __future__ import annotations

import math
from typing import Literal

from brickyard.catalog import brick
from brickyard.schedules.core import Length, Piece, Schedule, check

__all__ = ["constant", "cosine", "linear", "warmup"]


@brick(
    "schedule", "constant", aliases=("fixed",),
    summary="Keeps the rate at its base value, or at a fixed factor of it.",
    use_when="Short experiments, small models, debugging: one thing less that moves. Also as the "
    "plateau between a warmup and a decay.",
    avoid_when="The last percents of quality count: nearly every published recipe lowers the rate "
    "before the end.",
    best_for="Baselines, overfitting one batch, online learning without an end.",
    paper="Robbins & Monro 1951 show why a constant rate keeps a noise floor: it never settles.",
    tune_first="The optimizer's lr itself; this schedule adds nothing to tune.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def constant(factor: float = 1.0, steps: int | str | None = None) -> Schedule:
    """Keep the hyperparameter at a fixed factor of its base value.

    Math:
        factor(t) = factor

    Args:
        factor: share of the base value, 0 or more.
        steps: length, when something runs after it; endless otherwise.

    Raises:
        ValueError: a negative factor or an impossible length.

    Example:
        >>> constant(0.5)(123)
        0.5

    Reference:
        Robbins & Monro, A Stochastic Approximation Method, 1951.
    """
    check(factor >= 0, "factor must be 0 or more", factor)
    length = None if steps is None else Length.parse(steps)
    return Piece("constant", lambda t, n: factor, length, (("factor", factor),))


@brick(
    "schedule", "linear", aliases=("linear_decay",),
    summary="Lowers the rate in a straight line to a given share of it.",
    use_when="The length of the run is known; fine-tuning of transformers, where it is the custom.",
    avoid_when="The length is unknown: use wsd or inverse_sqrt.",
    best_for="Fine-tuning language models; short runs on a fixed budget.",
    paper="Defazio et al. 2023 (arXiv:2310.07831) find linear decay to zero as good as or better "
    "than cosine over a wide set of problems.",
    tune_first="The peak rate; then the warmup before it.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def linear(total: int | str = "rest", end: float = 0.0) -> Schedule:
    """Go from the base value to ``end`` of it in a straight line, and stay there.

    Math:
        factor(t) = 1 + (end - 1) * min(t / total, 1)

    Args:
        total: length of the decay.
        end: factor at its end, 0 or more.

    Raises:
        ValueError: a negative end or an impossible length.

    Example:
        >>> linear(100, end=0.5)(50)
        0.75

    Reference:
        Defazio et al., When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement,
        2023, section 3.
    """
    check(end >= 0, "end must be 0 or more", end)
    return Piece("linear", lambda t, n: 1 + (end - 1) * t / n, Length.parse(total), (("end", end),))


@brick(
    "schedule", "cosine", aliases=("cosine_annealing", "cosine_decay"),
    summary="Lowers the rate along half a cosine: slow, then fast, then slow again.",
    use_when="The length of the run is known and nothing speaks for another form: the usual "
    "default for training from scratch.",
    avoid_when="The run may be stopped early or go on: a cosine is only good at its planned end.",
    best_for="Vision models and transformers trained from scratch with warmup.",
    paper="Loshchilov & Hutter 2017 (SGDR, arXiv:1608.03983), without the restarts.",
    tune_first="The peak rate; end (0 to 0.1) matters little.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def cosine(total: int | str = "rest", end: float = 0.0) -> Schedule:
    """Go from the base value to ``end`` of it along half a cosine, and stay there.

    torch's ``CosineAnnealingLR`` climbs again past its end; this one does not.

    Math:
        factor(t) = end + (1 - end) * (1 + cos(pi * min(t / total, 1))) / 2

    Args:
        total: length of the decay.
        end: factor at its end, 0 or more.

    Raises:
        ValueError: a negative end or an impossible length.

    Example:
        >>> round((warmup(100) >> cosine(900))(300), 3)
        0.883

    Reference:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, eq. 5.
    """
    check(end >= 0, "end must be 0 or more", end)

    def shape(t: float, n: float) -> float:
        return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * t / n))

    return Piece("cosine", shape, Length.parse(total), (("end", end),))


@brick(
    "schedule", "warmup", aliases=("linear_warmup",),
    summary="Raises the rate from near zero to its base value over the first steps.",
    use_when="Transformers, large batches, high rates, Adam with beta2 near 1: whenever the first "
    "steps are the dangerous ones. 1 to 5 percent of the run is common.",
    avoid_when="Fine-tuning at a tiny rate or runs of a few hundred steps: it costs steps.",
    best_for="The start of nearly every transformer recipe; large-batch training.",
    paper="Goyal et al. 2017 (arXiv:1706.02677) for large batches; Gotmare et al. 2019 and "
    "Ma & Yarats 2021 (arXiv:1910.04209) on why it helps Adam.",
    tune_first="Its length: too short shows as a loss spike, too long only wastes steps.",
    cost="A few percent of the steps at a lower rate.",
    pairs_with=("cosine", "linear"),
)  # fmt: skip
def warmup(
    steps: int | str, kind: Literal["linear", "exponential"] = "linear", start: float | None = None
) -> Schedule:
    """Rise from ``start`` to the base value; ``warmup(500) >> cosine()`` is the usual chain.

    Step 0 has the rate ``start``, not the full one.

    Math:
        linear:       factor(t) = start + (1 - start) * t / steps
        exponential:  factor(t) = start ** (1 - t / steps)

    Args:
        steps: length of the rise.
        kind: straight line, or the same ratio every step.
        start: factor at step 0: 0 for linear and 0.001 for exponential unless given.

    Raises:
        ValueError: an unknown kind, a start that the kind cannot have, an impossible length.

    Example:
        >>> warmup(100)(50)
        0.5

    Reference:
        Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017, section 2.2.
    """
    check(kind in ("linear", "exponential"), "kind must be 'linear' or 'exponential'", kind)
    low = start if start is not None else (0.0 if kind == "linear" else 1e-3)
    check(0 <= low <= 1 and (low > 0 or kind == "linear"),
           "start must be from 0 to 1, and above 0 for an exponential warmup", start)  # fmt: skip

    def shape(t: float, n: float) -> float:
        return low + (1 - low) * t / n if kind == "linear" else low ** (1 - t / n)

    return Piece("warmup", shape, Length.parse(steps), (("kind", kind), ("start", low)))
