"""Look at one call of a loss function: shapes, ranges, contracts, what a constant would reach."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe.places import user_place
from brickyard.doctor.observe.record import LossSeen
from brickyard.doctor.observe.tokens import compare_tokens

if TYPE_CHECKING:
    from brickyard.doctor.observe.watcher import Watcher

ELEMENTWISE = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
CLASSES = ("cross_entropy", "nll_loss")
FUNCTIONS = (
    *ELEMENTWISE, *CLASSES, "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "poisson_nll_loss", "gaussian_nll_loss", "ctc_loss", "multi_margin_loss", "soft_margin_loss",
    "margin_ranking_loss", "triplet_margin_loss", "cosine_embedding_loss",
)  # fmt: skip
#: Options that make a loss larger in training than in evaluation.
_HARDER = ("weight", "pos_weight", "label_smoothing")
#: Operations that only rearrange elements.
_VIEWS = (
    "View", "UnsafeView", "Reshape", "Transpose", "Permute", "Squeeze", "Unsqueeze", "Slice",
    "Select", "Clone", "ToCopy", "T", "Expand", "Alias", "Contiguous", "Index",
)  # fmt: skip


@dataclass
class LossCall:
    """One call, kept until the step ends."""

    name: str
    seen: LossSeen
    given: torch.Tensor
    target: torch.Tensor
    kwargs: dict[str, Any]
    value: torch.Tensor


def observe(
    w: Watcher, name: str, args: Any, kwargs: dict[str, Any], result: torch.Tensor
) -> LossCall | None:
    """Record what can be said about a call; None when it is no part of training.

    Args:
        w: the watcher.
        name: the function's name.
        args: its positional arguments.
        kwargs: its named arguments.
        result: what it returned.
    """
    given = args[0] if args else kwargs.get("input")
    target = args[1] if len(args) > 1 else kwargs.get("target", kwargs.get("targets"))
    if not isinstance(given, torch.Tensor) or not isinstance(target, torch.Tensor):
        return None
    if not result.requires_grad:
        if torch.is_grad_enabled() and result.is_floating_point():
            _without_graph(w, name, given)
        elif w.evaluations.open:
            w.evaluations.lost(name, given, target, kwargs, result)
        return None
    place = user_place(4)
    key = (name, place.file, place.line)
    seen = w.seen.losses.get(key)
    if seen is None:
        seen = w.seen.losses[key] = LossSeen(name, place)
        seen.facts["reduction"] = kwargs.get("reduction", "mean")
        options = [k for k in _HARDER if torch.is_tensor(kwargs.get(k)) or kwargs.get(k)]
        seen.facts["options"] = options
    seen.calls += 1
    x, y = given.detach(), target.detach()
    if name in ELEMENTWISE:
        _elementwise(seen, x, y)
    elif name in CLASSES:
        _classes(seen, name, given, x, y, kwargs)
        compare_tokens(w, seen, x, y, kwargs)
    elif name == "binary_cross_entropy_with_logits":
        _binary(seen, given, x, y)
    elif name == "kl_div":
        _divergence(seen, x, y, kwargs, result)
    if "value" not in seen.first and result.numel() == 1 and w.seen.step == 0:
        seen.first = {"value": float(result.detach()), "numel": x.numel()}
    return LossCall(name, seen, given, target, dict(kwargs), result)


def _without_graph(w: Watcher, name: str, given: torch.Tensor) -> None:
    """Note a loss computed where gradients are on, from an output that has none."""
    call = w.forwards.calls[-1] if w.forwards.calls else None
    if call is not None and call.training:
        w.seen.note("loss-without-graph", name, user_place(5))


def upstream(tensor: torch.Tensor) -> str:
    """Return the name of the operation a tensor came from, through rearrangements."""
    node: Any = tensor.grad_fn
    for _ in range(12):
        if node is None:
            return ""
        name = node.name().partition("Backward")[0]
        if name not in _VIEWS or not node.next_functions:
            return name
        node = node.next_functions[0][0]
    return ""


def _twice(given: torch.Tensor) -> bool:
    """Say whether log-probabilities were made of probabilities, as if those were scores."""
    node = given.grad_fn
    if node is None or not node.name().startswith("LogSoftmax"):
        return False
    before = node.next_functions[0][0]
    return before is not None and before.name().startswith("SoftmaxBackward")


def _elementwise(seen: LossSeen, x: torch.Tensor, y: torch.Tensor) -> None:
    if x.shape != y.shape:
        try:
            both = torch.broadcast_shapes(x.shape, y.shape)
        except RuntimeError:
            return
        if math.prod(both) > max(x.numel(), y.numel()):
            seen.hits["broadcast"] += 1
            seen.facts["shapes"] = (tuple(x.shape), tuple(y.shape), tuple(both))
        return
    values = y.double()
    count = seen.facts.get("count", 0)
    if values.ndim > 1:
        sums, squares = values.flatten(1).sum(0), values.flatten(1).square().sum(0)
    else:
        sums, squares = values.sum(), values.square().sum()
    if count and seen.facts["sum"].shape != sums.shape:
        seen.facts["varies"] = True
        return
    seen.facts["sum"] = sums + (seen.facts["sum"] if count else 0)
    seen.facts["squares"] = squares + (seen.facts["squares"] if count else 0)
    rows = values.shape[0] if values.ndim > 1 else values.numel()
    seen.facts["count"] = count + rows
    seen.facts.setdefault("target_id", set()).add((y.data_ptr(), y._version))


def _classes(
    seen: LossSeen, name: str, given: torch.Tensor, x: torch.Tensor, y: torch.Tensor,
    kwargs: dict[str, Any],
) -> None:  # fmt: skip
    dim = 1 if x.ndim > 1 else 0
    classes = x.shape[dim]
    seen.facts["classes"] = classes
    if name == "cross_entropy":
        off = (x.float().sum(dim) - 1.0).abs()
        if classes > 1 and float(x.amin()) >= 0.0 and float(off.amax()) < T.SUM_TO_ONE:
            seen.hits["probabilities"] += 1
        seen.facts["upstream"] = upstream(given)
        if y.is_floating_point():
            off = float((y.float().sum(dim) - 1.0).abs().amax())
            if off > 0.05:
                seen.hits["no-distribution"] += 1
                seen.facts["row_sum"] = off + 1.0
            return
        if classes == 1:
            seen.hits["one-class"] += 1
    elif x.numel() and float(x.amax()) > T.ABOVE_ZERO:
        seen.hits["positive"] += 1
        seen.facts["largest"] = float(x.amax())
    elif _twice(given):
        seen.hits["probabilities"] += 1
        seen.facts["upstream"] = "Softmax"
    if y.is_floating_point():
        return
    ignore = kwargs.get("ignore_index", -100)
    labels = y[y != ignore].flatten()
    if not labels.numel() or int(labels.min()) < 0 or classes > 100_000:
        return
    if x.ndim == 2 and labels.shape == y.shape:
        right = seen.facts.setdefault("right", deque(maxlen=8))
        right.append((int((x.argmax(1) == y).sum()), y.numel()))
    counts = torch.bincount(labels.cpu(), minlength=classes)
    before = seen.facts.get("labels")
    if before is not None and before.shape == counts.shape:
        counts = counts + before
    seen.facts["labels"] = counts


def _binary(seen: LossSeen, given: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
    if x.numel() and float(x.amin()) >= 0.0 and float(x.amax()) <= 1.0:
        if upstream(given) in ("Sigmoid", "Softmax"):
            seen.hits["sigmoid"] += 1
        seen.facts["upstream"] = upstream(given)
    if y.numel() and (float(y.amin()) < 0.0 or float(y.amax()) > 1.0):
        seen.hits["range"] += 1
        seen.facts["range"] = (float(y.amin()), float(y.amax()))
    seen.facts["positive_sum"] = seen.facts.get("positive_sum", 0.0) + float(y.double().sum())
    seen.facts["count"] = seen.facts.get("count", 0) + y.numel()


def _divergence(
    seen: LossSeen, x: torch.Tensor, y: torch.Tensor, kwargs: dict[str, Any], result: torch.Tensor
) -> None:
    if x.numel() and float(x.amax()) > T.ABOVE_ZERO:
        seen.hits["positive"] += 1
        seen.facts["largest"] = float(x.amax())
    if result.numel() == 1 and float(result.detach()) < -1e-4:
        seen.hits["negative"] += 1
        seen.facts["value"] = float(result.detach())
