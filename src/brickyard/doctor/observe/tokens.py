"""Compare the targets of a token loss with the tokens that went into the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brickyard.doctor.observe.record import LossSeen
from brickyard.doctor.observe.tensors import tensors

if TYPE_CHECKING:
    from brickyard.doctor.observe.forward import Call
    from brickyard.doctor.observe.watcher import Watcher


def compare_tokens(
    w: Watcher, seen: LossSeen, logits: torch.Tensor, target: torch.Tensor, kwargs: dict[str, Any]
) -> None:
    """Record at which offset targets repeat the inputs, and how much of them is padding.

    Args:
        w: the watcher.
        seen: where to.
        logits: what the loss was given.
        target: its targets.
        kwargs: options of the loss.
    """
    if target.is_floating_point() or target.numel() < 8:
        return
    for call in reversed(w.forwards.calls):
        for tokens in tensors((call.args, call.kwargs)):
            if tokens.is_floating_point() or tokens.ndim != 2 or tokens.dtype == torch.bool:
                continue
            if tokens.shape[1] < 4:
                continue
            aligned = _align(tokens, target)
            if aligned is not None:
                _offsets(seen, tokens, aligned, kwargs.get("ignore_index", -100))
                _padding(seen, aligned, kwargs)
                return


def answers(w: Watcher, call: Call) -> None:
    """Record at which offset a trained model's answers repeat its own input.

    Args:
        w: the watcher.
        call: a call in training.
    """
    words = {m.num_embeddings for m in call.module.modules() if isinstance(m, nn.Embedding)}
    scores = next((t for t in tensors(call.output) if t.ndim == 3 and t.shape[2] in words), None)
    if scores is None or not scores.is_floating_point():
        return
    for tokens in tensors((call.args, call.kwargs)):
        if tokens.is_floating_point() or tokens.dtype == torch.bool or tokens.ndim != 2:
            continue
        if tokens.shape != scores.shape[:2] or tokens.shape[1] < 8:
            continue
        chosen, count = scores.detach().argmax(2), tokens.shape[1] - 2
        used = tokens[:, :count] != tokens[:, 1 : count + 1]  # runs and padding answer every offset
        if not bool(used.any()):
            return
        note = w.seen.note("token-answers", call.root.name, call.root.place)
        same = [int((chosen[:, :count] == tokens[:, k : k + count])[used].sum()) for k in (0, 1, 2)]
        before = note.values.get("same", (0, 0, 0))
        note.values["same"] = tuple(a + b for a, b in zip(before, same, strict=True))
        note.values["of"] = note.values.get("of", 0) + int(used.sum())
        counts = torch.bincount(tokens.flatten().cpu()).double()
        share = counts[counts > 0] / counts.sum()
        note.values.update(entropy=float(-(share * share.log()).sum()), loss=w.backwards.last_value)
        return


def _align(tokens: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
    """Return the targets as one row per sequence: target t belongs to input t."""
    rows, length = tokens.shape
    if target.ndim == 2 and target.shape[0] == rows and target.shape[1] <= length:
        return target
    if target.ndim == 1 and rows > 0 and target.numel() % rows == 0:
        width = target.numel() // rows
        if length - 2 <= width <= length:
            return target.reshape(rows, width)
    return None


def _offsets(seen: LossSeen, tokens: torch.Tensor, target: torch.Tensor, ignore: int) -> None:
    """Record the share of positions where target t equals input t + offset."""
    width = target.shape[1]
    used = target != ignore
    found = seen.facts.setdefault("offsets", {})
    for offset in (0, 1, 2):
        count = min(width, tokens.shape[1] - offset)
        if count < 2:
            continue
        mask = used[:, :count]
        total = int(mask.sum())
        same = (target[:, :count] == tokens[:, offset : offset + count]) & mask
        if total:
            before = found.get(offset, (0, 0))
            found[offset] = (before[0] + int(same.sum()), before[1] + total)
    seen.facts["distinct"] = int(target[used].unique().numel()) if bool(used.any()) else 0
    seen.facts["tokens"] = tuple(tokens.shape)


def _padding(seen: LossSeen, target: torch.Tensor, kwargs: dict[str, Any]) -> None:
    """Record runs of one token at the ends of rows, where they differ in length."""
    if kwargs.get("reduction", "mean") == "none" or kwargs.get("weight") is not None:
        return
    ignore = kwargs.get("ignore_index", -100)
    last = target[:, -1:]
    ended = (target == last).flip(1).to(torch.int64).cumprod(1).sum(1)
    ended = torch.where(last[:, 0] == ignore, torch.zeros_like(ended), ended)
    long = ended >= 2
    facts = seen.facts.setdefault("padding", {})
    if bool(long.any()):
        tokens = last[:, 0][long]
        pad = int(tokens.mode().values)
        rows = long & (last[:, 0] == pad)
        lengths = ended[rows]
        facts["pad"] = pad
        facts["count"] = facts.get("count", 0) + int(lengths.sum())
        facts["rows"] = facts.get("rows", 0) + int(rows.sum())
        facts["lengths"] = facts.get("lengths", set()) | set(lengths.tolist())
        inner = (target == pad).sum() - lengths.sum()
        facts["inner"] = facts.get("inner", 0) + int(inner)
    facts["total"] = facts.get("total", 0) + int((target != ignore).sum())
    facts["of_rows"] = facts.get("of_rows", 0) + target.shape[0]
