"""Checks of loss functions: contracts of input and target, shapes, graphs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check
from brickyard.doctor.observe.record import LossSeen, Seen


def _sites(seen: Seen, hit: str, *functions: str) -> Iterable[LossSeen]:
    """Yield call sites of losses where something was met at every look, twice at the least."""
    for loss in seen.losses.values():
        if functions and loss.function not in functions:
            continue
        count = loss.hits.get(hit, 0)
        if count >= T.IN_ROW and count == loss.calls:
            yield loss


@check(
    25, "target-dtype-shape", "warning", weight=0.7,
    sees="targets of cross-entropy that are no distribution, or a single class",
    why="Given floats, cross_entropy reads each row as probabilities: multi-label or regression "
    "targets are silently misread. With one output the loss is 0, whatever the model does.",
    try_="Class indices (int64) for one label each; binary_cross_entropy_with_logits for several "
    "labels or for one output.",
    allows="soft labels, label smoothing and mixing, whose rows sum to 1",
    source="pytorch documentation of CrossEntropyLoss",
)  # fmt: skip
def target_shape(seen: Seen) -> Iterable[Say]:
    """Report targets that cross-entropy misreads."""
    for loss in _sites(seen, "no-distribution", "cross_entropy"):
        yield Say(
            f"Float targets whose rows sum to {loss.facts['row_sum']:.3g}, not 1, in "
            f"{loss.calls} of {loss.calls} calls looked at.",
            loss.function, loss.place,
        )  # fmt: skip
    for loss in _sites(seen, "one-class", "cross_entropy"):
        yield Say(
            "cross_entropy over a single class is 0 for every input.", loss.function, loss.place,
        )  # fmt: skip


@check(
    26, "loss-broadcast", "error", weight=1.0,
    sees="an elementwise loss of two shapes that broadcast to something larger than both",
    why="Every prediction is compared with every target: the model learns the mean.",
    try_="Give both the same shape: output.squeeze(-1), or target.unsqueeze(-1).",
    allows="a target that expands to the shape of the input; pairwise differences made on purpose "
    "by unsqueeze, and those of two outputs",
    source="stackoverflow.com/questions/51822974",
)  # fmt: skip
def loss_broadcast(seen: Seen) -> Iterable[Say]:
    """Report outer differences of predictions and targets."""
    for loss in seen.losses.values():
        if loss.hits.get("broadcast", 0) >= 1:
            one, two, both = loss.facts["shapes"]
            yield Say(
                f"{loss.function} compares input {one} with target {two}: broadcast to {both}, "
                f"{math.prod(both)} pairs instead of {max(math.prod(one), math.prod(two))}.",
                loss.function, loss.place,
            )  # fmt: skip
    for note in seen.of("outer-difference"):
        if note.count >= T.IN_ROW:
            yield Say(
                f"The difference of shapes {note.values['one']} and {note.values['two']} has "
                f"shape {note.values['result']}: every prediction minus every target.",
                note.where, note.place,
            )  # fmt: skip


@check(
    27, "probs-into-CE", "error", weight=1.0,
    sees="input of cross_entropy that is not negative and sums to 1 over classes, or of nll_loss "
    "that is log_softmax of a softmax, in every call",
    why="cross_entropy applies log_softmax itself: applied twice, the loss cannot fall below "
    "ln(1 + (C-1)/e) and gradients are small.",
    try_="Give it the raw scores; apply softmax only where probabilities are read.",
    allows="log-probabilities (log_softmax before it changes nothing)",
    source="stackoverflow.com/questions/55675345",
)  # fmt: skip
def probabilities_into_ce(seen: Seen) -> Iterable[Say]:
    """Report softmax in front of cross-entropy."""
    for loss in _sites(seen, "probabilities", "cross_entropy"):
        classes = loss.facts["classes"]
        floor = math.log(1 + (classes - 1) / math.e)
        by = loss.facts.get("upstream")
        came = f", and comes from {by.lower()}" if by else ""
        yield Say(
            f"All rows of the input of cross_entropy are >= 0 and sum to 1 in {loss.calls} of "
            f"{loss.calls} calls looked at{came}; with {classes} classes the loss cannot fall "
            f"below {floor:.3f}.",
            loss.function, loss.place,
        )  # fmt: skip
    for loss in _sites(seen, "probabilities", "nll_loss"):
        floor = math.log(1 + (loss.facts["classes"] - 1) / math.e)
        yield Say(
            f"The input of nll_loss is log_softmax of what softmax gave in {loss.calls} of "
            f"{loss.calls} calls looked at; with {loss.facts['classes']} classes the loss cannot "
            f"fall below {floor:.3f}.",
            loss.function, loss.place,
        )  # fmt: skip


@check(
    28, "probs-into-BCEWithLogits", "error", weight=1.0,
    sees="input of binary_cross_entropy_with_logits that comes out of a sigmoid",
    why="The sigmoid is applied twice: outputs stay between 0.5 and 0.73, the loss above 0.31.",
    try_="Give it the raw scores, or use binary_cross_entropy with the sigmoid.",
    allows="raw scores that happen to lie between 0 and 1",
    source="avBuffer/UNet3plus_pth#23, Turoad/lanedet#32",
)  # fmt: skip
def probabilities_into_bce(seen: Seen) -> Iterable[Say]:
    """Report sigmoid in front of the loss with logits."""
    for loss in _sites(seen, "sigmoid", "binary_cross_entropy_with_logits"):
        yield Say(
            f"All inputs lie in [0, 1] and come from {loss.facts['upstream'].lower()}, in "
            f"{loss.calls} of {loss.calls} calls looked at.",
            loss.function, loss.place,
        )  # fmt: skip


@check(
    29, "logprob-contract", "error", weight=1.0,
    sees="input of nll_loss or kl_div above 0, which no logarithm of a probability is; KL below 0",
    why="These losses take log-probabilities and do not check: the value has no meaning and can "
    "fall without bound.",
    try_="log_softmax(logits, dim=1) first, or cross_entropy on the logits.",
    allows="nothing: log-probabilities are never positive",
    source="discuss.pytorch.org/t/16791",
)  # fmt: skip
def log_probabilities(seen: Seen) -> Iterable[Say]:
    """Report losses of log-probabilities that get something else."""
    for loss in _sites(seen, "positive", "nll_loss", "kl_div"):
        value = loss.facts.get("value")
        below = f"; the loss was {value:.3g}, a divergence is never negative" if value else ""
        yield Say(
            f"{loss.function} was given values up to {loss.facts['largest']:.3g}; "
            f"log-probabilities are at most 0{below}.",
            loss.function, loss.place,
        )  # fmt: skip
    for loss in _sites(seen, "negative", "kl_div"):
        if not loss.hits.get("positive"):
            yield Say(
                f"kl_div was {loss.facts['value']:.3g}: input or target are no distributions.",
                loss.function, loss.place,
            )  # fmt: skip


@check(
    24, "target-range", "warning", weight=0.6,
    sees="targets outside of what the loss takes; classes from 1 instead of 0; one class only",
    why="A shifted label leaves an output that never occurs; targets beyond [0, 1] have no "
    "meaning for a probability and drive the loss below 0.",
    try_="Map labels to 0 .. C-1 (to 0 and 1 for binary losses).",
    allows="single classes absent by chance, label smoothing, ignored indices",
    source="Humbatova et al. 2020, taxonomy of real faults, group training data",
)  # fmt: skip
def target_range(seen: Seen) -> Iterable[Say]:
    """Report targets that do not fit the outputs."""
    for loss in _sites(seen, "range", "binary_cross_entropy_with_logits"):
        low, high = loss.facts["range"]
        yield Say(
            f"Targets lie in [{low:g}, {high:g}]; binary cross-entropy takes 0 to 1.",
            loss.function, loss.place,
        )  # fmt: skip
    for loss in seen.losses.values():
        counts = loss.facts.get("labels")
        if counts is None or int(counts.sum()) < 200 or "tokens" in loss.facts:
            continue
        total, classes = int(counts.sum()), counts.numel()
        met = int((counts > 0).sum())
        if met == 1 and classes > 1 and _all_labels(seen) <= 1:
            yield Say(f"All {total} targets are class {int(counts.argmax())}.", loss.function,
                      loss.place)  # fmt: skip
        elif 2 < classes <= 200 and met == classes - 1 and counts[0] == 0:
            share = float(counts[counts > 0].min()) / total
            if total * share > 20:
                yield Say(
                    f"Targets are 1 to {classes - 1} in {total} samples, never 0, and the model "
                    f"has {classes} outputs: labels seem to count from 1.",
                    loss.function, loss.place,
                )  # fmt: skip


def _all_labels(seen: Seen) -> int:
    return max((len(x.labels) for x in seen.loaders if x.training), default=0)


@check(
    30, "init-loss", "info", weight=0.3,
    sees="the first loss against that of a model without knowledge: cross-entropy against ln C and "
    "the labels' entropy, the binary one against ln 2, squares against those of the targets",
    why="A first loss far above means outputs of the wrong scale: raw inputs, a bad start, a wrong "
    "reduction. Far below, the model knows the answers before training: pretrained, or a leak.",
    try_="Look at the scale of inputs and of the last layer (its bias at the targets' mean helps); "
    "the first steps are spent on it.",
    allows="it is information only: pretrained models start below, tied embeddings above; sums, "
    "weighted losses, losses of other kinds",
    source="Karpathy 2019, A recipe for training neural networks",
)  # fmt: skip
def init_loss(seen: Seen) -> Iterable[Say]:
    """Compare the first loss with the one of a constant answer."""
    low, high = T.INIT_LOSS
    for loss in seen.losses.values():
        value, range_ = loss.first.get("value"), _without_knowledge(loss)
        if value is None or range_ is None or loss.facts.get("reduction") != "mean":
            continue
        (least, what), (most, which) = range_
        if value > high * most > 0.0:
            said = f"{value / most:.1f} times {which}"
        elif 0.0 <= value < low * least:
            said = f"{value / least:.2g} times {what}: less than a model without knowledge can have"
        else:
            continue
        yield Say(f"The first loss was {value:.3g}, {said}.", loss.function, loss.place, step=1)


_Level = tuple[float, str]


def _without_knowledge(loss: LossSeen) -> tuple[_Level, _Level] | None:
    """Return the least and the most that a model without knowledge may have, and what that is."""
    facts = loss.facts
    if set(facts.get("options", ())) & {"weight", "pos_weight"}:
        return None
    if loss.function == "cross_entropy" and facts.get("classes", 0) > 1:
        most = math.log(facts["classes"])
        equal = most, f"ln {facts['classes']} = {most:.3g}, which equal scores for all classes give"
        labels = facts.get("labels")
        if labels is None:
            return (0.0, ""), equal
        share = labels.double() / labels.sum()
        least = float(-(share * share.clamp(min=1e-12).log()).sum())
        return (least, f"the entropy of the labels, {least:.3g}"), equal
    if loss.function == "binary_cross_entropy_with_logits" and facts.get("count"):
        p = facts["positive_sum"] / facts["count"]
        least = -p * math.log(p) - (1 - p) * math.log(1 - p) if 0 < p < 1 else 0.0
        equal = math.log(2), "ln 2 = 0.693, which scores of zero give"
        return (least, f"the entropy of the labels, {least:.3g}"), equal
    if loss.function == "mse_loss" and facts.get("count", 0) > 1 and not facts.get("varies"):
        mean, most = (
            facts["sum"] / facts["count"],
            float((facts["squares"] / facts["count"]).mean()),
        )
        least = most - float((mean * mean).mean())
        zero = most, f"the mean square of the targets, {most:.3g}, which answers of zero give"
        return (least, f"the variance of the targets, {least:.3g}"), zero
    return None


@check(
    31, "loss-detached", "error", weight=1.0,
    sees="a loss without history, or a step in which no parameter of the optimizer has a gradient",
    why="Nothing the loss was computed from can learn from it.",
    try_="Call backward() on the tensor that the model's output led to: no Variable(...), "
    "torch.tensor(loss), .data, .item(), detach() or numpy in between.",
    allows="optimizers of other models that step in turn",
    source="speechbrain/speechbrain#735, roman-vygon/triplet_loss_kws#6",
)  # fmt: skip
def loss_detached(seen: Seen) -> Iterable[Say]:
    """Report backward passes that reach nothing."""
    for note in seen.of("leaf-loss"):
        if note.count >= T.IN_ROW:
            yield Say(
                f"backward() was called {note.count} times on a tensor that was not computed from "
                "anything (grad_fn is None).",
                "loss", note.place,
            )  # fmt: skip
    if seen.of("leaf-loss"):
        return
    for optimizer in seen.optimizers:
        mine = [p for p in seen.params if optimizer.index in p.optimizers and p.trainable]
        reached = any(p.grad or p.zero for p in mine)
        tracked = any(p.tracked for p in mine)
        if optimizer.looked >= T.LOOKS and mine and tracked and not reached:
            yield Say(
                f"None of the {len(mine)} trainable parameters of {optimizer.name} had a gradient "
                f"in {optimizer.looked} steps looked at.",
                optimizer.name, optimizer.step_place,
            )  # fmt: skip
