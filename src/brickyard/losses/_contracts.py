"""Check what comes in at the door of a loss, and reduce what goes out.

Two levels. ``"cheap"`` is always on: shapes and dtypes, and on the CPU the range of targets and
weights. Reading values back from an accelerator would stall its queue, so there the range is left
to ``"full"``, which also looks for non-finite numbers and for outputs in the wrong form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum", "none"]
Validate = Literal["cheap", "full"]
#: What a class weight may be given as: a recipe has lists, code has tensors.
Weights = Sequence[float] | Tensor | None

_REDUCTIONS = ("mean", "sum", "none")
_LEVELS = ("cheap", "full")
_HALF = (torch.float16, torch.bfloat16)


class Loss(nn.Module):
    """Hold what every loss of ours has: a reduction and a level of validation."""

    def __init__(self, reduction: str, validate: Validate):
        super().__init__()
        check_modes(type(self).__name__, reduction, validate)
        self.reduction = reduction
        self.validate: Validate = validate

    def extra_repr(self) -> str:
        """Return the options as ``repr`` prints them."""
        options = {k: v for k, v in vars(self).items() if k[0] != "_" and k != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in options.items())


def check_modes(who: str, reduction: str, validate: str) -> None:
    """Refuse an unknown ``reduction`` or ``validate``."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{who}: reduction is one of {_REDUCTIONS}; got {reduction!r}")
    if validate not in _LEVELS:
        raise ValueError(f"{who}: validate is one of {_LEVELS}; got {validate!r}")


def check_number(
    who: str, name: str, value: float, low: float, high: float = math.inf, open_low: bool = False
) -> None:
    """Refuse an option outside ``[low, high]`` (``(low, high]`` when ``open_low``)."""
    if not (low < value if open_low else low <= value) or not value <= high:
        top = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(
            f"{who}: {name} must be {'above' if open_low else 'at least'} {low:g}{top}; got {value}"
        )


def check_choice(who: str, name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse an option that is not one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{who}: {name} is one of {', '.join(allowed)}; got {value!r}")


def shape(tensor: Tensor) -> str:
    """Return a shape as messages print it."""
    return str(tuple(tensor.shape))


def check_floating(who: str, name: str, tensor: Tensor) -> None:
    """Refuse what is no floating-point tensor, such as a prediction after argmax or a threshold."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{who}: {name} must be a tensor; got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(
            f"{who}: {name} must be floating point; got {tensor.dtype}. Give the network's raw "
            f"output, before any argmax, threshold or rounding"
        )


def check_same_shape(who: str, a: Tensor, b: Tensor, names: str = "input and target") -> None:
    """Refuse shapes that differ: broadcasting would pair every sample with every other."""
    if a.shape == b.shape:
        return
    first, second = names.split(" and ")
    if a.numel() == b.numel():
        hint = f"the counts agree: use {second}.view_as({first})"
    else:
        hint = f"they hold {a.numel()} and {b.numel()} elements: something upstream lost an axis"
    raise ValueError(
        f"{who}: {names} must have the same shape; got {shape(a)} and {shape(b)}; {hint}"
    )


def check_not_empty(who: str, tensor: Tensor, reduction: str) -> None:
    """Refuse the mean over nothing, which torch returns as NaN."""
    if reduction == "mean" and tensor.numel() == 0:
        raise ValueError(
            f"{who}: the mean of an empty batch is undefined; got shape {shape(tensor)}; "
            f"skip the batch, or use reduction='sum'"
        )


def single(tensor: Tensor) -> Tensor:
    """Return half precision as fp32; other dtypes as they are."""
    return tensor.float() if tensor.dtype in _HALF else tensor


def check_values(
    who: str, input: Tensor, target: Tensor, reduction: str, validate: str,
    names: str = "input and target",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Check a pair of real-valued tensors; return both in the precision to compute in."""
    first, second = names.split(" and ")
    check_floating(who, first, input)
    if not target.is_floating_point():
        raise TypeError(
            f"{who}: {second} must be floating point, as values are; got {target.dtype}. For class "
            f"indices take cross_entropy; for values pass {second}.float()"
        )
    check_same_shape(who, input, target, names)
    check_not_empty(who, input, reduction)
    if validate == "full":
        check_finite(who, **{first: input, second: target})
    input = single(input)
    return input, target.to(input.dtype)


def extremes(tensor: Tensor, always: bool = False) -> tuple[float, float] | None:
    """Return smallest and largest value, or None where looking is not cheap or not possible.

    Args:
        tensor: any real tensor.
        always: look on accelerators too, at the price of a synchronisation.
    """
    if tensor.numel() == 0 or torch.compiler.is_compiling():
        return None
    if not always and tensor.device.type != "cpu":
        return None
    if tensor.dtype == torch.bool:
        return (0, 1)
    try:
        low, high = torch.aminmax(tensor.detach())
        return low.item(), high.item()
    except (RuntimeError, NotImplementedError):  # under vmap or on the meta device: no values
        return None


def holds(condition: Callable[[], Tensor]) -> bool:
    """Evaluate a 0-d condition on values; True where values cannot be read (vmap, compile)."""
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition())
    except RuntimeError:
        return True


