"""Decays without an end of their own: by steps, by a rate, by the inverse of the time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from brickyard.catalog import brick
from brickyard.schedules.core import Length, Piece, Schedule, check

__all__ = [
    "exponential",
    "inverse_sqrt",
    "inverse_time",
    "multistep",
    "natural_exponential",
    "step",
]


@brick(
    "schedule", "step", aliases=("step_decay",),
    summary="Multiplies the rate by a factor at regular intervals.",
    use_when="Reproducing a recipe that has it; a quick baseline with one number to choose.",
    avoid_when="Nothing forces steps: a smooth decay to zero over the run does as well or better.",
    best_for="Classical vision recipes.",
    paper="Krizhevsky et al. 2012 (AlexNet, section 5) divide by 10 when the error stops falling.",
    tune_first="every: a third to a quarter of the run.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def step(every: int | str, factor: float = 0.1) -> Schedule:
    """Multiply by ``factor`` each time ``every`` has passed.

    Math:
        factor(t) = factor ^ floor(t / every)

    Args:
        every: interval, with its unit.
        factor: above 0, usually below 1.

    Raises:
        ValueError: a factor of 0 or less, or an impossible interval.

    Example:
        >>> [step(10, 0.5)(t) for t in (0, 9, 10, 25)]
        [1.0, 1.0, 0.5, 0.25]

    Reference:
        Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012,
        section 5.
    """
    check(factor > 0, "factor must be above 0", factor)
    return Piece("step", lambda t, n, every: float(factor) ** (t // every), None,
                 (("factor", factor),), (_fixed(every),))  # fmt: skip


@brick(
    "schedule", "multistep", aliases=("multi_step", "piecewise_constant"),
    summary="Multiplies the rate by a factor at given milestones.",
    use_when="Reproducing a recipe that names its milestones (ResNets: 50 and 75 %).",
    avoid_when="The milestones are not known: they are guesses that cost runs.",
    best_for="Classical vision recipes, detection (milestones near the end).",
    paper="He et al. 2016 (arXiv:1512.03385), section 4.2: CIFAR-10 at 32k and 48k of 64k steps.",
    tune_first="The first milestone; the second at half of what is left.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def multistep(milestones: Sequence[int | str], factor: float = 0.1) -> Schedule:
    """Multiply by ``factor`` at each milestone.

    Math:
        factor(t) = factor ^ #{m in milestones: m <= t}

    Args:
        milestones: steps, epochs or shares of the run, in ascending order.
        factor: above 0, usually below 1.

    Raises:
        ValueError: no milestones, or not in ascending order; a factor of 0 or less.

    Example:
        >>> [multistep([10, 20], 0.1)(t) for t in (0, 10, 15)]
        [1.0, 0.1, 0.1]

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2016, section 4.2.
    """
    check(factor > 0, "factor must be above 0", factor)
    check(not isinstance(milestones, str) and len(milestones) > 0,
          "milestones must be a list with at least one length", milestones)  # fmt: skip
    marks = tuple(_fixed(mark) for mark in milestones)

    def ascending(found: Sequence[float]) -> bool:
        return all(a < b for a, b in itertools.pairwise(found))

    if len({mark.unit for mark in marks}) == 1:
        check(ascending([mark.value for mark in marks]), "milestones must ascend", milestones)

    def shape(t: float, n: float, *marks: float) -> float:
        check(ascending(marks), "milestones, in steps, must ascend", marks)
        return float(factor) ** sum(mark <= t for mark in marks)

    return Piece("multistep", shape, None, (("factor", factor),), marks)


@brick(
    "schedule", "exponential", aliases=("exponential_decay",),
    summary="Multiplies the rate by the same number in every step or epoch.",
    use_when="Runs without a known end that should cool steadily: reinforcement learning, GANs.",
    avoid_when="The length is known: linear or cosine reach zero at the right time.",
    best_for="Reproducing recipes that have it (EfficientNet: 0.97 every 2.4 epochs).",
    paper="Tan & Le 2019 (EfficientNet, arXiv:1905.11946), section 5; the form is old.",
    tune_first="rate together with every: rate^(run/every) should end near 0.01.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def exponential(rate: float, every: int | str = 1) -> Schedule:
    """Multiply by ``rate`` per ``every``, smoothly.

    Math:
        factor(t) = rate ^ (t / every)

    Args:
        rate: above 0 and at most 1.
        every: what one multiplication takes: 1 step, ``"1ep"`` ...

    Raises:
        ValueError: a rate outside its range, or an impossible interval.

    Example:
        >>> exponential(0.5, every=10)(20)
        0.25

    Reference:
        Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019,
        section 5.
    """
    check(0 < rate <= 1, "rate must be above 0 and at most 1", rate)
    return Piece("exponential", lambda t, n, every: float(rate) ** (t / every), None,
                 (("rate", rate),), (_fixed(every),))  # fmt: skip


@brick(
    "schedule", "natural_exponential", aliases=("exp_decay",),
    summary="Decays the rate as e^(-k*t).",
    use_when="A formula or a theory gives k; else exponential says the same in plainer numbers.",
    avoid_when="The length is known: linear or cosine reach zero at the right time.",
    best_for="Reproducing a text that states the decay constant.",
    paper="Wilson & Martinez 2003 and older; equal to exponential(rate=e^-k).",
    tune_first="k: 4.6 divided by the steps after which 1 % shall be left.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def natural_exponential(k: float, every: int | str = 1) -> Schedule:
    """Decay exponentially with constant ``k``.

    Math:
        factor(t) = exp(-k * t / every)

    Args:
        k: decay constant per ``every``, 0 or more.
        every: unit of time.

    Raises:
        ValueError: a negative k, or an impossible interval.

    Example:
        >>> round(natural_exponential(0.1)(10), 4)
        0.3679

    Reference:
        Goodfellow et al., Deep Learning, 2016, section 8.3.1 (schedules for SGD).
    """
    check(k >= 0, "k must be 0 or more", k)
    return Piece("natural_exponential", lambda t, n, every: math.exp(-k * t / every), None,
                 (("k", k),), (_fixed(every),))  # fmt: skip


@brick(
    "schedule", "inverse_time", aliases=("1/t", "inverse_time_decay"),
    summary="Decays the rate as 1 / (1 + k*t): the classical rate that lets SGD converge.",
    use_when="Convex problems and online learning without an end, where convergence is wanted.",
    avoid_when="Deep networks on a budget: it stays high for long, then is too low to move.",
    best_for="Logistic regression, linear models, stochastic approximation.",
    paper="Robbins & Monro 1951: steps whose sum diverges and whose squares' sum converges.",
    tune_first="k: the inverse of the number of steps after which the rate shall be halved.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def inverse_time(k: float, every: int | str = 1) -> Schedule:
    """Decay with the inverse of the time.

    Math:
        factor(t) = 1 / (1 + k * t / every)

    Args:
        k: decay constant per ``every``, 0 or more.
        every: unit of time.

    Raises:
        ValueError: a negative k, or an impossible interval.

    Example:
        >>> inverse_time(0.1)(10)
        0.5

    Reference:
        Robbins & Monro, A Stochastic Approximation Method, 1951.
    """
    check(k >= 0, "k must be 0 or more", k)
    return Piece("inverse_time", lambda t, n, every: 1 / (1 + k * t / every), None,
                 (("k", k),), (_fixed(every),))  # fmt: skip


@brick(
    "schedule", "inverse_sqrt", aliases=("noam", "rsqrt"),
    summary="Decays the rate with the square root of the time: slow, and without an end.",
    use_when="Transformers trained without a fixed end, behind a warmup of the same length.",
    avoid_when="The length is known: linear or cosine end lower and do better at their end.",
    best_for="Pretraining that may go on; the original Transformer and T5.",
    paper="Vaswani et al. 2017 (arXiv:1706.03762), eq. 3; Raffel et al. 2020 (T5), section 3.1.2.",
    tune_first="timescale: the length of the warmup before it.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def inverse_sqrt(timescale: int | str = 10_000) -> Schedule:
    """Decay with the inverse square root of the time.

    ``warmup(n) >> inverse_sqrt(n)`` is the original Transformer's schedule.

    Math:
        factor(t) = sqrt(timescale / (timescale + t))

    Args:
        timescale: time until the factor is 1/sqrt(2); the length of the warmup before it gives
            the Transformer's schedule exactly.

    Raises:
        ValueError: an impossible length.

    Example:
        >>> inverse_sqrt(100)(300)
        0.5

    Reference:
        Vaswani et al., Attention Is All You Need, 2017, eq. 3.
    """
    return Piece("inverse_sqrt", lambda t, n, scale: math.sqrt(scale / (scale + t)), None, (),
                 (_fixed(timescale),))  # fmt: skip


def _fixed(given: int | str) -> Length:
    """Read a length inside a curve, which cannot be the rest of a run."""
    length = Length.parse(given)
    check(length.unit != "rest", "this length needs a number: 'rest' has none here", given)
    return length
