"""Muon for matrices, AdamW for everything else."""

from __future__ import annotations

from typing import Any, Literal

import torch

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import decay, scale_by_adam
from brickyard.optim.rules_layerwise import NS_COEFFICIENTS, scale_by_muon


@brick(
    "optimizer", "muon", public="brickyard.optim",
    summary="Orthogonalized momentum for hidden matrices, AdamW for everything else.",
    use_when="Transformers trained from scratch, where every hour counts.",
    avoid_when="Fine-tuning of models pretrained with AdamW, or models with few matrices.",
    best_for="Hidden matrices of language models.",
    paper="Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks "
    "(kellerjordan.github.io/posts/muon); rate and decay: Liu et al. 2025 (arXiv:2502.16982)",
    tune_first="lr (0.02, or AdamW's with adjust_lr_fn='match_rms_adamw'), then weight_decay",
    cost="4 bytes of state per matrix parameter, 8 for the rest; about 5 matrix products more "
    "per step and matrix.",
    known_issue="An output head is a matrix that Muon should not touch, and nobody can tell it "
    "from the others: put it into a group with use_muon=False. With adjust_lr_fn=None the rate of "
    "the AdamW part needs a group of its own: it is tens of times smaller.",
    pairs_with=("adamw",),
)  # fmt: skip
class Muon(Optimizer):
    """Move each matrix along its momentum with all singular values set to about 1.

    Matrices are parameters of two and more dimensions (convolutions: one row per output channel)
    of groups with ``use_muon=True``, which is the default. All others take AdamW's steps with the
    group's lr, betas and weight_decay, eps 1e-8. Of a module, embeddings are left to AdamW by
    themselves; of bare parameters they cannot be told apart.

    Conventions: torch's names, momentum and rates. torch takes two-dimensional parameters alone,
    and rounds to bfloat16 before the Newton-Schulz steps; here these run in fp32 on CPU (bfloat16
    on accelerators, tested on CPU only). Decay is decoupled and uses the unadjusted lr.

    Math:
        m = momentum*m + (1-momentum)*g;  x = m, or (1-momentum)*g + momentum*m with nesterov
        x = x / max(||x||, eps);  ns_steps times: A = x*x';  x = a*x + (b*A + c*A^2)*x
        p = p - lr*(weight_decay*p + x * sqrt(max(1, rows/cols)))
        match_rms_adamw: 0.2*sqrt(max(rows, cols)) in place of the root

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        weight_decay: share of the weights, times lr, that is lost per step.
        momentum: memory of the mean gradient.
        nesterov: mix the present gradient into the momentum once more.
        ns_coefficients: a, b, c of the Newton-Schulz polynomial.
        eps: lower bound of the norm that a matrix is divided by.
        ns_steps: number of Newton-Schulz steps.
        adjust_lr_fn: None or ``"original"``: times sqrt(max(1, rows/cols));
            ``"match_rms_adamw"``: steps of AdamW's size, so one rate serves both parts.
        betas: memory of AdamW's mean and square, each in [0, 1).
        engine: ``maximize``, ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of
            ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(3, 2, bias=False)
        >>> before = layer.weight.detach().clone()
        >>> optimizer = Muon(layer, lr=1.0, weight_decay=0.0)
        >>> layer.weight.grad = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1e-2, 0.0]])
        >>> optimizer.step()
        >>> moved = torch.linalg.svdvals(before - layer.weight.detach())
        >>> bool((moved > 0.1).all() and (moved < 1.3).all())
        True

    Reference:
        Jordan et al., Muon, 2024; Liu et al., Muon is Scalable for LLM Training, 2025, section 2.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = NS_COEFFICIENTS, eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = None, *,
        betas: tuple[float, float] = (0.9, 0.999), **engine: Any,
    ) -> None:  # fmt: skip
        use = engine.pop("use_muon", True)
        if isinstance(params, torch.nn.Module):
            params = _groups(params)
        super().__init__(
            params, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
            ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps,
            adjust_lr_fn=adjust_lr_fn, betas=betas, use_muon=use, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return Muon for matrices and Adam for the rest, and decoupled decay, if any."""
        shrink = decay() if o.weight_decay else None
        if not o.use_muon:
            return chain(scale_by_adam(eps=1e-8), shrink)
        muon = scale_by_muon(
            nesterov=o.nesterov, ns_coefficients=tuple(o.ns_coefficients), ns_steps=o.ns_steps,
            adjust=o.adjust_lr_fn or "original", where="matrices",
        )  # fmt: skip
        return chain(muon, scale_by_adam(eps=1e-8, where="vectors"), shrink)


def _groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return the module's parameters: embeddings in a group of their own, left to AdamW."""
    kinds = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, kinds)}
    named = list(model.named_parameters())
    apart = [(name, p) for name, p in named if id(p) in tables]
    rest = [(name, p) for name, p in named if id(p) not in tables]
    groups: list[dict[str, Any]] = [{"params": rest}] if rest else []
    return groups + ([{"params": apart, "use_muon": False}] if apart else [])
