"""Unbiased estimates of a Hessian's diagonal from one or two backward passes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

__all__ = ["gauss_newton_bartlett", "hutchinson"]

LIKELIHOODS = ("categorical", "bernoulli", "gaussian")
PROBES = ("gaussian", "rademacher")


def gauss_newton_bartlett(
    outputs: torch.Tensor, params: Sequence[torch.Tensor], likelihood: str = "categorical",
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:  # fmt: skip
    """Estimate the Gauss-Newton diagonal from targets sampled from the model itself.

    Math:
        y ~ likelihood(outputs);  g = gradient of the mean of -log likelihood(y | outputs)
        h = B*g^2, whose mean is the diagonal of J'*H*J/B with H the loss's own Hessian

    Args:
        outputs: logits ``(..., classes)`` for ``"categorical"``, logits ``(batch, ...)`` for
            ``"bernoulli"``, means ``(batch, ...)`` of unit variance for ``"gaussian"``; with graph.
        params: what to differentiate by.
        likelihood: what the targets are drawn from; it must be the one of the training loss.
        generator: source of the draws.

    Raises:
        ValueError: an unknown likelihood, outputs without classes.

    Example:
        >>> w = torch.ones(2, requires_grad=True)
        >>> [h.shape for h in gauss_newton_bartlett(torch.eye(2) * w, [w])]
        [torch.Size([2])]
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {LIKELIHOODS}; got {likelihood!r}")
    scores = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
    if likelihood == "categorical":
        if scores.ndim < 1 or scores.shape[-1] < 2:
            raise ValueError(f"categorical outputs have 2 classes or more in the last dimension; "
                             f"got shape {tuple(outputs.shape)}")  # fmt: skip
        flat = scores.reshape(-1, scores.shape[-1])
        drawn = torch.multinomial(flat.detach().softmax(-1), 1, generator=generator).squeeze(1)
        count, loss = len(flat), functional.cross_entropy(flat, drawn)
    else:
        count = scores.shape[0] if scores.ndim else 1
        if likelihood == "bernoulli":
            drawn = torch.bernoulli(scores.detach().sigmoid(), generator=generator)
            loss = functional.binary_cross_entropy_with_logits(scores, drawn, reduction="sum")
        else:
            drawn = scores.detach() + _noise(scores, "gaussian", generator)
            loss = (scores - drawn).square().sum() / 2
        loss = loss / count
    grads = torch.autograd.grad(loss, list(params), allow_unused=True, materialize_grads=True)
    return [count * g.square() for g in grads]


def hutchinson(
    loss: torch.Tensor, params: Sequence[torch.Tensor], probe: str = "gaussian",
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:  # fmt: skip
    """Estimate the Hessian's diagonal from one product of the Hessian with a random vector.

    Math:
        h = z * (H*z), whose mean is the diagonal of H

    Args:
        loss: a scalar with its graph.
        params: what to differentiate by.
        probe: ``"gaussian"``, or ``"rademacher"`` (signs: exact where the Hessian is diagonal).
        generator: source of the probe.

    Raises:
        ValueError: an unknown probe, a loss that is no scalar.

    Example:
        >>> w = torch.ones(2, requires_grad=True)
        >>> loss = (torch.tensor([1.0, 3.0]) * w**2).sum()
        >>> [h.tolist() for h in hutchinson(loss, [w], probe="rademacher")]
        [[2.0, 6.0]]
    """
    if probe not in PROBES:
        raise ValueError(f"probe must be one of {PROBES}; got {probe!r}")
    if loss.numel() != 1:
        raise ValueError(f"the loss must be a scalar; got shape {tuple(loss.shape)}")
    places = list(params)
    grads = torch.autograd.grad(loss, places, create_graph=True, allow_unused=True,
                                materialize_grads=True)  # fmt: skip
    probes = [_noise(p, probe, generator) for p in places]
    along = sum(((g * z).sum() for g, z in zip(grads, probes, strict=True)), start=torch.zeros(()))
    if not along.requires_grad:  # a linear loss: no curvature
        return [torch.zeros_like(p) for p in places]
    products = torch.autograd.grad(along, places, allow_unused=True, materialize_grads=True)
    return [z * x for z, x in zip(probes, products, strict=True)]


def _noise(like: torch.Tensor, probe: str, generator: torch.Generator | None) -> torch.Tensor:
    drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    if probe == "gaussian":
        return drawn
    return torch.where(drawn < 0, -torch.ones_like(drawn), torch.ones_like(drawn))