def check_finite(who: str, **tensors: Tensor | None) -> None:
    """Refuse NaN and infinity (part of ``validate="full"``)."""
    for name, tensor in tensors.items():
        if tensor is None or not tensor.is_floating_point():
            continue
        if not holds(lambda t=tensor: torch.isfinite(t).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"{who}: {name} must be finite; {bad} of {tensor.numel()} values are not. Look at "
                f"the step before: a rate too high, a division by zero, or bad data"
            )


def check_interval(
    who: str, name: str, tensor: Tensor, low: float, high: float, why: str, full: bool = False
) -> None:
    """Refuse values outside ``[low, high]`` (a NaN is outside)."""
    found = extremes(tensor, always=full)
    if found is not None and not (low <= found[0] and found[1] <= high):
        raise ValueError(
            f"{who}: {name} must lie in [{low:g}, {high:g}]; got values from {found[0]:g} to "
            f"{found[1]:g}. {why}"
        )


def check_class_weight(who: str, weight: float | Weights, name: str = "weight") -> Tensor | None:
    """Return class weights as a fp32 (or given floating) tensor; refuse negative or NaN ones."""
    if weight is None:
        return None
    found = torch.as_tensor(weight)
    found = found if found.is_floating_point() else found.float()
    smallest = extremes(found)
    if smallest is not None and not smallest[0] >= 0:
        raise ValueError(f"{who}: {name} must hold numbers of at least 0; got {found.tolist()}")
    return found


def align_weight(who: str, weight: Tensor, loss: Tensor) -> Tensor:
    """Return ``sample_weight`` in a shape that multiplies ``loss`` without surprises.

    Args:
        who: the loss, for messages.
        weight: one weight per sample, ``(N,)``, or one per element of ``loss``.
        loss: the unreduced loss.
    """
    if weight.shape != loss.shape:
        if weight.dim() != 1 or loss.dim() == 0 or weight.shape[0] != loss.shape[0]:
            raise ValueError(
                f"{who}: sample_weight must have one weight per sample or the shape of the "
                f"unreduced loss, {shape(loss)}; got {shape(weight)}"
            )
        weight = weight.reshape(-1, *[1] * (loss.dim() - 1)).expand(loss.shape)
    found = extremes(weight)
    if found is not None and not found[0] >= 0:
        raise ValueError(f"{who}: sample_weight must be at least 0; got {found[0]:g}")
    return weight.to(loss.dtype)


def reduce(
    who: str, loss: Tensor, reduction: str, weight: Tensor | None = None,
    share: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Reduce an unreduced loss.

    Math:
        mean = sum_i w_i * l_i / sum_i w_i * share_i

    Args:
        who: the loss, for messages.
        loss: the unreduced loss.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        weight: ``sample_weight``; a batch whose weights are all zero has loss 0.
        share: what one element counts for in the mean, such as its class weight.
    """
    if weight is None and share is None:
        if reduction == "mean":
            return loss.mean()
        return loss.sum() if reduction == "sum" else loss
    if weight is not None:
        weight = align_weight(who, weight, loss)
        loss = loss * weight
        share = weight if share is None else share * weight
    if reduction == "mean":
        total = share.sum()  # pyright: ignore[reportOptionalMemberAccess]
        return loss.sum() / torch.where(total == 0, torch.ones_like(total), total)
    return loss.sum() if reduction == "sum" else loss
