"""Schedules of several phases: restarts, cycles, one cycle, warmup-stable-decay; polynomial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from brickyard.catalog import brick
from brickyard.schedules.core import Length, Piece, Schedule, check
from brickyard.schedules.decays import constant, cosine, linear, warmup
from brickyard.schedules.rates import _fixed

__all__ = ["cosine_restarts", "cyclic", "one_cycle", "polynomial", "wsd"]


@brick(
    "schedule", "polynomial", aliases=("poly",),
    summary="Lowers the rate along (1 - t/total)^power.",
    use_when="Segmentation recipes (power 0.9); a decay between linear and late cosine.",
    avoid_when="The length is unknown: use wsd or inverse_sqrt.",
    best_for="Semantic segmentation; DeepLab-like recipes.",
    paper="Liu et al. 2015 (ParseNet) and Chen et al. 2018 (DeepLab, arXiv:1606.00915): power 0.9.",
    tune_first="The peak rate; power matters little between 0.9 and 2.",
    cost="Nothing.",
    pairs_with=("warmup",),
)  # fmt: skip
def polynomial(total: int | str = "rest", power: float = 1.0, end: float = 0.0) -> Schedule:
    """Go from the base value to ``end`` of it along a power of the time left, and stay there.

    Math:
        factor(t) = end + (1 - end) * (1 - min(t / total, 1)) ^ power

    Args:
        total: length of the decay.
        power: above 0; 1 is linear.
        end: factor at its end, 0 or more.

    Raises:
        ValueError: a power of 0 or less, a negative end, an impossible length.

    Example:
        >>> polynomial(10, power=2)(5)
        0.25

    Reference:
        Chen et al., DeepLab, 2018, section 4.1.1.
    """
    check(power > 0, "power must be above 0", power)
    check(end >= 0, "end must be 0 or more", end)
    return Piece("polynomial", lambda t, n: end + (1 - end) * (1 - t / n) ** power,
                 Length.parse(total), (("power", power), ("end", end)))  # fmt: skip


@brick(
    "schedule", "cosine_restarts", aliases=("sgdr", "cosine_annealing_warm_restarts"),
    summary="Cosine decays that start anew at the full rate, each longer than the last.",
    use_when="Snapshots of one run are to be averaged or kept; training that may stop at any end.",
    avoid_when="One final model is wanted: a single long cosine is as good or better.",
    best_for="Snapshot ensembles.",
    paper="Loshchilov & Hutter 2017 (arXiv:1608.03983); Huang et al. 2017 (arXiv:1704.00109).",
    tune_first="first (the first cycle's length); mult 1 for snapshots, 2 for one model.",
    cost="Each restart undoes part of what the decay had gained, for a while.",
    pairs_with=("warmup",),
)  # fmt: skip
def cosine_restarts(first: int | str, mult: float = 1, end: float = 0.0) -> Schedule:
    """Decay along half a cosine, restart, and make every cycle ``mult`` times as long.

    ``restarts(total)`` of the schedule gives the steps at which cycles end.

    Math:
        in cycle i of length T_i = first * mult^i, at its step t:
        factor = end + (1 - end) * (1 + cos(pi * t / T_i)) / 2

    Args:
        first: length of the first cycle.
        mult: growth of the cycles, 1 or more.
        end: factor at the end of each, 0 or more.

    Raises:
        ValueError: mult below 1, a negative end, an impossible length.

    Example:
        >>> schedule = cosine_restarts(10, mult=2)
        >>> schedule(0), round(schedule(5), 2), schedule(10), round(schedule(20), 2)
        (1.0, 0.5, 1.0, 0.5)
        >>> schedule.restarts(100)
        [10, 30, 70]

    Reference:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, eq. 5.
    """
    check(mult >= 1, "mult must be 1 or more", mult)
    check(end >= 0, "end must be 0 or more", end)

    def shape(t: float, n: float, first: float) -> float:
        start, size = _cycle(t, first, mult)
        return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * (t - start) / size))

    def ends(n: float, first: float) -> Iterator[float]:
        return itertools.accumulate(first * mult**i for i in itertools.count())

    return Piece("cosine_restarts", shape, None, (("mult", mult), ("end", end)), (_fixed(first),),
                 ends)  # fmt: skip


def _cycle(t: float, first: float, mult: float) -> tuple[float, float]:
    """Return start and length of the cycle that step ``t`` lies in."""
    if mult == 1:
        return t // first * first, first
    start, size = 0.0, float(first)
    while t >= start + size:
        start, size = start + size, size * mult
    return start, size


@brick(
    "schedule", "cyclic", aliases=("clr", "triangular"),
    summary="Moves the rate up and down between two bounds, again and again.",
    use_when="The right rate is unknown and a range test has given its bounds.",
    avoid_when="A final model of best quality is wanted: it never settles unless stopped low.",
    best_for="Exploring; snapshots at the low points.",
    paper="Smith 2017 (arXiv:1506.01186).",
    tune_first="low and high, from a range test; then up: 2 to 10 epochs.",
    cost="Nothing.",
    pairs_with=("sgd",),
)  # fmt: skip
def cyclic(
    low: float, high: float, up: int | str, down: int | str | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular", gamma: float = 0.9999,
) -> Schedule:  # fmt: skip
    """Rise from ``low`` to ``high`` and fall back, without an end.

    Math:
        in cycle i (from 0), x = t/up while rising, 1 - (t - up)/down while falling:
        factor = low + (high - low) * x * s,
        s = 1 (triangular), 2^-i (triangular2), gamma^t_all (exp_range)

    Args:
        low: factor at the low points.
        high: factor at the first high point.
        up: length of the rise.
        down: length of the fall; as long as the rise unless given.
        mode: whether the height stays, is halved each cycle, or decays with every step.
        gamma: decay per step of ``"exp_range"``.

    Raises:
        ValueError: bounds in the wrong order, an unknown mode, an impossible length.

    Example:
        >>> schedule = cyclic(0.1, 1.0, up=10)
        >>> schedule(0), schedule(10), schedule(20)
        (0.1, 1.0, 0.1)

    Reference:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2017, section 3.
    """
    check(0 <= low < high, "bounds must be 0 <= low < high", (low, high))
    modes = ("triangular", "triangular2", "exp_range")
    check(mode in modes, f"mode must be one of {modes}", mode)
    check(0 < gamma <= 1, "gamma must be above 0 and at most 1", gamma)

    def shape(t: float, n: float, up: float, down: float) -> float:
        cycle, inside = divmod(t, up + down)
        x = inside / up if inside <= up else 1 - (inside - up) / down
        size = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**t}[mode]
        return low + (high - low) * x * size

    def ends(n: float, up: float, down: float) -> Iterator[float]:
        return ((up + down) * i for i in itertools.count(1))

    options = (("low", low), ("high", high), ("mode", mode), ("gamma", gamma))
    marks = (_fixed(up), _fixed(up if down is None else down))
    return Piece("cyclic", shape, None, options, marks, ends)


@dataclass(frozen=True, repr=False)
class OneCycle(Piece):
    """Hold one cycle, its peak where that is given as a rate, and the momentum beside it."""

    peak: float | None = None
    momentum: Schedule | None = None

    def resolve(
        self, total: int | None = None, epoch: int | None = None, used: int = 0
    ) -> OneCycle:
        ready = super().resolve(total, epoch, used)
        other = None if self.momentum is None else self.momentum.resolve(total, epoch, used)
        return OneCycle(ready.name, ready.shape, ready.length, ready.options, ready.marks,
                        ready.cycles, self.peak, other)  # fmt: skip

    @property
    def companions(self) -> dict[str, Schedule]:
        """Return the momentum's schedule, in values."""
        return {} if self.momentum is None else {"momentum": self.momentum}


