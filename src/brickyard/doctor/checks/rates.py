"""Checks of learning rates, their schedules and epsilon."""

from __future__ import annotations

from collections.abc import Iterable

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
                    f"eps={eps:g} outweighs gradients below it.", optimizer.name, optimizer.place,
                    severity="info",
                )  # fmt: skip


@check(
    15, "scheduler-horizon", "warning", weight=0.8,
    sees="the length a scheduler is planned for, against how often it is stepped",
    why="A schedule in epochs that is stepped per batch runs out in the first epoch; one in steps "
    "that is stepped per epoch never leaves its warm-up.",
    try_="Step it where its unit says: per batch with total_steps = epochs * len(loader), or per "
    "epoch with T_max = epochs.",
    allows="warm restarts and cyclic schedules, schedules by a function of the user's, runs that "
    "are cut short",
    source="Lornatang/SRGAN-PyTorch#1, ivadomed/ivadomed#55, pytorch/pytorch#65417",
)  # fmt: skip
def scheduler_horizon(seen: Seen) -> Iterable[Say]:
    """Report schedules stepped in another unit than they are planned in."""
    for one in seen.schedulers:
        if one.restarts or one.name == "ReduceLROnPlateau":
            continue
        steps = _steps(seen, one)
        per_step = one.calls >= 0.9 * steps and steps >= 8
        per_epoch = seen.epoch >= 2 and one.calls <= seen.epoch + 1 and steps >= 4 * seen.epoch
        if one.horizon and per_step and one.calls > T.HORIZON_LONG * one.horizon:
            first = one.over_step and (not seen.epoch or one.first_epoch > one.horizon)
            if first or seen.epoch <= 1:
                yield Say(
                    f"{one.name} with {one.horizon_name}={one.horizon} was stepped {one.calls} "
                    f"times in {max(seen.epoch, 1)} epochs, once per optimizer step; it had run "
                    f"out in the first epoch.",
                    one.name, one.place, step=one.over_step,
                )  # fmt: skip
        elif one.horizon and per_epoch and seen.finished:
            short = one.calls < T.HORIZON_SHORT * one.horizon
            if short and one.horizon > 0.5 * steps:
                yield Say(
                    f"{one.name} with {one.horizon_name}={one.horizon} was stepped {one.calls} "
                    f"times, once per epoch, while the optimizer made {steps} steps: it got "
                    f"{one.calls / one.horizon:.1%} of the way.",
                    one.name, one.place,
                )  # fmt: skip


def _steps(seen: Seen, one: SchedulerSeen) -> int:
    if one.optimizer >= 0:
        return seen.optimizers[one.optimizer].steps
    return seen.step


@check(
    49, "lr-trace", "warning", weight=0.6,
    sees="the rates that steps were made with",
    why="At a rate near zero nothing is learned any more, whatever else is right.",
    try_="Look at where the scheduler is stepped, and at its unit.",
    allows="warm-up, the end of a schedule, single steps at rate 0, rates that restart",
    source="ivadomed/ivadomed#55",
)  # fmt: skip
def lr_trace(seen: Seen) -> Iterable[Say]:
    """Report rates that vanish early."""
    for optimizer in seen.optimizers:
        rates = optimizer.rates
        if len(rates) < 20:
            continue
        peak = max(rates)
        if peak == 0.0:
            yield Say(f"All {len(rates)} steps were made at rate 0.", optimizer.name,
                      optimizer.place)  # fmt: skip
            continue
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
