"""The rungs of the ladder: one question each to a model, its loss and one batch, before training.

Every rung works on a fresh copy of the model and on clones of the batch; it returns whether it
held, what was seen, and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.doctor import thresholds as T
from brickyard.doctor.case import Case, Rung, change_floats, change_tensors, drawn_sum
from brickyard.doctor.case import leaf as source_of
from brickyard.doctor.observe.tensors import first_tensor

__all__ = ["NAMES", "ONE_BATCH", "RUNGS", "arrived", "signals"]

#: The rung that the check of a run's findings reads, too.
ONE_BATCH = "one batch can be learned by heart"
#: What each rung asks, from the cheapest question to the dearest.
NAMES = {
    "initial_loss": "the first loss is that of knowing nothing",
    "gradients_arrive": "a gradient reaches every parameter",
    "samples_apart": "samples do not see each other",
    "future_hidden": "later tokens are hidden",
    "labels_matter": "other targets give another loss",
    "one_batch": ONE_BATCH,
    "inputs_matter": "without its inputs it learns less",
    "rates": "there is a learning rate that helps",
    "spread": "signals neither fade nor explode on the way",
}


# --- Training on one batch ------------------------------------------------------------------------


def initial_loss(case: Case) -> Rung:
    """Compare the first loss with that of an answer that knows nothing."""
    name = NAMES["initial_loss"]
    with torch.no_grad():
        output = case.copy(True)(case.x)
        found = float(case.loss(output, case.x, case.y))
        blank = change_floats(output, torch.zeros_like)
        try:
            wanted = float(case.loss(blank, case.x, case.y))
        except (RuntimeError, ValueError, TypeError):
            wanted = math.nan
    if not math.isfinite(found):
        then = "look at inputs and targets for non-finite numbers, then at the loss"
        return Rung(name, False, f"the loss of the first batch is {found}", then)
    if not math.isfinite(wanted) or wanted <= 0:
        return Rung(name, None, f"{found:.4g}; there is no figure to compare with")
    share = found / wanted
    seen = f"{found:.4g}; an answer of zeros has {wanted:.4g}{_entropy(output, case.y)}"
    low, high = T.FIRST_LOSS
    return Rung(
        name, low <= share <= high, seen,
        "outputs that are large at the start come from inputs that are not scaled or from the last "
        "layer's initialization; a loss far below means that targets leak into the inputs",
    )  # fmt: skip


def _entropy(output: Any, y: Any) -> str:
    logits = first_tensor(output)
    if not (isinstance(logits, Tensor) and isinstance(y, Tensor)) or y.is_floating_point():
        return ""
    if logits.ndim < 2 or logits.shape[1] < 2 or y.shape != logits.shape[:1]:
        return ""
    counts = torch.bincount(y[y >= 0]).double()
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * share.log()).sum())
    return (
        f" (ln {logits.shape[1]} = {math.log(logits.shape[1]):.4g}, labels' entropy {entropy:.4g})"
    )


def one_batch(case: Case) -> Rung:
    """Train on one batch until its loss is near nothing."""
    name = NAMES["one_batch"]
    best = min(((*case.fit(case.x, rate), rate) for rate in T.FIT_RATES),
               key=lambda fit: fit[1] if math.isfinite(fit[1]) else math.inf)  # fmt: skip
    first, last, taken, rate = best
    case.fits["real"] = best
    fell = 1 - last / first if first > 0 else math.nan
    seen = f"{first:.4g} to {last:.4g} in {taken} steps of Adam at {rate:g}"
    if first <= 0 or last < 0:
        return Rung(name, last < first, seen, "the loss does not fall")
    enough = T.FIT_FALL if case.targets else T.FIT_FALL_ALONE
    few = taken < case.steps or taken < T.FIT_LEAST
    if fell < enough and few and math.isfinite(last):
        over = ", when its time was over" if taken < case.steps else ""
        return Rung(name, None, f"{seen}{over}: {fell:.0%} less, and too few to tell")
    floor = "" if case.targets else " (without targets its floor is not zero)"
    return Rung(
        name, fell >= enough, f"{seen}: {fell:.0%} less{floor}",
        "nothing else helps before this does: look at the loss's inputs, at the parameters that "
        "train, and at whether inputs and targets belong together",
    )  # fmt: skip


def inputs_matter(case: Case) -> Rung:
    """Train on the same targets with blank inputs: that must be harder."""
    name = NAMES["inputs_matter"]
    if not case.targets:
        return Rung(name, None, "its inputs are what it learns: blank ones are no harder")
    if "real" not in case.fits:
        one_batch(case)
    first, last, taken, rate = case.fits["real"]
    few = taken < case.steps or taken < T.FIT_LEAST
    if few and math.isfinite(last) and last > (1 - T.FIT_FALL) * first:
        return Rung(name, None, "too few steps were taken to compare them")
    blank = change_tensors(case.x, torch.zeros_like)
    try:
        _, alone, _ = case.fit(blank, rate)
    except (RuntimeError, IndexError, ValueError) as error:
        return Rung(name, None, f"the model does not take blank inputs ({type(error).__name__})")
    seen = f"{last:.4g} with them, {alone:.4g} with zeros in their place"
    worse = not math.isfinite(alone) or alone - last > T.BLANK_WORSE * abs(first - last)
    return Rung(
        name, worse, seen,
        "the model answers without looking: a constant input, a detached branch, or targets that "
        "are all the same",
    )  # fmt: skip


def labels_matter(case: Case) -> Rung:
    """Permute the targets: the loss must notice."""
    name = NAMES["labels_matter"]
    y = case.y
    if not case.targets:
        return Rung(name, None, "the loss takes no targets: it compares outputs with inputs")
    if not isinstance(y, Tensor) or len(y) < 2:
        return Rung(name, None, "targets are no tensor of several samples")
    turned = y.roll(1, 0)
    for shift in range(1, len(y)):
        turned = y.roll(shift, 0)
        if not torch.equal(turned, y):
            break
    else:
        return Rung(name, None, f"all {len(y)} targets of the batch are the same")
    with torch.no_grad():
        model = case.copy(False)
        output = model(case.x)
        before = float(case.loss(output, case.x, y))
        after = float(case.loss(output, case.x, turned))
    differ = abs(after - before) > T.SAME_LOSS * max(abs(before), 1e-12)
    return Rung(name, differ, f"{before:.6g} before, {after:.6g} after they changed places",
                "the loss does not read the targets that it is given")  # fmt: skip


def rates(case: Case) -> Rung:
    """Let the rate grow from step to step, and tell where the loss falls fastest."""
    name = NAMES["rates"]
    low, high, count = T.RATE_SWEEP
    model = case.copy(True)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses, tried = torch.optim.Adam(params, lr=low), list[float](), list[float]()
    start, late = perf_counter(), False
    for k in range(count):
        rate = low * (high / low) ** (k / (count - 1))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        value = case.loss(model(case.x), case.x, case.y)
        losses.append(float(value.detach()))
        tried.append(rate)
        worst = losses[-1] > 4 * abs(losses[0]) + 4 * abs(min(losses))
        late = perf_counter() - start > case.seconds
        if not math.isfinite(losses[-1]) or worst or late:
            break
        value.backward()
        optimizer.step()
    finite = [v for v in losses if math.isfinite(v)]
    least = min(range(len(finite)), key=finite.__getitem__) if finite else 0
    helped = bool(finite) and finite[least] < losses[0] - 0.05 * abs(losses[0])
    if late and not helped:
        seen = f"the time was over at a rate of {tried[-1]:.2g}: too early to tell"
        return Rung(name, None, seen)
    seen = (f"Adam from {low:g} to {tried[-1]:.2g} on this batch: lowest at {tried[least]:.2g}; "
            f"begin with {tried[least] / 10:.1g} to {tried[least] / 3:.1g}")  # fmt: skip
    return Rung(name, helped, seen if helped else f"the loss never fell below {losses[0]:.4g}",
                "the gradient does not lead down: look at the rungs above")  # fmt: skip


# --- Gradients ------------------------------------------------------------------------------------


def gradients_arrive(case: Case) -> Rung:
    """Ask each trainable parameter for its gradient."""
    name = NAMES["gradients_arrive"]
    model = case.copy(True)
    value = case.loss(model(case.x), case.x, case.y)
    if value.grad_fn is None:
        then = "a detach(), .item(), .data or no_grad() stands between model and loss"
        return Rung(name, False, "the loss has no graph behind it: nothing can be trained", then)
    value.backward()
    return arrived([(n, p) for n, p in model.named_parameters() if p.requires_grad])


def arrived(trained: list[tuple[str, Tensor]]) -> Rung:
    """Say to which of some parameters a gradient has come.

    Args:
        trained: their names, and they themselves, after a backward pass.
    """
    name = NAMES["gradients_arrive"]
    kinds = {
        "without a gradient": [n for n, p in trained if p.grad is None],
        "with a gradient that is not finite": [
            n for n, p in trained if p.grad is not None and not bool(p.grad.isfinite().all())],
        "with a gradient of zeros": [
            n for n, p in trained if p.grad is not None and not bool(p.grad.any())],
    }  # fmt: skip
    wrong = [f"{len(names)} {kind}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
             for kind, names in kinds.items() if names]  # fmt: skip
    return Rung(
        name, not wrong, "; ".join(wrong) or f"{len(trained)} parameters",
        "unused layers, a branch cut off, a start with zeros on both sides of a layer, or units "
        "that are all dead",
    )  # fmt: skip


def samples_apart(case: Case) -> Rung:
    """Ask whether one sample's output depends on another sample, in evaluation mode."""
    name = NAMES["samples_apart"]
    with source_of(case) as (model, x, leaf):
        output = first_tensor(model(x))
        source = leaf()
        if output is None or source is None or output.ndim < 1 or len(source) < 2:
            return Rung(name, None, "inputs and outputs are not batches of tensors")
        if len(output) != len(source):
            return Rung(name, None, f"{len(source)} inputs give {len(output)} outputs")
        (grad,) = torch.autograd.grad(drawn_sum(output[0]), source, allow_unused=True)
    if grad is None:
        return Rung(name, None, "the output does not depend on the inputs by gradients")
    own, others = float(grad[0].abs().max()), float(grad[1:].abs().max())
    seen = f"the first output's gradient: {own:.3g} on its own input, {others:.3g} on others"
    return Rung(
        name, others <= T.MIXING * max(own, 1e-30), seen,
        "a softmax, mean or norm over dimension 0, or a view() where permute() was meant; "
        "contrastive models do so by design",
    )  # fmt: skip