@brick(
    "schedule", "one_cycle", aliases=("onecycle", "super_convergence"),
    summary="One rise to a high rate, one fall far below the start; momentum goes the other way.",
    use_when="A short budget and a model that bears high rates: small vision nets, fine-tuning.",
    avoid_when="Training may go on after its end, or the length is unknown.",
    best_for="A few to some tens of epochs with SGD or AdamW.",
    paper="Smith & Topin 2017 (arXiv:1708.07120); Smith 2018 (arXiv:1803.09820).",
    tune_first="The peak: a little below where lr_range_test's loss turns up.",
    cost="Nothing.",
    pairs_with=("sgd", "adamw"),
)  # fmt: skip
def one_cycle(
    total: int | str = "rest", peak: float | None = None, start_factor: float = 25.0,
    end_factor: float = 1e4, momentum: tuple[float, float] | None = (0.95, 0.85), up: float = 0.3,
    shape: Literal["cosine", "linear"] = "cosine",
) -> Schedule:  # fmt: skip
    """Rise to the peak, fall to nearly nothing, and move momentum inversely.

    Momentum (``momentum``, or the first of ``betas``) moves when the schedule is bound to an
    optimizer; as a plain function of the step it needs ``momentum=None``.

    Math:
        factor: 1/start_factor -> 1 over up*total, -> 1/(start_factor*end_factor) over the rest
        momentum: high -> low -> high

    Args:
        total: length of the cycle.
        peak: highest rate; the optimizer's own value unless given.
        start_factor: the peak divided by the first rate.
        end_factor: the first rate divided by the last.
        momentum: highest and lowest value; None leaves it alone.
        up: share of the rise, between 0 and 1.
        shape: cosine or straight lines.

    Raises:
        ValueError: an option outside its range, or an impossible length.

    Example:
        >>> schedule = one_cycle(100)
        >>> schedule(0), schedule(30), round(schedule(100) * 1e6, 3)
        (0.04, 1.0, 4.0)
        >>> schedule.companions["momentum"](30)
        0.85

    Reference:
        Smith & Topin, Super-Convergence, 2017, section 3; cosine form as torch's OneCycleLR.
    """
    check(peak is None or peak > 0, "peak must be a rate above 0", peak)
    check(start_factor >= 1 and end_factor >= 1, "start_factor and end_factor must be 1 or more",
          (start_factor, end_factor))  # fmt: skip
    check(0 < up < 1, "up must be between 0 and 1", up)
    check(shape in ("cosine", "linear"), "shape must be 'cosine' or 'linear'", shape)
    length, first = Length.parse(total), 1 / start_factor
    other = None
    if momentum is not None:
        high, low = momentum
        check(0 <= low <= high < 1, "momentum must be (high, low) with 0 <= low <= high < 1",
              momentum)  # fmt: skip
        other = Piece("momentum", _there_and_back(high, low, high, up, shape), length)
    options = (("peak", peak), ("start_factor", start_factor), ("end_factor", end_factor),
               ("momentum", momentum), ("up", up), ("shape", shape))  # fmt: skip
    curve = _there_and_back(first, 1.0, first / end_factor, up, shape)
    return OneCycle("one_cycle", curve, length, options, peak=peak, momentum=other)


