"""Checks of learning rates, their schedules and epsilon."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check
from brickyard.doctor.observe.record import OptimizerSeen, SchedulerSeen, Seen

_ADAPTIVE = ("adam", "adagrad", "adadelta", "rmsprop", "lion", "lamb", "radam", "adamax")


def _adaptive(optimizer: OptimizerSeen) -> bool:
    return any(name in optimizer.name.lower() for name in _ADAPTIVE)


@check(
    13, "lr-static", "info", weight=0.3,
    sees="the learning rate against the family of the optimizer",
    why="Outside of this range no published run of that optimizer learns.",
    try_="Adam near 1e-3, SGD near 1e-1 (with batch norm) or 1e-2; brickyard lr-range finds it.",
    allows="rates of 0, as in warm-up",
    source="defaults and recipes of torch and timm",
)  # fmt: skip
def lr_static(seen: Seen) -> Iterable[Say]:
    """Report rates that no optimizer of the family is used with."""
    for optimizer in seen.optimizers:
        if "SGD" not in optimizer.name and "adam" not in optimizer.name.lower():
            continue
        peak = max(optimizer.rates, default=0.0)
        low, high = T.SGD_RATES if "SGD" in optimizer.name else T.ADAM_RATES
        if peak and not low <= peak <= high:
            yield Say(
                f"{optimizer.name} with lr={peak:g}; usual: between {low:g} and {high:g}.",
                optimizer.name, optimizer.place,
            )  # fmt: skip


@check(
    14, "adam-eps-dtype", "warning", weight=0.5,
    sees="epsilon against the precision of the parameters",
    why="1e-8 is 0 in float16: the first division by a zero average gives infinity. A large "
    "epsilon turns Adam into SGD with a small rate.",
    try_="Keep parameters in float32 under autocast, or eps=1e-4 for float16.",
    allows="float32 and bfloat16 parameters, optimizers without epsilon",
    source="pytorch forum: Adam with half precision gives NaN",
)  # fmt: skip
def adam_eps(seen: Seen) -> Iterable[Say]:
    """Report an epsilon that vanishes or dominates."""
    for optimizer in seen.optimizers:
        for group in optimizer.groups:
            eps = group.get("eps")
            if not isinstance(eps, int | float) or "adam" not in optimizer.name.lower():
                continue
            half = "torch.float16" in group["dtypes"]
            if half and eps < T.EPS_HALF:
                yield Say(
                    f"eps={eps:g} with float16 parameters, whose smallest value is 6e-8.",
                    optimizer.name, optimizer.place,
                )  # fmt: skip
            elif eps > T.EPS_LARGE:
                yield Say(
                    f"eps={eps:g}: where the gradients' running root mean square is below it, "
                    f"steps are the rate times the gradient over {eps:g}, as of SGD.",
                    optimizer.name, optimizer.place, severity="info",
                )  # fmt: skip


@check(
    15, "scheduler-horizon", "warning", weight=0.8,
    sees="the length a scheduler is planned for, against how often it is stepped",
    why="A schedule in epochs that is stepped per batch runs out in the first epoch; one in steps "
    "that is stepped per epoch never leaves its warm-up; one that is longer than the run never "
    "comes to its small rates, at which the last gains are made.",
    try_="Step it where its unit says: per batch with total_steps = epochs * len(loader) (divided "
    "by the passes that are accumulated), or per epoch with T_max = epochs.",
    allows="warm restarts and cyclic schedules, schedules by a function of the user's, runs that "
    "fail; runs that end early (early stopping, a first try) and cosines that rise again are "
    "information only",
    source="Lornatang/SRGAN-PyTorch#1, ivadomed/ivadomed#55, pytorch/pytorch#65417",
)  # fmt: skip
def scheduler_horizon(seen: Seen) -> Iterable[Say]:
    """Report schedules stepped in another unit than they are planned in."""
    for one in seen.schedulers:
        if one.restarts or one.name == "ReduceLROnPlateau" or not one.horizon:
            continue
        steps, horizon = _steps(seen, one), one.horizon
        per_step = one.calls >= 0.9 * steps and steps >= 8
        per_epoch = seen.epoch >= 2 and one.calls <= seen.epoch + 1 and steps >= 4 * seen.epoch
        plan = f"{one.name} with {one.horizon_name}={horizon} was stepped {one.calls} times"
        if per_step and one.calls > T.HORIZON_LONG * horizon:
            first = one.over_step and (not seen.epoch or one.first_epoch > horizon)
            if first or seen.epoch <= 1:
                yield Say(
                    f"{plan} in {max(seen.epoch, 1)} epochs, once per optimizer step; it had run "
                    f"out in the first epoch.",
                    one.name, one.place, step=one.over_step,
                )  # fmt: skip
        elif not seen.finished or one.calls < 1:
            continue
        elif one.calls < T.HORIZON_SHORT * horizon:
            yield from _unfinished(seen, one, plan, steps, per_step, per_epoch)
        elif per_epoch and "T_max" in one.horizon_name and one.calls > T.HORIZON_LONG * horizon:
            yield Say(
                f"{plan}, once per epoch: after {horizon} epochs the rate rose again.",
                one.name, one.place, severity="info",
                why="A cosine that goes on behind T_max climbs back to its peak.",
                try_="T_max = epochs, or CosineAnnealingWarmRestarts when restarts are meant.",
            )  # fmt: skip


def _unfinished(
    seen: Seen, one: SchedulerSeen, plan: str, steps: int, per_step: bool, per_epoch: bool
) -> Iterable[Say]:
    """Report schedules that the run ended in the first half of, and the unit that explains it."""
    horizon = one.horizon or 1
    way = f"it got {one.calls / horizon:.1%} of the way"
    if per_epoch and horizon > 0.5 * steps:
        yield Say(
            f"{plan}, once per epoch, while the optimizer made {steps} steps: {way}.",
            one.name, one.place,
        )  # fmt: skip
        return
    if not (per_step or per_epoch):
        return
    unit = "once per optimizer step" if per_step else "once per epoch"
    for number, what in _units(seen, steps) if per_step and steps >= T.UNIT_STEPS else ():
        if abs(horizon / one.calls / number - 1.0) < T.UNIT_OFF:
            yield Say(
                f"{plan}, {unit}, and the run ended: {way}. The plan is {number} times too long, "
                f"and {number} is {what}: it counts another unit than it is stepped in.",
                one.name, one.place,
            )  # fmt: skip
            return
    yield Say(
        f"{plan}, {unit}, and the run ended: {way}, at a rate of {_rate(seen, one):.3g}.",
        one.name, one.place, severity="info",
        try_="Plan the schedule for the run's real length; nothing to do when it was stopped early "
        "on purpose.",
    )  # fmt: skip


def _units(seen: Seen, steps: int) -> Iterable[tuple[int, str]]:
    """Yield numbers by which plans are too long when they count samples, or accumulated passes."""
    for size in {x.facts.get("batch_size") for x in seen.loaders if x.training}:
        if isinstance(size, int) and size >= T.UNIT_LEAST:
            yield size, "the batch size"
    passes = round(seen.backwards / max(steps, 1))
    if passes > 2 and abs(seen.backwards / passes / max(steps, 1) - 1.0) < T.UNIT_OFF:
        yield passes, "the number of backward passes per step"


def _rate(seen: Seen, one: SchedulerSeen) -> float:
    rates = seen.optimizers[one.optimizer].rates if one.optimizer >= 0 else []
    return rates[-1] if rates else 0.0


def _steps(seen: Seen, one: SchedulerSeen) -> int:
    if one.optimizer >= 0:
        return seen.optimizers[one.optimizer].steps
    return seen.step


@check(
    49, "lr-trace", "warning", weight=0.6,
    sees="the rates that steps were made with",
    why="At a rate near zero nothing is learned any more, whatever else is right.",
    try_="Look at where the scheduler is stepped, and at its unit.",
    allows="warm-up, the end of a schedule, single steps at rate 0, rates that restart; rates that "
    "go up and down without a scheduler, or by a cyclic one, are meant",
    source="ivadomed/ivadomed#55",
)  # fmt: skip
def lr_trace(seen: Seen) -> Iterable[Say]:
    """Report rates that vanish early, or that go up and down within an epoch."""
    for optimizer in seen.optimizers:
        rates = optimizer.rates
        if len(rates) < 20:
            continue
        peak = max(rates)
        if peak == 0.0:
            yield Say(f"All {len(rates)} steps were made at rate 0.", optimizer.name,
                      optimizer.place)  # fmt: skip
            continue
        yield from _flips(seen, optimizer)
        top = rates.index(peak)
        gone = next((i for i in range(top, len(rates)) if rates[i] < T.LR_VANISHED * peak), None)
        if gone is None or max(rates[gone:]) >= T.LR_VANISHED * peak:
            continue
        first = seen.epoch_steps[1] if len(seen.epoch_steps) > 1 else None
        in_first = first is not None and gone < first and len(rates) > first + 8
        early = seen.finished and gone < T.LR_EARLY * len(rates)
        if in_first or early:
            yield Say(
                f"The rate fell from {peak:.3g} below a thousandth of it at step {gone + 1} of "
                f"{len(rates)}, and stayed there.",
                optimizer.name, optimizer.place, step=gone + 1,
            )  # fmt: skip


def _flips(seen: Seen, optimizer: OptimizerSeen) -> Iterable[Say]:
    """Report rates that turn around again and again, from a scheduler that is not cyclic."""
    mine = [s for s in seen.schedulers if s.optimizer == optimizer.index]
    if not mine or any(s.restarts for s in mine) or len(seen.optimizers) > 1:
        return
    ends = [*seen.epoch_steps[1:], len(optimizer.rates)] if seen.epoch_steps else []
    for epoch, (begin, end) in enumerate(pairwise([0, *ends]), start=1):
        rates = optimizer.rates[begin:end]
        moves = [b > a for a, b in pairwise(rates) if b != a]
        flips = sum(a != b for a, b in pairwise(moves))
        if flips > T.LR_FLIPS:
            yield Say(
                f"In epoch {epoch} the rate turned around {flips} times in {len(rates)} steps, "
                f"between {min(rates):.3g} and {max(rates):.3g}, by {mine[0].name}.",
                optimizer.name, mine[0].place, step=begin + 1,
                why="A schedule planned in epochs runs through its whole course within one.",
                try_="Step it once per epoch, or plan it in steps: T_max = epochs * len(loader).",
            )  # fmt: skip
            return
