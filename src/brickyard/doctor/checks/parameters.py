"""Checks of parameters: who holds them, who updates them, how they start."""

from __future__ import annotations

from collections.abc import Iterable

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check, some
from brickyard.doctor.observe.record import NOWHERE, ParamSeen, Seen


def _held(seen: Seen) -> list[ParamSeen]:
    return [p for p in seen.params if p.optimizers]


@check(
    1, "opt-missing-params", "error", weight=0.95,
    sees="parameters of a model in training that get gradients and are in no optimizer",
    why="They keep their initial values; the rest of the model trains around them.",
    try_="Build the optimizer after the model is complete, from model.parameters(); when layers "
    "are added later, call optimizer.add_param_group.",
    allows="models of which no parameter is in any optimizer (fixed networks, teachers), frozen "
    "parameters, first layers left out as a whole (feature extraction), updates by hand",
    source="huggingface/transformers#3532, huggingface/accelerate#2665",
)  # fmt: skip
def opt_missing(seen: Seen) -> Iterable[Say]:
    """Compare the parameters of each model with those of all optimizers."""
    if not seen.optimizers or max(o.looked for o in seen.optimizers) < 2:
        return
    for root in dict.fromkeys(p.root for p in seen.params if p.tracked):
        mine = [p for p in seen.params if p.root == root and p.tracked]
        held = [p for p in mine if p.optimizers]
        missing = [p for p in mine if not p.optimizers and p.trainable and p.grad >= 2]
        if not missing:
            continue
        orphans = [p for p in _held(seen) if not p.tracked and not p.grad and p.none]
        if not held and not orphans:
            continue
        first = min((p.order for p in held if p.order >= 0), default=0)
        before = all(0 <= p.order < first for p in missing) and not orphans
        place = next((p.place for p in missing if p.place.file), seen.optimizers[0].place)
        numbers = f"{len(missing)} of {len(mine)} parameters of {root} get gradients"
        also = f"; {len(orphans)} parameters in the optimizer never get one" if orphans else ""
        yield Say(
            f"{numbers} and are in no optimizer: {some(p.name for p in missing)}{also}.",
            missing[0].name, place, severity="info" if before else "",
        )  # fmt: skip


@check(
    2, "opt-orphan-params", "error", weight=0.9,
    sees="parameters in an optimizer that belong to no model that is called and get no gradient",
    why="The optimizer was built for another object than the one that is trained.",
    try_="Create the optimizer after the model was replaced, moved, wrapped or copied.",
    allows="free tensors that get gradients (images, latents, temperatures), models used in turn",
    source="huggingface/accelerate#2665",
)  # fmt: skip
def opt_orphan(seen: Seen) -> Iterable[Say]:
    """Find parameters that an optimizer holds for nobody."""
    for optimizer in seen.optimizers:
        if optimizer.looked < 2:
            continue
        mine = [p for p in seen.params if optimizer.index in p.optimizers]
        orphans = [p for p in mine if not p.tracked and p.trainable and p.looked >= 2]
        lost = [p for p in orphans if p.grad == 0 and p.zero == 0]
        if lost and len(lost) == len(orphans):
            yield Say(
                f"{len(lost)} of {len(mine)} parameters in {optimizer.name} belong to no model "
                f"that was called, and had no gradient in {optimizer.looked} steps: shapes "
                f"{some(str(p.shape) for p in lost)}.",
                optimizer.name, optimizer.place,
            )  # fmt: skip


@check(
    3, "opt-frozen-params", "error", weight=0.97,
    sees="parameter groups of an optimizer in which nothing requires a gradient",
    why="The optimizer has nothing to update there.",
    try_="Unfreeze what shall train (requires_grad_(True)), or leave the group out.",
    allows="groups of which some parameters train; groups that are unfrozen later",
    source="discuss.pytorch.org/t/84911",
)  # fmt: skip
def opt_frozen(seen: Seen) -> Iterable[Say]:
    """Find groups in which everything is frozen."""
    for optimizer in seen.optimizers:
        frozen = optimizer.frozen_groups
        if optimizer.looked < 2 or not frozen:
            continue
        mine = [p for p in seen.params if optimizer.index in p.optimizers]
        trained = any(p.trainable and (p.grad or p.zero) for p in mine)
        groups = len(optimizer.groups)
        yield Say(
            f"{len(frozen)} of {groups} parameter groups of {optimizer.name} hold only parameters "
            f"with requires_grad=False ({sum(optimizer.groups[i]['params'] for i in frozen)} "
            "tensors).",
            optimizer.name, optimizer.place, severity="info" if trained else "error",
        )  # fmt: skip


