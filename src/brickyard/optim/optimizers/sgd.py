"""Gradient descent with momentum in its two conventions."""

from __future__ import annotations

from typing import Any, Literal

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import l2, scale_by_momentum, velocity


@brick(
    "optimizer", "sgd", public="brickyard.optim",
    summary="Stochastic gradient descent, optionally with heavy-ball or Nesterov momentum.",
    use_when="Convolutional networks on images with a tuned schedule, or as the plain baseline.",
    avoid_when="Gradients differ by orders of magnitude between layers, as in transformers.",
    best_for="CNN classifiers with momentum 0.9 and a decaying rate.",
    paper="Sutskever et al. 2013, On the importance of initialization and momentum",
    tune_first="lr (log scale, 1e-3 to 1), then momentum",
    cost="No state; 4 bytes per parameter with momentum.",
    known_issue="The best rate depends on the scale of the loss; momentum 0.9 makes steps ten "
    "times as long, so lr must shrink when it is switched on.",
)  # fmt: skip
class SGD(Optimizer):
    """Follow the negative gradient, with an optional memory of past gradients.

    ``velocity="torch"`` multiplies the whole velocity by the present rate, as torch and Sutskever's
    code in most frameworks do; ``"classic"`` is the paper's: the rate is inside, so a smaller
    rate changes new gradients only. Both are equal while lr is constant. Weight decay is coupled:
    it is part of the gradient.

    Math:
        g = g + weight_decay*p
        torch:   v = momentum*v + (1-dampening)*g;  p = p - lr*v
        classic: v = momentum*v + lr*g;             p = p - v
        nesterov: p = p - lr*(g + momentum*v), or p - (lr*g + momentum*v)

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        momentum: share of the velocity that is kept per step.
        dampening: share of the gradient that is left out of the velocity, after the first step.
        weight_decay: coefficient of the coupled penalty.
        nesterov: look ahead by one momentum step.
        maximize: climb instead of descending.
        velocity: ``"torch"`` or ``"classic"``.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a negative value, nesterov without momentum or with dampening, dampening with
            the classic velocity.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGD([w], lr=0.1, momentum=0.9)
        >>> w.grad = torch.tensor([2.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.8

    Reference:
        Sutskever et al., On the importance of initialization and momentum in deep learning, ICML
        2013, equations 1 to 4.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False,
        velocity: Literal["torch", "classic"] = "torch", **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
            nesterov=nesterov, velocity=velocity, maximize=maximize, **engine,
        )  # fmt: skip

    def check_options(self, o: Any) -> None:
        """Raise ValueError for velocities that do not exist or options that they do not have."""
        if o.velocity not in ("torch", "classic"):
            raise ValueError(f"velocity must be 'torch' or 'classic'; got {o.velocity!r}")
        if o.nesterov and (o.momentum == 0 or o.dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and no dampening; got "
                             f"momentum={o.momentum!r}, dampening={o.dampening!r}")  # fmt: skip
        if o.velocity == "classic" and o.dampening != 0:
            raise ValueError("the classic velocity has no dampening: use velocity='torch' for it; "
                             f"got dampening={o.dampening!r}")  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return coupled decay and momentum, as far as they are switched on."""
        penalty = l2() if o.weight_decay else None
        if o.velocity == "classic":
            return chain(penalty, velocity(nesterov=o.nesterov))
        return chain(penalty, scale_by_momentum(nesterov=o.nesterov) if o.momentum else None)
