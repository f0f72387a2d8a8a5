"""Lion."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import decay, scale_by_lion


@brick(
    "optimizer", "lion", public="brickyard.optim",
    summary="Steps of one size per weight: the sign of a mix of gradient and momentum.",
    use_when="Optimizer memory matters and batches are large.",
    avoid_when="Batches are small: the sign of a noisy gradient is mostly noise.",
    best_for="Vision transformers and language models with batches of hundreds and more.",
    paper="Chen et al. 2023 (arXiv:2302.06675), algorithm 2",
    tune_first="lr: 3 to 10 times smaller than AdamW's, weight_decay larger by the same factor",
    cost="4 bytes of state per parameter, half of Adam.",
    known_issue="Every weight moves by lr at every step, however small its gradient: the rate must "
    "decay to zero.",
    pairs_with=("adamw",),
)  # fmt: skip
class Lion(Optimizer):
    """Move every weight by ``lr`` along the sign of a mix of gradient and momentum.

    Math:
        u = sign(b1*m + (1-b1)*g);  m = b2*m + (1-b2)*g
        p = p - lr * (u + weight_decay*p)

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: share of the momentum in the step, and the momentum's memory.
        weight_decay: share of the weights, times lr, that is lost per step.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = Lion([w], lr=0.1)
        >>> w.grad = torch.tensor([5.0, -0.01])
        >>> optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 1.1]

    Reference:
        Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0, *, maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize,
                         **engine)  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return Lion's sign and decoupled decay, if any."""
        return chain(scale_by_lion(), decay() if o.weight_decay else None)