def _there_and_back(
    first: float, middle: float, last: float, up: float, shape: str
) -> Callable[[float, float], float]:
    """Return a curve through three values, the middle one after a share ``up`` of its length."""

    def between(a: float, b: float, x: float) -> float:
        return a + (b - a) * (x if shape == "linear" else 0.5 * (1 - math.cos(math.pi * x)))

    def curve(t: float, n: float) -> float:
        rise = up * n
        if t <= rise:
            return between(first, middle, t / rise)
        return between(middle, last, (t - rise) / (n - rise))

    return curve


@brick(
    "schedule", "wsd", aliases=("warmup_stable_decay", "trapezoidal"),
    summary="Warms up, stays at the full rate, and decays at the end only.",
    use_when="The length is open: branch off a decay whenever a finished model is wanted.",
    avoid_when="Runs are short and compared at one length: linear and cosine are as good.",
    best_for="Pretraining of language models; comparing many training lengths from one run.",
    paper="Hu et al. 2024 (MiniCPM, arXiv:2404.06395); Haegele et al. 2024 (arXiv:2405.18392).",
    tune_first="The decay's length: 10 to 20 % of the steps.",
    cost="Nothing; models before the decay look worse than they are.",
    pairs_with=("adamw",),
)  # fmt: skip
def wsd(
    warmup_steps: int | str = "2%", stable: int | str = "rest", decay: int | str = "20%",
    end: float = 0.0, shape: Literal["linear", "cosine", "sqrt"] = "linear",
) -> Schedule:  # fmt: skip
    """Run a warmup, a plateau at the full rate, and a decay.

    Math:
        warmup: t/warmup;  stable: 1;  decay over x in [0, 1]:
        linear 1 - x, cosine (1 + cos(pi*x))/2, sqrt 1 - sqrt(x); scaled to end at `end`

    Args:
        warmup_steps: length of the warmup.
        stable: length of the plateau.
        decay: length of the decay.
        end: factor at its end, 0 or more.
        shape: of the decay.

    Raises:
        ValueError: a negative end, an unknown shape, an impossible length.

    Example:
        >>> schedule = wsd(10, 70, 20)
        >>> schedule(5), schedule(50), schedule(90), schedule(100)
        (0.5, 1.0, 0.5, 0.0)

    Reference:
        Haegele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations,
        2024, section 3.
    """
    check(end >= 0, "end must be 0 or more", end)
    check(shape in ("linear", "cosine", "sqrt"), "shape must be linear, cosine or sqrt", shape)
    if shape == "sqrt":
        last: Schedule = Piece("sqrt", lambda t, n: 1 + (end - 1) * math.sqrt(t / n),
                               Length.parse(decay), (("end", end),))  # fmt: skip
    else:
        last = (linear if shape == "linear" else cosine)(decay, end)
    return warmup(warmup_steps) >> constant(1.0, stable) >> last
