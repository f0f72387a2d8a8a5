"""RMSprop."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import l2, scale_by_momentum, scale_by_rms


@brick(
    "optimizer", "rmsprop", public="brickyard.optim",
    summary="Divides the gradient by a running root mean square of itself.",
    use_when="Recurrent networks and reinforcement learning, with published settings.",
    avoid_when="You start afresh: adam adds momentum and bias correction at little cost.",
    best_for="Reproducing published recurrent and value-based results.",
    paper="Tieleman & Hinton 2012, Lecture 6.5; centered: Graves 2013 (arXiv:1308.0850), eq. 38",
    tune_first="lr, then alpha; eps matters where gradients are tiny",
    cost="4 bytes of state per parameter; 4 more each for momentum and centered.",
    known_issue="No bias correction: the first steps are up to 1/sqrt(1-alpha) times too long. "
    "TensorFlow puts eps inside the root, torch outside.",
)  # fmt: skip
class RMSprop(Optimizer):
    """Divide the gradient by the root of its running square.

    Conventions: torch's. ``eps`` outside the root; ``eps_inside=True`` is TensorFlow's. Momentum
    gathers scaled gradients; the rate is outside of it. Weight decay is coupled.

    Math:
        g = g + weight_decay*p;  v = alpha*v + (1-alpha)*g^2
        u = g / (sqrt(v) + eps), or g / sqrt(v + eps)
        centered: v - m^2 in place of v under the root, with m = alpha*m + (1-alpha)*g
        b = momentum*b + u;  p = p - lr*b

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        alpha: memory of the running square, in [0, 1).
        eps: keeps the division finite.
        weight_decay: coefficient of the coupled penalty.
        momentum: share of past updates that is kept.
        centered: divide by the running standard deviation instead.
        maximize: climb instead of descending.
        eps_inside: put eps under the root.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = RMSprop([w], lr=0.01)
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Reference:
        Tieleman & Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *,
        maximize: bool = False, eps_inside: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
            centered=centered, eps_inside=eps_inside, maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return coupled decay, the scaling and momentum, as far as they are switched on."""
        return chain(
            l2() if o.weight_decay else None,
            scale_by_rms(centered=o.centered, eps_inside=o.eps_inside),
            scale_by_momentum() if o.momentum else None,
        )
