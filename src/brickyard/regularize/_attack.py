"""What attacks share: gradients by the inputs that leave everything else as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Loss",
    "attacked",
    "check_inputs",
    "direction",
    "each",
    "length",
    "sample_loss",
    "slope",
]

Loss = Callable[[Tensor, Tensor], Tensor]


def sample_loss(output: Tensor, y: Tensor) -> Tensor:
    """Return each sample's cross-entropy: what attacks make large unless told otherwise.

    Args:
        output: logits (N, classes, ...), or (N, 1) for a single logit.
        y: class indices (N, ...) or probabilities; 0 or 1 for a single logit.
    """
    if output.ndim == 2 and output.shape[1] == 1:
        y = y.to(output.dtype).reshape(output.shape)
        return F.binary_cross_entropy_with_logits(output, y, reduction="none").flatten(1).mean(1)
    losses = F.cross_entropy(output, y, reduction="none")
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def check_inputs(x: Tensor) -> None:
    if not x.is_floating_point():
        raise ValueError(
            f"inputs must be floating point to have a gradient; got {x.dtype} (attack tokens at "
            "their embeddings)"
        )


@contextmanager
def attacked(model: nn.Module, train_mode: bool) -> Iterator[None]:
    """Allow gradients whatever holds outside, and put every module's mode back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        if not train_mode:
            model.eval()
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def slope(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Return the loss's gradient by the inputs; parameters get none."""
    x = x.detach().requires_grad_()
    value = loss(model(x), y)
    (gradient,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    if gradient is None:
        raise ValueError("the loss does not depend on the inputs: nothing to attack along")
    return gradient


def length(x: Tensor) -> Tensor:
    """Return each sample's 2-norm, shaped to be divided by."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).reshape(-1, *[1] * (x.ndim - 1))


def direction(gradient: Tensor, norm: str) -> Tensor:
    if norm == "inf":
        return gradient.sign()
    return gradient / length(gradient).clamp_min(1e-12)


def each(model: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of each sample, shape (N,); one that gives a mean is asked one by one."""
    with torch.no_grad():
        output = model(x)
        losses = loss(output, y)
        if losses.shape[:1] != x.shape[:1]:
            losses = torch.stack([loss(output[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses
