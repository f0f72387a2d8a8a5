"""Look at what goes into a model and what comes out: scale, spread, equal samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe.tensors import finite, first_tensor, tensors

if TYPE_CHECKING:
    from brickyard.doctor.observe.forward import Call
    from brickyard.doctor.observe.watcher import Watcher

_NORMS = (
    nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.Embedding,
    nn.EmbeddingBag,
)  # fmt: skip


def observe(w: Watcher, call: Call) -> None:
    """Record the statistics of a model's first float input, in the first steps.

    Args:
        w: the watcher.
        call: the call.
    """
    if w.seen.step >= T.FIRST_STEPS or not call.training:
        return
    x = next((t for t in tensors((call.args, call.kwargs)) if t.ndim >= 2), None)
    if x is None or not x.is_floating_point() or x.grad_fn is not None or x.shape[0] < 2:
        return
    if x.numel() == 0:
        return
    x = x.detach()
    if not finite(x):
        bad = int((~torch.isfinite(x)).sum())
        w.seen.note("input-nonfinite", f"the input of {call.root.name}", call.root.place, bad=bad,
                    of=x.numel(), batch="")  # fmt: skip
        return
    note = w.seen.note("input-statistics", call.root.name, call.root.place)
    if note.values and w.seen.step < T.FIRST_STEPS - 1:
        return  # of the first batches the first and the last are read: it costs a millisecond
    rows = x[:256].float()
    if x.ndim == 4:  # images: a channel is a feature
        features = rows.transpose(0, 1).flatten(1)
    elif x.ndim == 3:
        features = rows.flatten(0, 1).T
    else:
        features = rows.T
    deviations = features[:512].std(1)
    positive = deviations[deviations > 0]
    flat = rows.flatten(1)
    largest = float(rows.amax())
    note.values.update(
        smallest=float(rows.amin()), largest=largest, std=float(rows.std()),
        integral=bool((rows[:64] == rows[:64].round()).all()) and abs(largest) > 1,
        std_median=float(deviations.median()), std_max=float(deviations.amax()),
        ratio=float(positive.amax() / positive.amin()) if positive.numel() > 1 else 1.0,
        constant=float((flat == flat[:1]).all(0).float().mean()), features=flat.shape[1],
        samples=flat.shape[0], distinct=_distinct(flat), normalizes=_normalizes(w, call),
    )  # fmt: skip


def _distinct(flat: torch.Tensor) -> int:
    return int(torch.unique(flat[:, :512], dim=0).shape[0]) if flat.shape[0] <= 256 else 256


def _normalizes(w: Watcher, call: Call) -> bool:
    """Say whether the first layer that ran in a model scales or embeds what it is given."""
    order = w.forwards.order
    layers = [m for m in call.module.modules() if not m._modules and id(m) in order]
    for module in sorted(layers, key=lambda m: order[id(m)]):
        if isinstance(module, _NORMS):
            return True
        if any(True for _ in module.parameters(recurse=False)):
            return False
        if type(module).__module__.startswith("torch.nn"):
            continue
        return True  # a layer of the user's own without parameters: it may well scale
    return False


def answers(w: Watcher, call: Call) -> None:
    """Record whether a model's outputs differ between samples.

    Args:
        w: the watcher.
        call: a call in training.
    """
    if w.seen.step < T.FIRST_STEPS:
        return
    losses = [c for c in w.functions.recent if c.given is call.output]
    out = first_tensor(call.output)
    if not losses or out is None or out.ndim < 2 or out.shape[0] < 8:
        return
    out = out.detach().float()
    size = float(out.square().mean().sqrt())
    spread = float((out - out.mean(0)).square().mean().sqrt())
    x = first_tensor((call.args, call.kwargs))
    differ = x is not None and x.shape[0] == out.shape[0] and bool((x != x[:1]).any())
    target = losses[0].target
    varied = target.ndim >= 1 and bool((target != target[:1]).any())
    if size > 0 and spread < T.SAME_OUTPUT * size and differ and varied:
        w.seen.note("same-output", call.root.name, call.root.place, samples=out.shape[0],
                    inputs_differ=differ)  # fmt: skip
    if losses[0].name == "cross_entropy" and out.ndim == 2 and not target.is_floating_point():
        chosen = out.argmax(1)
        labels = int(target.unique().numel())
        if labels >= 3 and bool((chosen == chosen[0]).all()):
            note = w.seen.note("one-answer", call.root.name, call.root.place)
            note.values.update(
                answer=f"class {int(chosen[0])}", samples=out.shape[0], labels=labels
            )
        else:
            w.seen.notes.pop("one-answer", None)
