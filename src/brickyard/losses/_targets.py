"""Check classification targets against the logits they belong to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from brickyard.losses._contracts import (
    check_finite,
    check_floating,
    check_interval,
    check_not_empty,
    check_same_shape,
    extremes,
    holds,
    shape,
    single,
)

#: Fewer logits than this may lie in [0, 1] by chance.
_MANY = 32


class Classes(NamedTuple):
    """Class indices that passed the door.

    ``none`` and ``some`` say whether all, or any, of them are ignored. On an accelerator ``none``
    is a tensor and ``some`` is True: the answer is not read back.
    """

    indices: Tensor
    none: bool | Tensor
    some: bool


def check_binary(
    who: str, input: Tensor, target: Tensor, reduction: str, validate: str
) -> tuple[Tensor, Tensor]:
    """Check logits against 0/1 (or soft) targets; return both in the precision to compute in."""
    check_floating(who, "input", input)
    check_same_shape(who, input, target)
    check_not_empty(who, input, reduction)
    full = validate == "full"
    if target.dtype != torch.bool:
        why = "Binary targets are 0 or 1, or a probability between; labels in {-1, +1} go to hinge."
        check_interval(who, "target", target, 0, 1, why, full)
    if full:
        check_finite(who, input=input)
        refuse_sigmoid(who, input)
    input = single(input)
    return input, target.to(input.dtype)


def refuse_sigmoid(who: str, input: Tensor) -> None:
    """Refuse many binary "logits" that all lie in [0, 1] (part of ``validate="full"``)."""
    found = extremes(input, always=True)
    if input.numel() >= _MANY and found is not None and found[0] >= 0 and found[1] <= 1:
        raise ValueError(
            f"{who}: input must be logits; all {input.numel()} values lie in [0, 1], as after a "
            f"sigmoid. Remove the sigmoid: the loss applies its own"
        )


def refuse_softmax(who: str, input: Tensor, axis: int) -> None:
    """Refuse rows that already are probabilities (part of ``validate="full"``)."""

    def plain_logits() -> Tensor:
        wide = input.detach().float()
        return (wide.min() < 0) | ((wide.sum(axis) - 1).abs() > 1e-3).any()

    if not holds(plain_logits):
        raise ValueError(
            f"{who}: input must be logits; every row is non-negative and sums to one, so a softmax "
            f"was applied already. Remove it, or take its log and use nll_loss"
        )


def check_probabilities(who: str, input: Tensor, target: Tensor, axis: int, validate: str) -> None:
    """Check floating targets, which must be one distribution per row of logits."""
    if target.shape != input.shape:
        expected = [*input.shape[:axis], *input.shape[axis + 1 :]]
        raise ValueError(
            f"{who}: a {target.dtype} target is read as class probabilities and must have the "
            f"shape of input, {shape(input)}; got {shape(target)}. For class indices of shape "
            f"{tuple(expected)}, pass target.long()"
        )
    _refuse_one_class(who, input, axis)
    full = validate == "full"
    check_interval(who, "target", target, 0, 1 + 1e-4, "Targets are probabilities.", full)
    if full and not holds(lambda: ((target.float().sum(axis) - 1).abs() <= 1e-3).all()):
        raise ValueError(
            f"{who}: probability targets must sum to one over axis {axis}; the sums range from "
            f"{target.sum(axis).min():g} to {target.sum(axis).max():g}. Normalize them, or use bce "
            f"if labels are not exclusive"
        )


def check_classes(
    who: str, input: Tensor, target: Tensor, axis: int, ignore_index: int, validate: str
) -> Classes:
    """Check class indices against the logits; return them as int64."""
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        hint = "Use bce for yes/no labels" if target.dtype == torch.bool else "Pass target.long()"
        raise TypeError(f"{who}: class indices must be integers; got {target.dtype}. {hint}")
    expected = (*input.shape[:axis], *input.shape[axis + 1 :])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"{who}: for input {shape(input)}, class indices must have shape {expected}; got "
            f"{shape(target)}.{_hint(target, input, expected, axis)}"
        )
    _refuse_one_class(who, input, axis)
    count = input.shape[axis]
    target = target.long()
    found = extremes(target, always=validate == "full")
    if found is None:  # an accelerator: torch checks the range there; stay asynchronous
        return Classes(target, (target == ignore_index).all(), True)
    none = found[0] == found[1] == ignore_index
    if found[0] >= 0 and found[1] < count:
        return Classes(target, none, found[0] <= ignore_index <= found[1])
    wrong = target[((target < 0) | (target >= count)) & (target != ignore_index)]
    if wrong.numel():
        raise ValueError(
            f"{who}: class indices must lie in [0, {count}) for {count} logits, or equal "
            f"ignore_index={ignore_index}; got {wrong[0].item()} ({wrong.numel()} of "
            f"{target.numel()} are outside). Labels that start at 1 need 1 subtracted"
        )
    return Classes(target, none, True)


def _hint(target: Tensor, input: Tensor, expected: tuple[int, ...], axis: int) -> str:
    if target.shape == input.shape:
        return f" One-hot integers? Pass target.argmax({axis}), or target.float() as probabilities"
    if target.numel() == torch.Size(expected).numel():
        return f" The counts agree: pass target.reshape({expected})"
    if tuple(target.shape) == tuple(input.shape[:-1]):
        return " Classes stand on axis 1: move them there with input.movedim(-1, 1)"
    return ""


def _refuse_one_class(who: str, input: Tensor, axis: int) -> None:
    if input.dim() == 0 or input.shape[axis] == 1:
        raise ValueError(
            f"{who}: a softmax over one class is always 1, so the loss would be 0 for any weights; "
            f"got input {shape(input)}. Use bce for a single yes/no logit"
        )
