"""What losses with a backward pass of their own share.

Such a loss has a plain form, in differentiable operations, which is its definition. Everything that
the fast form does not do (small inputs, accelerators, ``create_graph=True``, ``torch.func``,
``torch.compile``) goes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def on_host(input: Tensor) -> bool:
    """Say whether ``input`` is an ordinary tensor in main memory, outside any transform."""
    if input.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        input.data_ptr()
    except RuntimeError:  # a wrapper without storage, as torch.func makes
        return False
    return True


def through(
    plain: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return the gradients of ``plain`` at ``inputs``, themselves differentiable if asked for.

    Args:
        plain: the definition, in differentiable operations.
        inputs: what the fused forward was given; those that need no gradient get None.
        grads: gradients of its outputs.
    """
    again = torch.is_grad_enabled()  # inside a backward: create_graph=True
    wanted = [t is not None and t.requires_grad for t in inputs]
    with torch.enable_grad():
        if again:  # aliases: one input may itself have been computed from another
            inputs = [t if t is None else t.view_as(t) for t in inputs]
        else:
            inputs = [
                t if t is None else t.detach().requires_grad_(need)
                for t, need in zip(inputs, wanted, strict=True)
            ]
        outputs = plain(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [
            (o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad
        ]
        leaves = [t for t, need in zip(inputs, wanted, strict=True) if need and t is not None]
        found = torch.autograd.grad(
            [o for o, _ in pairs], leaves, [g for _, g in pairs],
            create_graph=again, allow_unused=True,
        )  # fmt: skip
    rest = iter(found)
    return [next(rest) if need else None for need in wanted]
