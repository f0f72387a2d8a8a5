"""Checks of single layers: dropout, batch norm, units that died."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check, some
from brickyard.doctor.observe.record import NOWHERE, Seen


@check(
    10, "dropout-p", "warning", weight=0.5,
    sees="the probability of dropout layers",
    why="p is the share that is dropped, not kept: near 1 hardly anything passes, at 1 nothing.",
    try_="0.1 to 0.5 is usual.",
    allows="probabilities below 0.8",
    source="Srivastava et al. 2014; keep_prob of TensorFlow 1 is 1 - p",
)  # fmt: skip
def dropout_p(seen: Seen) -> Iterable[Say]:
    """Report dropout that leaves hardly anything."""
    for module in seen.modules.values():
        p = module.facts.get("p")
        if p is not None and p >= T.DROPOUT:
            yield Say(
                f"{module.kind} with p={p:g} drops {p:.0%} of its input and scales the rest "
                + (f"by {1 / (1 - p):.3g}." if p < 1 else "by nothing: all is 0."),
                module.name,
            )  # fmt: skip


@check(
    11, "bn-config", "warning", weight=0.6,
    sees="momentum of batch norms, and how many values per channel a batch gives",
    why="With a momentum near 0 the running statistics stay at their start and evaluation is "
    "wrong; with few values per channel they are noise.",
    try_="momentum=0.1 (torch's momentum is the weight of the new batch, 1 - that of Keras); "
    "group or layer norm for small batches.",
    allows="momentum=None (a plain average), layers in evaluation mode, small last batches",
    source="discuss.pytorch.org/t/7561, discuss.pytorch.org/t/3323",
)  # fmt: skip
def bn_config(seen: Seen) -> Iterable[Say]:
    """Report batch norms whose statistics cannot be right."""
    low, high = T.BN_MOMENTUM
    odd = [
        m
        for m in seen.modules.values()
        if m.facts.get("tracks") and m.facts.get("momentum") is not None and m.looks
        and not low < m.facts["momentum"] < high
    ]  # fmt: skip
    if odd:
        kind = "never follow the data" if odd[0].facts["momentum"] <= low else "follow one batch"
        yield Say(
            f"momentum={odd[0].facts['momentum']:g} in {some(m.name for m in odd)}: the running "
            f"statistics {kind}.",
            odd[0].name,
        )  # fmt: skip
    small = [
        m
        for m in seen.modules.values()
        if m.looks >= T.LOOKS and m.facts.get("values")
        and median(m.facts["values"]) < T.BN_VALUES
        and not all(m.facts.get("frozen", {0: False}).values())
    ]  # fmt: skip
    if small:
        count = int(median(small[0].facts["values"]))
        yield Say(
            f"{some(m.name for m in small)}: {count} values per channel in a batch.", small[0].name,
        )  # fmt: skip


@check(
    54, "dead-units", "error", weight=0.5,
    sees="units of ReLU layers that fired for no sample; outputs of tanh and sigmoid at their ends",
    why="Dead and saturated units pass no gradient: that part of the layer is lost.",
    try_="Lower the rate, scale the inputs, use another start, or LeakyReLU, GELU.",
    allows="a layer's minority; outputs that go into a loss; few samples",
    source="Lu et al. 2020, Dying ReLU and initialization",
)  # fmt: skip
def dead_units(seen: Seen) -> Iterable[Say]:
    """Report layers of which most units are dead or saturated."""
    for module in seen.modules.values():
        place = module.facts.get("place", NOWHERE)
        dead = max(module.facts.get("dead", 0.0), 0.0)
        if module.looks % 12 >= T.DEAD_BATCHES and module.samples >= T.DEAD_SAMPLES:
            dead = max(dead, module.dead)
        if dead > T.DEAD_SHARE and module.alive is not None and module.alive.numel() >= 8:
            severity = "error" if dead > T.DEAD_MOST else "warning"
            yield Say(
                f"{dead:.0%} of {module.alive.numel()} units of {module.name} ({module.kind}) "
                f"fired in none of {module.looks} batches looked at.",
                module.name, place, severity=severity,
            )  # fmt: skip
        elif module.saturated > T.DEAD_SHARE and module.looks >= T.DEAD_BATCHES:
            severity = "error" if module.saturated > T.DEAD_MOST else "warning"
            yield Say(
                f"{module.saturated:.0%} of the outputs of {module.name} ({module.kind}) are at "
                f"the ends of its range, over {module.looks} batches looked at.",
                module.name, place, severity=severity,
            )  # fmt: skip
