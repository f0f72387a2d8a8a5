"""LARS."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import l2, velocity
from brickyard.optim.rules_layerwise import scale_by_lars


@brick(
    "optimizer", "lars", public="brickyard.optim",
    summary="Momentum SGD with a rate per tensor in proportion to weight norm over gradient norm.",
    use_when="Convolutional nets at batches of many thousands, where SGD's rate diverges.",
    avoid_when="Batches are ordinary, or the model is a transformer: take sgd, adamw or lamb.",
    best_for="ResNets on ImageNet with batches of 8 thousand and more.",
    paper="You, Gitman & Ginsburg 2017 (arXiv:1708.03888), algorithm 1",
    tune_first="lr with a warmup, then trust_coefficient and weight_decay",
    cost="4 bytes of state per parameter and two passes per tensor.",
    known_issue="Norms and biases should not be scaled: put them into a group with "
    "trust_ratio=False. Others multiply the velocity by lr after the momentum, which differs when "
    "lr changes. Nado et al. 2021 (arXiv:2102.06356) reach its results with tuned Nesterov.",
    pairs_with=("lamb", "sgd"),
)  # fmt: skip
class LARS(Optimizer):
    """Give each tensor its own rate: norm of the weights over norm of the gradient.

    Conventions: the paper's. The rate is inside of the velocity; the ratio is 1 where a norm is 0
    (the paper does not say). To leave out tensors, put them into a group with
    ``trust_ratio=False``: these take plain momentum steps with lr itself.

    Math:
        rate = trust_coefficient*||p|| / (||g|| + weight_decay*||p||)
        v = momentum*v + lr*rate*(g + weight_decay*p);  p = p - v

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        momentum: share of the velocity that is kept per step.
        weight_decay: coefficient of the coupled penalty.
        trust_coefficient: relative size of a step.
        trust_ratio: scale by the norms; an option of groups.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a negative value.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = LARS([w], lr=10.0, trust_coefficient=0.01)
        >>> w.grad = torch.tensor([0.0, 7.0])
        >>> optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [3.0, 3.5]

    Reference:
        You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks, 2017, algorithm 1.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3, *, trust_ratio: bool = True, maximize: bool = False,
        **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, momentum=momentum, weight_decay=weight_decay,
            trust_coefficient=trust_coefficient, trust_ratio=trust_ratio, maximize=maximize,
            **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return the local rate (or coupled decay alone) and the velocity."""
        plain = l2() if o.weight_decay else None
        return chain(scale_by_lars() if o.trust_ratio else plain,
                     velocity() if o.momentum else None)  # fmt: skip
