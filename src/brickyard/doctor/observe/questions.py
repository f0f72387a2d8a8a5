"""The questions that probes ask a copy of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe.losses import CLASSES, ELEMENTWISE
from brickyard.doctor.observe.tensors import finite, first_tensor, with_tensors

if TYPE_CHECKING:
    from brickyard.doctor.observe.forward import Call
    from brickyard.doctor.observe.losses import LossCall
    from brickyard.doctor.observe.probes import Asked
    from brickyard.doctor.observe.watcher import Watcher


#: Losses that a call with input, target and named options repeats.
PLAIN = (*ELEMENTWISE, *CLASSES, "binary_cross_entropy", "binary_cross_entropy_with_logits")


def relative(one: torch.Tensor, two: torch.Tensor) -> float:
    """Return the largest difference relative to the size of the outputs."""
    size = float(one.abs().amax())
    return float((one - two).abs().amax()) / size if size > 0 else 0.0


def samples_mix(w: Watcher, call: Call, asked: Asked) -> None:
    """Change one sample and see whether the outputs of others change.

    Args:
        w: the watcher.
        call: the call of the model.
        asked: the copy.
    """
    model = call.module
    given = asked.given
    if not given or given[0].shape[0] < 3 or not _batch_first(w, call):
        return
    if asked.rows and torch.equal(given[0], given[0][:1].expand_as(given[0])):
        asked.take_all(call)  # the first ones are all alike: sorted data
        given = asked.given
    x, count = given[0], given[0].shape[0]
    if any(t.shape[0] != count for t in given):
        return
    base = asked.base()
    if base is None or base.ndim < 1 or base.shape[0] != count or count in base.shape[1:]:
        return
    if not finite(base):
        return
    other = next((i for i in range(1, count) if not torch.equal(x[i], x[0])), None)
    if other is None:
        return
    changed = x.clone()
    changed[0] = x[other]
    out = asked(x, changed)
    if out is None or out.shape != base.shape:
        return
    size = float(base.abs().amax())
    rest = (out - base).flatten(1 if base.ndim > 1 else 0)[1:]
    rest = rest.abs() if rest.ndim == 1 else rest.abs().amax(1)
    moved = int((rest > T.MIXING * size).sum())
    if size > 0 and moved and asked.repeats():
        change = float(rest.amax()) / size
        w.seen.note("batch-mixing", call.root.name, _line_of(model), batch=count, others=moved,
                    change=change)  # fmt: skip


def _batch_first(w: Watcher, call: Call) -> bool:
    """Say whether the first dimension is the batch, for the model and for the loss."""
    x = first_tensor((call.args, call.kwargs))
    paired = any(
        c.given is call.output and c.target.ndim == 1 and c.given.ndim == 2 and x is not None
        and x.ndim >= 3 and c.target.shape[0] == x.shape[0]
        for c in w.functions.recent
    )  # fmt: skip
    for module in call.module.modules():
        if getattr(module, "batch_first", True) is False and not paired:
            return False
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.track_running_stats:
            return False
    return True


def _line_of(model: nn.Module) -> Any:
    """Return where the model's forward is written, if the user wrote it."""
    from brickyard.doctor.observe.places import USER, _level, make_place
    from brickyard.doctor.observe.record import NOWHERE

    code = getattr(getattr(type(model), "forward", None), "__code__", None)
    if code is None or _level(code.co_filename) != USER:
        return NOWHERE
    return make_place(code.co_filename, code.co_firstlineno)


def future_seen(w: Watcher, call: Call, asked: Asked) -> None:
    """Change late tokens and see whether early scores change, where targets are next tokens.

    Args:
        w: the watcher.
        call: the call of the model.
        asked: the copy.
    """
    shares = [x.facts["offsets"] for x in w.seen.losses.values() if x.facts.get("distinct", 0) >= 4]
    tokens = next(
        (t for t in asked.given if t.ndim == 2 and not t.is_floating_point() and t.shape[1] >= 4
         and t.dtype != torch.bool), None,
    )  # fmt: skip
    if tokens is None:
        return
    length = tokens.shape[1]
    base = asked.base()
    if base is None or base.ndim < 3 or base.shape[:2] != tokens.shape:
        return
    cut = length // 2
    changed = tokens.clone()
    changed[:, cut:] = tokens.roll(1, 0)[:, cut:].flip(1)
    if torch.equal(changed, tokens):
        return
    out = asked(tokens, changed)
    if out is None or out.shape != base.shape:
        return
    change = relative(base[:, :cut], out[:, :cut])
    if change > T.MIXING and not asked.repeats():
        return
    if change <= T.MIXING:
        w.seen.note("causal", call.root.name)
        return
    same, total = shares[0].get(1, (0, 1)) if shares else (0, 1)
    if same / max(total, 1) > T.OTHER_TOKENS:
        w.seen.note("causality-leak", call.root.name, _line_of(call.module), position=cut,
                    length=length, change=change)  # fmt: skip


def labels_matter(w: Watcher) -> None:
    """Permute the labels of the last loss and see whether it changes."""
    if w.seen.of("labels-asked"):
        return
    recent = [c for c in w.functions.recent if c.value.numel() == 1]
    for call in recent[:1]:
        x, y = call.given.detach(), call.target.detach()
        rows = y.shape[0] if y.ndim else 0
        if rows < 8 or x.shape[0] != rows or call.name not in PLAIN:
            continue
        if bool((x == x[:1]).all()) or bool((y == y[:1]).all()):
            continue
        size = float(x.float().std(0).mean())
        if size <= max(1e-3, 1e-4 * float(x.float().abs().mean())):
            continue
        function = getattr(torch.nn.functional, call.name)
        with w.own_time("probe label-independence"), torch.no_grad():
            w.seen.note("labels-asked", call.name)
            moved = function(x, y.roll(rows // 3 or 1, 0), **_plain(call.kwargs))
            value, other = float(call.value.detach()), float(moved)
            if abs(value - other) <= 1e-6 * max(abs(value), 1e-12):
                w.seen.note("label-independence", call.name, call.seen.place, value=value)


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v for k, v in kwargs.items() if k not in ("input", "target", "size_average", "reduce")
    }


def mode_gap(w: Watcher, call: Call, loss: LossCall, twin: nn.Module) -> None:
    """Compare the loss of one batch in training and in evaluation mode, dropout off in both.

    Args:
        w: the watcher.
        call: the call of the model.
        loss: the loss of its output.
        twin: a copy of the model.
    """
    if loss.name not in PLAIN:
        return
    function = getattr(torch.nn.functional, loss.name)
    args = with_tensors(call.args, lambda t: t.detach())
    kwargs = with_tensors(call.kwargs, lambda t: t.detach())

    def value(train: bool) -> float:
        for module in twin.modules():
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            module.training = train and norm
        out = first_tensor(twin(*args, **kwargs))
        return float(function(out, loss.target, **_plain(loss.kwargs)))

    evaluated = value(False)
    trained = value(True)
    if trained == trained and evaluated == evaluated and trained > 1e-3:
        note = w.seen.note("eval-gap", call.root.name, call.root.place, ratio=0.0)
        ratio = evaluated / trained
        low = min(ratio, note.values["ratio"]) if note.count > 1 else ratio
        note.values.update(ratio=low, train=trained, eval=evaluated, steps=w.seen.step)