def future_hidden(case: Case) -> Rung:
    """Ask whether scores see later tokens, where targets are the inputs shifted by one."""
    name = NAMES["future_hidden"]
    x, y = case.x, case.y
    shifted = (
        isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim == 2 and x.shape == y.shape
        and x.shape[1] > 2 and torch.equal(x[:, 1:], y[:, :-1])
    )  # fmt: skip
    if not shifted:
        return Rung(name, None, "targets are not the next tokens of the inputs")
    with source_of(case) as (model, tokens, leaf):
        output, source = first_tensor(model(tokens)), leaf()
        if output is None or source is None or output.ndim < 3 or source.ndim < 3:
            return Rung(name, None, "no embedding or no score for each token was found")
        middle = source.shape[1] // 2
        along = output.shape.index(source.shape[1], 1)
        (grad,) = torch.autograd.grad(
            drawn_sum(output.select(along, middle)), source, allow_unused=True
        )
    if grad is None:
        return Rung(name, None, "scores do not depend on the embedding by gradients")
    later, before = float(grad[:, middle + 1 :].abs().max()), float(grad.abs().max())
    return Rung(
        name, later <= T.MIXING * max(before, 1e-30),
        f"score {middle}'s gradient: {later:.3g} on later tokens, {before:.3g} on all",
        "the causal mask is missing, or the targets are in the inputs",
    )  # fmt: skip