@check(
    4, "unregistered-modules", "error", weight=1.0,
    sees="a trainable parameter used by a model's forward that model.parameters() does not give",
    why="Such layers are not in the optimizer, the state dict, or moved by to() and train().",
    try_="Hold them in nn.ModuleList, nn.ModuleDict or nn.ParameterList, or register them.",
    allows="lists of layers that are registered elsewhere, too; hidden teachers without gradients; "
    "parameters handed to an optimizer by hand",
    source="pytorch/pytorch#715, #38639",
)  # fmt: skip
def unregistered(seen: Seen) -> Iterable[Say]:
    """Report leaves of the loss that no model registers."""
    notes = seen.of("unregistered")
    for where in dict.fromkeys(n.where for n in notes):
        mine = [n for n in notes if n.where == where]
        shapes = some(str(tuple(n.values["shape"])) for n in mine)
        kinds = some(dict.fromkeys(n.values["holds"] for n in mine))
        yield Say(
            f"The loss depends on trainable parameters ({kinds}, shapes {shapes}) that are "
            f"not in parameters(): they are held by {where}.",
            where, mine[0].place,
        )  # fmt: skip


@check(
    5, "param-in-two-optimizers", "warning", weight=0.7,
    sees="two optimizers that step the same parameter from the same backward pass",
    why="The same gradient is applied twice, with two states that know nothing of each other.",
    try_="Give each parameter to one optimizer; use parameter groups for different rates.",
    allows="phases with optimizers of their own, adversarial schemes with a backward pass each, "
    "wrappers that call an inner optimizer",
    source="pytorch forum: optimizers that share parameters",
)  # fmt: skip
def two_optimizers(seen: Seen) -> Iterable[Say]:
    """Report gradients applied by two optimizers."""
    for note in seen.of("two-optimizers"):
        if note.count >= T.IN_ROW:
            yield Say(
                f"{note.where} both stepped {note.values['shared']} parameters (such as "
                f"{note.values['name']}) after one backward pass, {note.count} times.",
                note.where, note.place,
            )  # fmt: skip


@check(
    6, "tie-broken", "error", weight=0.95,
    sees="a parameter that two modules shared, or that the model's config says they share, and of "
    "which one of them now holds a copy of its own",
    why="Tied weights drift apart: the output layer trains without the embedding, or the reverse.",
    try_="Tie again after replacing, loading or converting: head.weight = embedding.weight.",
    allows="modules replaced as a whole, parameters of another shape, weights that are tied again "
    "before the next step",
    source="NVIDIA/Megatron-LM#656, NVIDIA-NeMo/Automodel#2511",
)  # fmt: skip
def tie_broken(seen: Seen) -> Iterable[Say]:
    """Report shared parameters that were replaced in one place."""
    for note in seen.of("tie-broken"):
        v = note.values
        size = " x ".join(map(str, v["shape"]))
        was = (
            f"shared one tensor ({size}) with {v['other']} and no longer does"
            if v["how"] == "initially"
            else f"does not share its tensor ({size}) with {v['other']}, although "
            "config.tie_word_embeddings is true"
        )
        now = "still equal, but trained" if v["equal"] else "different, and trained"
        yield Say(
            f"{note.where} {was}: {v['values']:,} values are held twice, {now} on their own.",
            note.where, note.place, step=note.step,
        )  # fmt: skip


