"""Losses on sequences: CTC, and cross-entropy of a large head without its logits."""

from __future__ import annotations

from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    Weights,
    check_class_weight,
    check_finite,
    check_floating,
    check_interval,
    check_modes,
    check_not_empty,
    check_number,
    extremes,
    shape,
    single,
)
from brickyard.losses._head import LinearCrossEntropy, Plan
from brickyard.losses._targets import check_classes

__all__ = [
    "CTCLoss", "LinearCrossEntropyLoss", "ctc_loss", "linear_cross_entropy_loss",
]  # fmt: skip

Lengths = Tensor | tuple[int, ...] | list[int]
#: Logits held at once by default: 64 MB in fp32.
_HELD = 1 << 24


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths,
    blank: int = 0, zero_infinity: bool = False, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the negative log-likelihood over all alignments; see :class:`CTCLoss`."""
    who = "ctc_loss"
    check_modes(who, reduction, validate)
    check_floating(who, "log_probs", log_probs)
    check_not_empty(who, log_probs, reduction)
    if log_probs.dim() not in (2, 3):
        raise ValueError(f"{who}: log_probs must be (T, N, C) or (T, C); got {shape(log_probs)}")
    if targets.is_floating_point():
        raise TypeError(f"{who}: targets must be integers; got {targets.dtype}")
    classes = log_probs.shape[-1]
    if not 0 <= blank < classes:
        raise ValueError(f"{who}: blank must lie in [0, {classes}); got {blank}")
    frames, symbols = (torch.as_tensor(n) for n in (input_lengths, target_lengths))
    _check_lengths(who, log_probs, targets, frames, symbols)
    if targets.device.type == "cpu" or validate == "full":
        _check_symbols(who, targets, frames, symbols, blank, classes, zero_infinity)
    if validate == "full":
        why = "CTC takes log-probabilities: apply log_softmax over the last axis."
        check_interval(who, "log_probs", log_probs, float("-inf"), 1e-4, why, full=True)
    return F.ctc_loss(single(log_probs), targets, frames, symbols, blank, reduction, zero_infinity)


def _check_lengths(
    who: str, log_probs: Tensor, targets: Tensor, frames: Tensor, symbols: Tensor
) -> None:
    batch = log_probs.shape[1:2] if log_probs.dim() == 3 else torch.Size()
    if frames.shape != batch or symbols.shape != batch:
        raise ValueError(
            f"{who}: input_lengths and target_lengths must have shape {tuple(batch)} for log_probs "
            f"{shape(log_probs)}; got {shape(frames)} and {shape(symbols)}"
        )
    for name, lengths, most in (
        ("input_lengths", frames, log_probs.shape[0]),
        ("target_lengths", symbols, targets.shape[-1]),
    ):
        found = extremes(lengths)
        if found is not None and not 0 <= found[0] <= found[1] <= most:
            raise ValueError(
                f"{who}: {name} must lie in [0, {most}] for log_probs {shape(log_probs)} and "
                f"targets {shape(targets)}; got {found[0]:g} to {found[1]:g}"
            )


def _check_symbols(
    who: str, targets: Tensor, frames: Tensor, symbols: Tensor, blank: int, classes: int,
    zero_infinity: bool,
) -> None:  # fmt: skip
    """Check the symbols that count, and that each target fits into its frames."""
    frames, symbols = frames.reshape(-1).cpu(), symbols.reshape(-1).cpu()
    flat = targets.reshape(-1) if targets.dim() == 1 else targets
    if targets.dim() == 2:
        flat = targets[torch.arange(targets.shape[1]) < symbols.unsqueeze(1)]
    flat = flat[: int(symbols.sum())].cpu()
    wrong = (flat < 0) | (flat >= classes) | (flat == blank)
    if bool(wrong.any()):
        raise ValueError(
            f"{who}: targets must lie in [0, {classes}) and never be the blank, {blank}; got "
            f"{int(flat[wrong][0])}. Symbols usually start at 1, with 0 for the blank"
        )
    owner = torch.repeat_interleave(torch.arange(len(symbols)), symbols)
    twice = (flat[1:] == flat[:-1]) & (owner[1:] == owner[:-1])
    repeats = torch.bincount(owner[1:][twice], minlength=len(symbols))
    short = symbols + repeats > frames
    if not zero_infinity and bool(short.any()):
        i = int(short.nonzero()[0])
        raise ValueError(
            f"{who}: a target needs one frame per symbol and one between equal neighbours; sample "
            f"{i} has {int(frames[i])} frames for {int(symbols[i])} symbols and {int(repeats[i])} "
            f"repeats, so no alignment exists and the loss is infinite. Drop such samples, or pass "
            f"zero_infinity=True to let them cost 0"
        )


class Head(TypedDict, total=False):
    """Options of the head; see :class:`LinearCrossEntropyLoss` for their meaning."""

    class_weight: Tensor | None
    ignore_index: int
    label_smoothing: float
    soft_cap: float | None
    chunk: int | None
    reduction: str
    validate: Validate


def linear_cross_entropy_loss(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None,
    **options: Unpack[Head],
) -> Tensor:  # fmt: skip
    """Return the cross-entropy of ``hidden @ weight.T``; see :class:`LinearCrossEntropyLoss`."""
    who = "linear_cross_entropy_loss"
    reduction, validate = options.get("reduction", "mean"), options.get("validate", "cheap")
    check_modes(who, reduction, validate)
    ignore = options.get("ignore_index", -100)
    target = _check_head(who, hidden, weight, target, bias, options)
    rows = hidden.reshape(-1, hidden.shape[-1])
    flat = target.reshape(-1)
    if torch.is_autocast_enabled(hidden.device.type):  # as torch would for a Linear
        kind = torch.get_autocast_dtype(hidden.device.type)
        rows, weight = rows.to(kind), weight.to(kind)
    class_weight = options.get("class_weight")
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    if class_weight is not None:
        class_weight = class_weight.to(rows.device, wide)
    plan = Plan(
        ignore, options.get("label_smoothing", 0.0), options.get("soft_cap"),
        options.get("chunk") or max(1, _HELD // weight.shape[0]), reduction == "none",
    )  # fmt: skip
    loss = LinearCrossEntropy.apply(rows, weight, bias, flat, class_weight, plan)
    if plan.each:
        return loss.reshape(target.shape)
    if reduction == "sum":
        return loss
    kept = flat != ignore
    share = kept if class_weight is None else class_weight[torch.where(kept, flat, 0)] * kept
    total = share.sum()
    return loss / torch.where(total > 0, total, 1)


def _check_head(
    who: str, hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, options: Head
) -> Tensor:
    check_floating(who, "hidden", hidden)
    check_floating(who, "weight", weight)
    check_not_empty(who, hidden, options.get("reduction", "mean"))
    if weight.dim() != 2 or hidden.dim() < 1 or weight.shape[1] != hidden.shape[-1]:
        raise ValueError(
            f"{who}: hidden (*, D) needs a weight of shape (V, D), as nn.Linear has; got "
            f"{shape(hidden)} and {shape(weight)}"
        )
    size = weight.shape[:1]
    for name, value in (("bias", bias), ("class_weight", options.get("class_weight"))):
        if value is not None and value.shape != size:
            raise ValueError(f"{who}: {name} must have shape {tuple(size)}; got {shape(value)}")
    check_number(who, "label_smoothing", options.get("label_smoothing", 0.0), 0.0, 1.0)
    for name in ("soft_cap", "chunk"):
        value = options.get(name)
        if value is not None:
            check_number(who, name, value, 0.0, open_low=True)
    validate = options.get("validate", "cheap")
    if validate == "full":
        check_finite(who, hidden=hidden, weight=weight, bias=bias)
    logits = torch.empty((*hidden.shape[:-1], size[0]), device="meta")  # a shape, no memory
    last = logits.movedim(-1, 1) if logits.dim() > 1 else logits
    axis = 1 if logits.dim() > 1 else 0
    return check_classes(who, last, target, axis, options.get("ignore_index", -100), validate)[0]


@brick(
    "loss", "ctc", public="brickyard.losses", output="log-probabilities", target="tokens",
    summary="Negative log-likelihood of a symbol sequence over all ways to align it with frames.",
    use_when="The target is a shorter sequence in the order of the input, and its timing unknown.",
    avoid_when="Order may change (translation), or outputs depend strongly on each other.",
    best_for="Speech, handwriting and text line recognition.",
    paper="Graves et al. 2006, Connectionist Temporal Classification, eq. 5 to 8",
    tune_first="the frame rate: enough frames per symbol, but few blanks",
    cost="Forward and backward recursions over frames times symbols.",
    pairs_with=("adam", "adamw"),
)  # fmt: skip
class CTCLoss(nn.CTCLoss):
    """Sum the likelihood of a symbol sequence over all its alignments.

    torch's class with a door. A target that cannot fit into its frames has an infinite loss and
    NaN gradients: that is refused, unless ``zero_infinity`` lets it cost 0. The mean divides
    each loss by its target's length first, as torch does.

    Math:
        l_i = -log sum_{paths that collapse to y_i} prod_t p_t(path_t)
        mean = (1/N) * sum_i l_i / |y_i|

    Args:
        blank: index of the blank; no target may hold it.
        reduction: ``"mean"`` (see above), ``"sum"``, or ``"none"``.
        zero_infinity: let targets without an alignment cost 0, with zero gradients.
        validate: ``"cheap"`` checks shapes and dtypes and, on the CPU, symbols and lengths;
            ``"full"`` also refuses positive or NaN log-probabilities.

    Shape:
        log_probs ``(T, N, C)`` or ``(T, C)``; targets ``(N, S)`` padded or ``(sum of lengths,)``;
        both lengths ``(N,)``, in frames and symbols.

    Raises:
        ValueError: shapes or lengths do not match, a symbol is the blank or outside ``[0, C)``,
            a target does not fit into its frames.
        TypeError: log_probs are not floating point, targets are not integers.

    Example:
        >>> import torch
        >>> even = torch.zeros(2, 1, 2).log_softmax(2)  # 3 of 4 paths of 2 frames give "1"
        >>> CTCLoss()(even, torch.tensor([[1]]), [2], [1])
        tensor(0.2877)

    Reference:
        Graves et al. 2006, Connectionist Temporal Classification, eq. 5 to 8.
    """

    def __init__(
        self, blank: int = 0, reduction: Reduction = "mean", zero_infinity: bool = False,
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(blank, reduction, zero_infinity)
        check_modes("CTCLoss", reduction, validate)
        self.validate: Validate = validate

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths
    ) -> Tensor:
        """Return the loss of ``log_probs`` against ``targets``."""
        return ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.zero_infinity,
            self.reduction, self.validate,
        )  # fmt: skip


@brick(
    "loss", "linear_cross_entropy", public="brickyard.losses", output="other",
    target="class indices",
    summary="Cross-entropy of a linear head, in chunks: never all logits in memory.",
    use_when="The vocabulary is large, and logits and their gradient fill the memory.",
    avoid_when="You need the logits themselves, or the head is small.",
    best_for="Language models, retrieval over large catalogues.",
    paper="Wijmans et al. 2024, Cut Your Losses in Large-Vocabulary Language Models",
    tune_first="chunk: larger is faster until the memory is the limit",
    cost="The plain form's three products; memory of one chunk of logits.",
    pairs_with=("cross_entropy", "adamw"),
)  # fmt: skip
class LinearCrossEntropyLoss(Loss):
    """Measure the cross-entropy of ``hidden @ weight.T + bias`` without holding the logits.

    Value and gradients are those of ``CrossEntropyLoss`` on the logits, computed a chunk of
    tokens at a time. With ``"mean"`` and ``"sum"`` the gradients are computed along with the
    loss; with ``"none"`` the backward computes the logits a second time. Half-precision products
    stay in half precision, as a linear layer's do; the softmax and the sums are fp32. A second
    derivative goes through the plain form and its memory. The measured figures are those of
    ``python benchmarks/losses_speed.py``.

    Math:
        z_i = W x_i + b;  u_i = soft_cap*tanh(z_i/soft_cap);  l_i = CE(u_i, y_i)

    Args:
        class_weight: one factor per class.
        ignore_index: targets of this value count for nothing.
        label_smoothing: share of the target spread evenly over the classes; 0 to 1.
        soft_cap: bound that logits approach smoothly; None leaves them as they are.
        chunk: tokens per step; None holds 2^24 logits (64 MB in fp32) at once.
        reduction: ``"mean"`` (divided by the class weights of the targets that count), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of targets;
            ``"full"`` also refuses non-finite values.

    Shape:
        hidden ``(*, D)``; weight ``(V, D)`` and bias ``(V,)`` as of ``nn.Linear``; target
        integers ``(*)``.

    Raises:
        ValueError: shapes do not match, an index is outside ``[0, V)``, an option is out of range.
        TypeError: hidden or weight is not floating point, target is not integer.

    Example:
        >>> import torch
        >>> head, hidden = torch.nn.Linear(8, 100), torch.randn(2, 5, 8)
        >>> target = torch.randint(0, 100, (2, 5))
        >>> loss = LinearCrossEntropyLoss(chunk=4)(hidden, head.weight, target, head.bias)
        >>> plain = torch.nn.CrossEntropyLoss()(head(hidden).flatten(0, 1), target.flatten())
        >>> torch.allclose(loss, plain)
        True

    Reference:
        Wijmans et al. 2024, Cut Your Losses in Large-Vocabulary Language Models, section 3;
        soft_cap as in Gemma Team 2024, Gemma 2, section 2.
    """

    class_weight: Tensor | None

    def __init__(
        self, class_weight: Weights = None, ignore_index: int = -100,
        label_smoothing: float = 0.0, soft_cap: float | None = None, chunk: int | None = None,
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        who = "LinearCrossEntropyLoss"
        check_number(who, "label_smoothing", label_smoothing, 0.0, 1.0)
        for name, value in (("soft_cap", soft_cap), ("chunk", chunk)):
            if value is not None:
                check_number(who, name, value, 0.0, open_low=True)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.soft_cap, self.chunk = soft_cap, chunk
        self.register_buffer("class_weight", check_class_weight(who, class_weight, "class_weight"))

    def forward(
        self, hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a linear head on ``hidden`` against ``target``."""
        return linear_cross_entropy_loss(
            hidden, weight, target, bias, class_weight=self.class_weight,
            ignore_index=self.ignore_index, label_smoothing=self.label_smoothing,
            soft_cap=self.soft_cap, chunk=self.chunk, reduction=self.reduction,
            validate=self.validate,
        )  # fmt: skip