def spread(case: Case) -> Rung:
    """Measure outputs and gradients layer by layer."""
    model = case.copy(True)
    return signals(model, lambda: case.loss(model(case.x), case.x, case.y).backward())


def signals(model: nn.Module, train: Callable[[], Any]) -> Rung:
    """Measure outputs and gradients of a model layer by layer.

    Args:
        model: its gradients are read after the call.
        train: takes one forward and one backward pass through it.
    """
    name, sizes = NAMES["spread"], dict[str, float]()
    handles = [
        module.register_forward_hook(_noting(sizes, path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    ]
    try:
        train()
    finally:
        for handle in handles:
            handle.remove()
    pulls = {
        path: float(weight.grad.norm() / weight.numel() ** 0.5)
        for path, module in model.named_modules()
        if path in sizes
        and (weight := module._parameters.get("weight")) is not None
        and weight.grad is not None
    }
    if len(sizes) < 3:
        return Rung(name, None, "fewer than three layers with weights")
    low, high = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    seen = f"outputs' deviation {sizes[low]:.2g} ({low}) to {sizes[high]:.2g} ({high})"
    good = sizes[low] > 0 and sizes[high] / sizes[low] < T.SPREAD
    moved = {path: pull for path, pull in pulls.items() if pull > 0}
    if moved:
        least, most = min(moved, key=moved.__getitem__), max(moved, key=moved.__getitem__)
        seen += f"; gradients {moved[least]:.2g} ({least}) to {moved[most]:.2g} ({most})"
        good = good and moved[most] / moved[least] < T.SPREAD_BACK
    return Rung(
        name, good, seen,
        "give the layers an initialization that fits their activation, normalize between them, or "
        "add residual paths",
    )  # fmt: skip


def _noting(sizes: dict[str, float], path: str) -> Callable[..., None]:
    def note(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel() > 1:
            sizes[path] = float(output.detach().float().std())

    return note


#: From the cheapest question to the dearest.
RUNGS: tuple[Callable[[Case], Rung], ...] = (
    initial_loss, gradients_arrive, samples_apart, future_hidden, labels_matter, one_batch,
    inputs_matter, rates, spread,
)  # fmt: skip
