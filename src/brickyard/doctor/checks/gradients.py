"""Checks of gradients and steps: that they exist, are fresh, finite, in order and of some size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check, some
from brickyard.doctor.observe.record import OptimizerSeen, ParamSeen, Seen


def _params(seen: Seen, optimizer: OptimizerSeen) -> list[ParamSeen]:
    return [p for p in seen.params if optimizer.index in p.optimizers]


@check(
    32, "grad-none-params", "warning", weight=0.6,
    sees="trainable parameters in an optimizer whose gradient is None at every look, in layers "
    "that were called",
    why="These layers run but do not learn: their output is cut off from the loss.",
    try_="Look for detach(), no_grad(), .data or a reentrant checkpoint whose inputs need no "
    "gradient (use_reentrant=False) behind them.",
    allows="layers that are not called, heads that the loss does not use, encoders run without "
    "gradients on purpose (information only), experts and branches used in turn",
    source="discuss.pytorch.org/t/19117",
)  # fmt: skip
def grad_none(seen: Seen) -> Iterable[Say]:
    """Report layers that are cut off from the loss."""
    cut_off = seen.of("checkpoint-without-grad")
    if cut_off:
        count = sum(n.values["params"] for n in cut_off)
        yield Say(
            f"{count} parameters of {some(n.where for n in cut_off)} got no gradient in "
            f"{cut_off[0].values['steps']} steps: the block runs inside torch.utils.checkpoint "
            "(reentrant) and none of its inputs requires a gradient.",
            cut_off[0].where, cut_off[0].place,
        )  # fmt: skip
        return
    for optimizer in seen.optimizers:
        mine = [p for p in _params(seen, optimizer) if p.trainable and p.looked >= T.LOOKS]
        cut = [p for p in mine if p.none == p.looked and p.order >= 0 and p.tracked]
        if cut and any(p.grad for p in mine):
            yield Say(
                f"{len(cut)} of {len(mine)} parameters of {optimizer.name} had no gradient in "
                f"{cut[0].looked} steps looked at, although their layers were called: "
                f"{some(p.name for p in cut)}.",
                cut[0].name, optimizer.place, severity="info",
            )  # fmt: skip


@check(
    33, "grad-zero-layer", "warning", weight=0.5,
    sees="weights whose gradient is exactly zero, in all elements, at every look",
    why="The layer runs but cannot learn: something behind it multiplies by zero.",
    try_="Look for dead units, zero weights or a saturated output behind the layer.",
    allows="embeddings, first steps of branches that start at zero, experts used in turn",
    source="TheDeepChecker, pitfall unbreaking symmetry",
)  # fmt: skip
def grad_zero(seen: Seen) -> Iterable[Say]:
    """Report weights with a gradient of nothing but zeros."""
    for optimizer in seen.optimizers:
        if optimizer.looked < T.FIRST_STEPS + T.WINDOW:
            continue
        mine = [p for p in _params(seen, optimizer) if len(p.shape) >= 2 and p.trainable]
        zero = [p for p in mine if p.looked > T.LOOKS and p.zero == p.looked]
        zero = [p for p in zero if "Embedding" not in p.owner and p.tracked and p.order >= 0]
        if zero:
            yield Say(
                f"All elements of the gradient of {some(p.name for p in zero)} were 0 in "
                f"{zero[0].looked} steps looked at.",
                zero[0].name, optimizer.place,
            )  # fmt: skip


@check(
    39, "step-noop", "error", weight=0.8,
    sees="optimizer steps with a rate above 0 and gradients that change no parameter",
    why="Nothing is learned: the step has no effect.",
    try_="Look at what the optimizer holds, at its rate, and at weights in half precision, which "
    "cannot take small updates.",
    allows="steps at rate 0 (warm-up), skipped steps of loss scaling, wrappers that step later",
    source="discuss.pytorch.org/t/84911",
)  # fmt: skip
def step_noop(seen: Seen) -> Iterable[Say]:
    """Report steps that change nothing."""
    for optimizer in seen.optimizers:
        if optimizer.unchanged >= T.LOOKS and not optimizer.changed:
            rate = max((g.get("lr") or 0.0) for g in optimizer.groups)
            yield Say(
                f"{optimizer.unchanged} of {optimizer.unchanged} steps looked at changed no "
                f"sampled element of any parameter, with gradients and a rate of {rate:.3g}.",
                optimizer.name, optimizer.step_place,
            )  # fmt: skip


@check(
    43, "stale-grad", "error", weight=1.0,
    sees="gradients that are not zero when the first backward pass after a step begins",
    why="Gradients of all earlier batches are added up: steps grow and go the wrong way.",
    try_="optimizer.zero_grad() once per step, before backward().",
    allows="accumulation (several passes before a step), several losses, models that another "
    "model's loss passes through and whose own optimizer clears them first",
    source="stackoverflow.com/questions/60335387, pytorch/pytorch#47175",
)  # fmt: skip
def stale_grad(seen: Seen) -> Iterable[Say]:
    """Report gradients that are never cleared."""
    for note in seen.of("stale-grad"):
        if note.in_row >= T.IN_ROW or note.count >= T.LOOKS:
            yield Say(
                f"In {note.count} steps looked at, gradients of the parameters of {note.where} "
                "were still those of the last step when the next backward pass began.",
                note.where, note.place,
            )  # fmt: skip


_ORDER = {
    "clip-after-step": (
        "gradients are clipped after the optimizer's step, before the next backward pass",
        "Clipping comes too late to have an effect: the step used the unclipped gradients.",
        "backward(), then clip, then optimizer.step().",
    ),
    "clip-before-backward": (
        "gradients are clipped before the backward pass, when they are still zero or None",
        "There is nothing to clip yet; the step uses unclipped gradients.",
        "backward(), then clip, then optimizer.step().",
    ),
    "clip-scaled": (
        "gradients are clipped while GradScaler's factor is still in them",
        "The norm is thousands of times too large, so every step is clipped to almost nothing.",
        "scaler.unscale_(optimizer) before clipping.",
    ),
    "discarded-grad": (
        "zero_grad() clears the gradients of a backward pass that no step has used",
        "Accumulation is lost: only the last micro-batch counts.",
        "Call zero_grad() once per optimizer step, outside of the loop over micro-batches.",
    ),
}


@check(
    44, "call-order", "error", weight=1.0,
    sees="the order of backward, unscale_, clip, step, zero_grad and scheduler.step",
    why="In another order these calls have no effect, or the wrong one.",
    try_="zero_grad, backward, unscale_, clip, optimizer.step, scheduler.step.",
    allows="gradients that several optimizers share, closures, weights perturbed between two "
    "passes (SAM), steps that loss scaling skips",
    source="VGraphRNN/VGRNN#4, awslabs/graphstorm#1366, Lightning-AI/pytorch-lightning#9599, "
    "bytetriper/RAE#67",
)  # fmt: skip
def call_order(seen: Seen) -> Iterable[Say]:
    """Report calls in an order in which they do not work."""
    for kind, (what, why, advice) in _ORDER.items():
        for note in seen.of(kind):
            if note.count < T.IN_ROW:
                continue
            more = ""
            if kind == "clip-scaled":
                more = f", which is {note.values['scale']:g}"
            elif kind == "discarded-grad":
                more = f" ({note.values['lost']} of {note.values['backwards']} passes lost)"
            yield Say(
                f"In {note.count} steps looked at, {what}{more}.", note.where, note.place,
                why=why, try_=advice,
            )  # fmt: skip
    for scheduler in seen.schedulers:
        if scheduler.early and scheduler.optimizer >= 0 and scheduler.calls >= 2:
            yield Say(
                f"{scheduler.name}.step() was called before the optimizer's first step.",
                scheduler.name, scheduler.place, severity="info",
                why="The first value of the schedule is skipped.",
                try_="optimizer.step() first, then scheduler.step().",
            )  # fmt: skip


@check(
    45, "accum-scale", "warning", weight=0.9,
    sees="several backward passes of a mean loss before a step, from one line, not divided",
    why="The gradient is the sum of the micro-batches' means: K times that of the large batch.",
    try_="Divide each loss by the number of micro-batches, or by the number of targets in all.",
    allows="sums, losses that are scaled, gradients divided later, passes from several lines",
    source="huggingface/transformers#34191, meta-pytorch/torchtune#1875",
)  # fmt: skip
def accum_scale(seen: Seen) -> Iterable[Say]:
    """Report accumulation without division."""
    for note in seen.of("accumulated"):
        if note.count >= T.LOOKS:
            yield Say(
                f"{note.values['passes']} backward passes of a mean loss before each step of "
                f"{note.where}, none divided, in {note.count} steps looked at: the gradient is "
                f"{note.values['passes']} times too large.",
                note.where, note.place,
            )  # fmt: skip


@check(
    46, "nonfinite", "error", weight=0.95,
    sees="a loss, gradient or activation that is NaN or infinite",
    why="One non-finite value spreads to all weights with the next step.",
    try_="Keep arguments away from the edge (sqrt(x + eps), log(clamp(x, eps)), where on the "
    "input, not on the result), lower the rate, or clip gradients.",
    allows="steps that GradScaler skips",
    source="akanazawa/cmr#11, pytorch/pytorch#2421",
)  # fmt: skip
def nonfinite(seen: Seen) -> Iterable[Say]:
    """Report the first value that is not finite."""
    notes = seen.of("nonfinite-grad")
    for note in notes[:1]:
        v = note.values
        loss = f" while the loss was {v['loss']:.4g}" if v.get("loss") is not None else ""
        by = f" The backward pass goes through {v['op']}: {v['reason']}." if v.get("op") else ""
        behind = f"; gradients from {v['after']} on are finite" if v.get("after") else ""
        yield Say(
            f"{v['bad']} of {v['bad'] + v['good']} gradients were not finite at step "
            f"{note.step + 1}{loss}{behind}.{by}",
            note.where, note.place, step=note.step + 1,
        )  # fmt: skip
    if notes:
        return
    for note in seen.of("nonfinite-loss")[:1]:
        v = note.values
        if v.get("scaled") and note.count < 3:
            continue
        before = f" after {v['before']:.4g}" if v.get("before") is not None else ""
        first = f"; the first layer with such an output is {v['module']}" if "module" in v else ""
        data = "; the batch itself holds such values" if v.get("input_bad") else ""
        yield Say(
            f"The loss was {v['value']} at step {note.step + 1}{before}{first}{data}.",
            v.get("module", "loss"), note.place, step=note.step + 1,
        )  # fmt: skip


@check(
    47, "amp-health", "warning", weight=0.5,
    sees="the share of steps that GradScaler skipped, and its scale",
    why="Skipped steps learn nothing; a scale below 1 means gradients overflow half precision.",
    try_="Look for a layer that overflows, use bfloat16, or clip gradients.",
    allows="the first steps, in which the scale finds its level",
    source="pytorch documentation of GradScaler",
)  # fmt: skip
def amp_health(seen: Seen) -> Iterable[Say]:
    """Report loss scaling that keeps skipping."""
    updates = seen.scaler.get("updates", 0)
    skipped = [u for u in seen.scaler.get("skipped_at", []) if u > max(30, updates - 200)]
    window = min(updates - 30, 200)
    if window >= 50 and len(skipped) / window > T.SCALER_SKIPS:
        yield Say(
            f"{len(skipped)} of the last {window} steps ({len(skipped) / window:.1%}) were "
            f"skipped; the scale is {seen.scaler.get('scale', 1.0):g}.",
            "GradScaler",
        )  # fmt: skip
    elif updates > 30 and seen.scaler.get("scale", 1.0) < 1.0:
        yield Say(f"The scale fell to {seen.scaler['scale']:.3g} in {updates} steps.", "GradScaler")


@check(
    48, "update-ratio", "warning", weight=0.6,
    sees="the size of a step relative to the weights it changes, by layer",
    why="Steps as large as the weights destroy what was learned; steps below the precision of "
    "float32 change nothing.",
    try_="Lower the rate tenfold (or raise it when updates are tiny); brickyard lr-range finds it.",
    allows="the first steps of adaptive optimizers, weights that start at zero, warm-up",
    source="Karpathy, lecture notes of CS231n; stackoverflow.com/questions/37624102",
)  # fmt: skip
def update_ratio(seen: Seen) -> Iterable[Say]:
    """Report steps far too large or far too small."""
    for optimizer in seen.optimizers:
        ratios = {k: r for k, r in optimizer.update_ratios.items() if len(r) >= T.LOOKS}
        if not ratios:
            continue
        rate = max((g.get("lr") or 0.0) for g in optimizer.groups)
        middle = {name: median(r[1:]) for name, r in ratios.items()}
        name = max(middle, key=lambda n: middle[n])
        wild = [n for n, r in ratios.items() if max(r) > T.UPDATE_WILD]
        if len(wild) * 2 >= len(ratios) and wild:
            worst = max(wild, key=lambda n: max(ratios[n]))
            yield Say(
                f"Single steps changed {worst} by up to {max(ratios[worst]):.3g} times its size "
                f"(rate {rate:.3g}); likewise {len(wild) - 1} of {len(ratios) - 1} other weights.",
                worst, optimizer.place,
            )  # fmt: skip
        elif min(middle.values()) > T.UPDATE_HIGH and len(ratios[name]) >= 6:
            yield Say(
                f"The median step changes {name} by {middle[name]:.3g} times its size, and every "
                f"weight by more than {T.UPDATE_HIGH} (rate {rate:.3g}).",
                name, optimizer.place,
            )  # fmt: skip
        elif max(middle.values()) < T.UPDATE_LOW and optimizer.steps >= 8 and _flat(optimizer):
            yield Say(
                f"The median step changes every weight by less than {T.UPDATE_LOW:g} of its size "
                f"(the most: {name}, {middle[name]:.2g}; rate {rate:.3g}).",
                name, optimizer.place,
            )  # fmt: skip


def _flat(optimizer: OptimizerSeen) -> bool:
    """Say whether the rate is not in a warm-up (still rising) or a decay (far below its peak)."""
    rates = optimizer.rates
    return not rates or (rates[-1] <= rates[0] * 1.01 and max(rates) <= 10 * max(rates[-1], 1e-300))


@check(
    51, "grad-norm-anomaly", "info", weight=0.2,
    sees="the norm of one gradient step by step, against the median of 200 steps; the gradient of "
    "the first layer against that of the last",
    why="Single batches with huge gradients can undo many steps.",
    try_="Clip gradients by norm (clip_grad_norm_); look at the batches of these steps.",
    allows="leaps that happen once or twice in 50 steps, gradients that are clipped before the "
    "step, drifts, batches without any gradient; first layers that are embeddings; it is "
    "information only, since rare batches are healthy in many tasks",
    source="Pascanu et al. 2013, On the difficulty of training recurrent networks",
)  # fmt: skip
def grad_norm(seen: Seen) -> Iterable[Say]:
    """Report gradients that leap again and again, and those that vanish on their way."""
    for optimizer in seen.optimizers:
        found = _leaps(optimizer.norms)
        if found is not None:
            at, count, times, middle = found
            yield Say(
                f"{count} of {T.GRAD_RECENT} steps up to step {at} had gradients of "
                f"{optimizer.gauged} far above the others: up to {times:.3g} times the median norm "
                f"{middle:.3g} of {T.GRAD_WINDOW} steps.",
                optimizer.gauged, optimizer.step_place, step=at,
            )  # fmt: skip
        layers = [p for p in _params(seen, optimizer) if p.order >= 0 and p.tracked and p.trainable]
        layers = [p for p in layers if len(p.sizes) >= T.LOOKS and "Embedding" not in p.owner]
        if len(layers) < 2:
            continue
        first, last = min(layers, key=lambda p: p.order), max(layers, key=lambda p: p.order)
        one, two = median(first.sizes), median(last.sizes)
        if 0.0 < one < T.GRAD_VANISHED * two and first.order < last.order:
            yield Say(
                f"The gradient of the first layer ({first.name}, {one:.2g} per element) is "
                f"{one / two:.1g} times that of the last one ({last.name}, {two:.2g}), in the "
                f"middle of {len(first.sizes)} steps looked at.",
                first.name, optimizer.place,
                why="Gradients vanish on their way back: the first layers hardly learn.",
                try_="Residual connections, a norm between layers, ReLU or GELU instead of sigmoid "
                "and tanh, or initializers that keep the spread.",
            )  # fmt: skip


def _leaps(norms: list[float]) -> tuple[int, int, float, float] | None:
    """Return where the norm leapt often: step, how often, by how much at the most, the median."""
    logs = [math.log(v) for v in norms if 0.0 < v < math.inf]
    for end in range(T.GRAD_WINDOW, len(logs) + 1, T.GRAD_RECENT):
        window = logs[end - T.GRAD_WINDOW : end]
        middle = median(window)
        spread = max(median(abs(v - middle) for v in window), T.GRAD_LEAST)
        far = [v - middle for v in window[-T.GRAD_RECENT :] if v - middle > T.GRAD_MAD * spread]
        if len(far) >= T.GRAD_TIMES:
            return end, len(far), math.exp(max(far)), math.exp(middle)
    return None
