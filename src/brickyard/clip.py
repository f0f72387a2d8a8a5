"""Clip gradients: bounds that never poison what they bound."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from brickyard.catalog import brick

__all__ = ["clip_by_global_norm", "joint_norm"]

_HALF = (torch.float16, torch.bfloat16)


@brick(
    "clipping", "clip_by_global_norm", aliases=("clip_grad_norm", "global_norm"),
    summary="Scales all gradients together so that their joint norm stays below a bound.",
    use_when="As insurance: recurrent nets, transformers, high rates. 1.0 is the usual bound.",
    avoid_when="A single layer is the offender: then adaptive or per-layer clipping keeps the "
    "others at full size. With a bound that is active at every step it is a second learning rate.",
    best_for="Recurrent networks and transformers.",
    paper="Pascanu, Mikolov & Bengio 2013 (arXiv:1211.5063), algorithm 1.",
    tune_first="max_norm: log the norm for a while and put the bound above its usual value.",
    cost="One pass over the gradients for the norm; a second only when the bound is exceeded.",
)  # fmt: skip
def clip_by_global_norm(
    params: Iterable[Tensor] | Tensor,
    max_norm: float = 1.0,
    on_nonfinite: Literal["skip", "error"] = "skip",
) -> Tensor:
    """Scale gradients in place so that their joint 2-norm is at most ``max_norm``.

    A non-finite norm leaves every gradient as it is (torch's ``clip_grad_norm_`` turns [1, inf, 2]
    into [0, nan, 0]); look at the returned norm and skip the step.

    Math:
        n = sqrt(sum_i ||g_i||^2)
        g_i <- g_i * min(1, max_norm / n)

    Args:
        params: parameters whose ``.grad`` is clipped; those without one are passed over.
        max_norm: the bound, more than 0.
        on_nonfinite: ``"skip"`` leaves the gradients alone, ``"error"`` raises.

    Returns:
        The norm before clipping, a tensor without dimensions.

    Raises:
        ValueError: ``max_norm`` is not a positive number, or ``on_nonfinite`` is unknown.
        FloatingPointError: the norm is not finite and ``on_nonfinite="error"``.

    Example:
        >>> w = torch.zeros(5)
        >>> w.grad = torch.tensor([6.0, -8.0, 3.0, -4.0, 2.0])
        >>> round(float(clip_by_global_norm([w], 5.0)), 4)
        11.3578
        >>> [round(g, 4) for g in w.grad.tolist()]
        [2.6414, -3.5218, 1.3207, -1.7609, 0.8805]

    Reference:
        Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, 2013.
    """
    if not (isinstance(max_norm, int | float) and max_norm > 0):
        raise ValueError(f"max_norm must be a number above 0; got {max_norm!r}")
    if on_nonfinite not in ("skip", "error"):
        raise ValueError(f"on_nonfinite must be 'skip' or 'error'; got {on_nonfinite!r}")
    many = [params] if isinstance(params, Tensor) else params
    grads = [p.grad for p in many if p.grad is not None]
    norm = joint_norm(grads)
    value = float(norm)
    if not math.isfinite(value):
        if on_nonfinite == "error":
            raise FloatingPointError(
                f"the gradients' joint norm is {value}; find the first non-finite loss or layer, "
                "lower the rate, or use on_nonfinite='skip' and leave the step out"
            )
    elif value > max_norm:
        torch._foreach_mul_(grads, max_norm / value)  # pyright: ignore[reportPrivateImportUsage]
    return norm


def joint_norm(grads: list[Tensor]) -> Tensor:
    """Return the 2-norm of all gradients taken together, in fp32 at least.

    Args:
        grads: tensors of any shapes; several devices or types are fine.
    """
    if len({(g.device, g.dtype) for g in grads}) == 1 and grads[0].dtype not in _HALF:
        # The same as get_total_norm without its grouping, which takes longer than small norms.
        norms = torch._foreach_norm(grads)  # pyright: ignore[reportPrivateImportUsage]
        return torch.linalg.vector_norm(torch.stack(norms))
    if any(g.dtype in _HALF for g in grads):  # squares of 300 already overflow in fp16
        wide = [torch.promote_types(g.dtype, torch.float32) for g in grads]
        norms = [torch.linalg.vector_norm(g, dtype=w) for g, w in zip(grads, wide, strict=True)]
        return torch.linalg.vector_norm(torch.stack([n.to(norms[0]) for n in norms]))
    return torch.nn.utils.get_total_norm(grads)
