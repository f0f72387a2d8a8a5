"""LAMB."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.barriers import scale_by_trust_ratio
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import decay, scale_by_adam


@brick(
    "optimizer", "lamb", public="brickyard.optim",
    summary="AdamW whose step per tensor has a length in proportion to the tensor's norm.",
    use_when="Batches of thousands of samples, where AdamW needs a rate at which it diverges.",
    avoid_when="Batches are ordinary: AdamW is as good and easier to tune.",
    best_for="Large-batch pretraining of transformers.",
    paper="You et al. 2020 (arXiv:1904.00962), algorithm 2",
    tune_first="lr (square-root scaling with the batch), then warmup",
    cost="8 bytes of state per parameter and two passes per tensor.",
    known_issue="Well-known code clips the gradient first or leaves out the bias correction; "
    "the paper does neither.",
    pairs_with=("adamw",),
)  # fmt: skip
class LAMB(Optimizer):
    """AdamW with a trust ratio per tensor.

    Conventions: the paper's. Bias correction; phi is the identity; the ratio is 1 where a norm is
    zero. To leave out tensors, put them into a group with ``trust_ratio=False``.

    Math:
        r = (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps) + weight_decay*p
        p = p - lr * ||p|| / ||r|| * r

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean and of the square, each in [0, 1).
        eps: added to the root.
        weight_decay: coefficient of the decay inside the scaled update.
        trust_ratio: scale by the norms; an option of groups.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = LAMB([w], lr=0.1)
        >>> w.grad = torch.tensor([1.0, 0.0])
        >>> optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [2.5, 4.0]

    Reference:
        You et al., Large Batch Optimization for Deep Learning, ICLR 2020, algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6, weight_decay: float = 0.0, *, trust_ratio: bool = True,
        maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            trust_ratio=trust_ratio, maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return Adam's scaling, decay and the trust ratio."""
        return chain(
            scale_by_adam(), decay() if o.weight_decay else None,
            scale_by_trust_ratio() if o.trust_ratio else None,
        )  # fmt: skip
