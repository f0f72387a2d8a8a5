"""Nesterov's accelerated gradient in its explicit form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from brickyard.catalog import brick
from brickyard.optim.binding import number
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules_layerwise import velocity_ahead


@brick(
    "optimizer", "nag", public="brickyard.optim",
    summary="Momentum whose gradient is taken where the velocity is about to carry the weights.",
    use_when="You study momentum, or need the method exactly as Nesterov's analysis has it.",
    avoid_when="You train networks in an ordinary loop: sgd with nesterov=True needs no closure.",
    best_for="Convex problems with full-batch gradients.",
    paper="Sutskever et al. 2013, On the importance of initialization and momentum, eq. 3 and 4",
    tune_first="lr, then momentum (0.9 to 0.99)",
    cost="4 bytes of state per parameter; a copy of the weights while the closure runs.",
    known_issue="sgd with nesterov=True keeps the looked-ahead point as its weights: same path "
    "after a change of variables while lr and momentum are constant, other weights at each step.",
    pairs_with=("sgd",),
)  # fmt: skip
class NAG(Optimizer):
    """Evaluate the gradient at ``p - momentum*v``, then move.

    ``step`` needs a closure that zeroes gradients, computes the loss and its gradients, and
    returns the loss; it runs with the weights moved ahead, and they are restored after it. The
    penalty of weight decay is taken at the same point.

    Math:
        q = p - momentum*v;  v = momentum*v + lr*(grad(q) + weight_decay*q);  p = p - v

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        momentum: share of the velocity that is kept per step.
        weight_decay: coefficient of the coupled penalty.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a negative value.
        TypeError: a step without a closure.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = NAG([w], lr=0.1, momentum=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (w**2).sum() / 2
        ...     loss.backward()
        ...     return loss
        >>> for _ in range(2):
        ...     _ = optimizer.step(closure)
        >>> round(w.item(), 4)
        0.765

    Reference:
        Sutskever, Martens, Dahl & Hinton, On the importance of initialization and momentum in deep
        learning, ICML 2013, equations 3 and 4.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 0.0, *,
        maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay,
                         maximize=maximize, **engine)  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return the velocity with the gradient taken ahead."""
        return chain(velocity_ahead())

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step from the gradient at the point ahead.

        Raises:
            TypeError: no closure.
        """
        if closure is None:
            raise TypeError("NAG takes the gradient at a point ahead: call step(closure); "
                            "SGD(nesterov=True) needs no closure")  # fmt: skip
        return super()._step(lambda: self._ahead(closure))

    def _ahead(self, closure: Callable[[], Any]) -> Any:
        """Run the closure with the weights moved ahead."""
        kept = []
        with torch.no_grad():
            for group in self.param_groups:
                momentum = number(group["momentum"], self.steps)
                for p in group["params"]:
                    row = self.state.get(p, {})
                    if "momentum_buffer" not in row:
                        continue
                    kept.append((p, self._room(p).copy_(p)))
                    if "master" in row:
                        p.copy_(row["master"] - momentum * row["momentum_buffer"])
                    else:
                        p.add_(row["momentum_buffer"], alpha=-momentum)
        try:
            return closure()
        finally:
            with torch.no_grad():
                for p, old in kept:
                    p.copy_(old)

    def _room(self, p: torch.Tensor) -> torch.Tensor:
        """Return memory for a parameter's weights, the same in every step: new pages are slow."""
        rooms = self.__dict__.setdefault("_rooms", {})
        found = rooms.get(p)
        if found is None or found.shape != p.shape or (found.dtype, found.device) != (
            p.dtype, p.device
        ):  # fmt: skip
            found = rooms[p] = torch.empty_like(p)
        return found
