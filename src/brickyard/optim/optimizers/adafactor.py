"""Adafactor."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.barriers import (
    clip_by_rms,
    scale_by_factored_rms,
    scale_by_param_rms,
    scale_by_unfactored_rms,
)
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import scale_by_ema


@brick(
    "optimizer", "adafactor", public="brickyard.optim",
    summary="Adam's scaling from row and column means: almost no state for matrices.",
    use_when="The optimizer's state does not fit beside the model.",
    avoid_when="Memory is no issue: AdamW converges faster for the same tuning.",
    best_for="Fine-tuning and pretraining of large transformers.",
    paper="Shazeer & Stern 2018 (arXiv:1804.04235), algorithms 4 and 5",
    tune_first="lr (it is a bound on the relative step), then d",
    cost="For an R x C matrix R + C numbers; 4 bytes per parameter of vectors; three passes.",
    known_issue="The last two dimensions are factored: for 1x1 and 3x3 convolutions this saves "
    "little. transformers' version puts the parameter scale elsewhere.",
    pairs_with=("adamw",),
)  # fmt: skip
class Adafactor(Optimizer):
    """Divide by the root of a rank-one second moment, step relative to the tensor's size.

    Conventions: torch's, which follow the paper without a first moment; ``momentum`` adds one, a
    running mean of the clipped updates as in the authors' code.

    Math:
        r, q = running means of g^2 + rows, columns with weight t^beta2_decay;  v = r*q/mean(r)
        u = g/sqrt(v);  u = u / max(1, rms(u)/d);  u = m = momentum*m + (1-momentum)*u
        p = p - lr*weight_decay*p - max(eps2, rms(p)) * min(lr, 1/sqrt(t)) * u

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: upper bound of the relative step; the step itself without ``relative_step``.
        beta2_decay: exponent of the weight of a new gradient; below 0.
        eps: bounds of the second moment (None: the type's precision) and of the tensor's size.
        d: bound of the update's root mean square.
        weight_decay: share of the weights, times lr, that is lost per step.
        relative_step: use ``min(lr, 1/sqrt(t))``; else lr.
        momentum: memory of the mean update, which costs 4 bytes per parameter; 0 for none.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.ones(8, 4))
        >>> optimizer = Adafactor([w])
        >>> w.grad = torch.ones(8, 4)
        >>> optimizer.step()
        >>> sorted((k, tuple(v.shape)) for k, v in optimizer.state[w].items() if k != "step")
        [('col_var', (1, 4)), ('row_var', (8, 1))]

    Reference:
        Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0,
        *, relative_step: bool = True, momentum: float = 0.0, maximize: bool = False,
        **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay,
            relative_step=relative_step, momentum=momentum, maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return the factored scaling for matrices, the plain one for the rest, and the rate."""
        eps1, eps2 = o.eps
        small = {} if eps1 is None else {"eps1": eps1}
        return chain(
            scale_by_factored_rms(where="matrices", **small),
            scale_by_unfactored_rms(where="vectors", **small),
            clip_by_rms(),
            scale_by_ema() if o.momentum else None,
            scale_by_param_rms(eps2=eps2, relative_step=o.relative_step),
        )