@check(
    7, "symmetric-init", "warning", weight=0.9,
    sees="weights whose rows are all equal, with equal rows of the gradient, step after step",
    why="Units that start equal and get equal gradients stay equal: the layer has one unit.",
    try_="Start weights at random (nn.init.kaiming_normal_, xavier_uniform_); zeros are for "
    "biases and for the last layer of a residual branch.",
    allows="zero starts with gradients that differ (residual branches, LoRA, output layers), "
    "embeddings, single rows; layers of which only some rows are equal (classes that have not "
    "occurred yet, of an output layer that starts at zero)",
    source="stackoverflow.com/questions/48027263",
)  # fmt: skip
def symmetric_init(seen: Seen) -> Iterable[Say]:
    """Find weights whose units cannot come apart."""
    same = [p for p in _held(seen) if p.rows >= T.LOOKS and p.same_rows == p.rows]
    same = [p for p in same if p.shape[0] >= 2 and p.tracked and p.trainable]
    if same:
        yield Say(
            f"All {same[0].shape[0]} rows of {same[0].name} are equal, and so are the rows of its "
            f"gradient, in {same[0].rows} steps looked at"
            + (f"; likewise {some(p.name for p in same[1:])}." if len(same) > 1 else "."),
            same[0].name, next((p.place for p in same if p.place.file), NOWHERE),
        )  # fmt: skip


@check(
    8, "init-scale", "info", weight=0.2,
    sees="the spread of a weight at the start times the root of its fan-in",
    why="Activations shrink or grow layer by layer when it is far from 1.",
    try_="Use torch's default start, or kaiming_normal_ for ReLU and xavier_uniform_ for tanh.",
    allows="constant and zero starts, embeddings, norms, values of pretrained weights",
    source="Glorot and Bengio 2010; He et al. 2015",
)  # fmt: skip
def init_scale(seen: Seen) -> Iterable[Say]:
    """Report weights that start very small or very large."""
    low, high = T.INIT_SPREAD
    for module in seen.modules.values():
        spread = module.facts.get("spread")
        if spread and not low <= spread <= high:
            yield Say(
                f"std * sqrt(fan_in) = {spread:.3g} with fan_in = {module.facts['fan_in']}; "
                f"initializers give 0.5 to 2.",
                f"{module.name}.weight",
            )  # fmt: skip


@check(
    9, "linear-linear", "info", weight=0.3,
    sees="a linear layer that is given exactly what another one returned, and nothing else is: in "
    "a Sequential, or by the order of calls",
    why="Together they are one linear layer: the second adds parameters, not expressiveness.",
    try_="Put an activation between them, or keep one of them.",
    allows="factorizations whose inner width is below both outer ones, outputs that anything else "
    "is given, too (a residual sum, several heads)",
    source="Goodfellow et al., Deep Learning, section 6.1",
)  # fmt: skip
def linear_linear(seen: Seen) -> Iterable[Say]:
    """Report linear layers that follow each other."""
    for note in seen.of("linear-linear"):
        sizes = " -> ".join(map(str, note.values["sizes"]))
        yield Say(
            f"{note.where} and {note.values['second']} follow each other with nothing between "
            f"them: {sizes}.",
            note.where,
        )  # fmt: skip


@check(
    12, "bias-before-bn", "info", weight=0.1,
    sees="a bias right before a batch norm, which subtracts it again",
    why="The bias does nothing.",
    try_="bias=False in the layer before a batch norm.",
    allows="nothing: it is information only",
    source="Ioffe and Szegedy 2015, section 3.2",
)  # fmt: skip
def idle_bias(seen: Seen) -> Iterable[Say]:
    """Report idle biases."""
    idle = seen.of("bias-before-norm")
    if idle:
        yield Say(
            f"{len(idle)} biases stand right before a {idle[0].values['norm']}: "
            f"{some(n.where for n in idle)}.",
            idle[0].where,
        )  # fmt: skip


@check(
    12, "decay-on-norm", "info", weight=0.1,
    sees="weight decay on parameters of norms",
    why="Decay pulls scales towards 0, which costs a little accuracy.",
    try_="A group with weight_decay=0 for parameters of one dimension.",
    allows="nothing: it is information only",
    source="discuss.pytorch.org/t/114348; He et al. 2019, Bag of tricks, section 3.1",
)  # fmt: skip
def decay_on_norm(seen: Seen) -> Iterable[Say]:
    """Report decayed norms."""
    for optimizer in seen.optimizers:
        decays = [g.get("weight_decay") or 0 for g in optimizer.groups]
        mine = [p for p in seen.params if optimizer.index in p.optimizers]
        norms = [p for p in mine if "Norm" in p.owner and len(p.shape) == 1]
        if norms and decays and min(decays) > 0:
            yield Say(
                f"{optimizer.name} decays {len(norms)} parameters of norms by {min(decays):g}, "
                f"such as {norms[0].name}.",
                norms[0].name, optimizer.place,
            )  # fmt: skip
