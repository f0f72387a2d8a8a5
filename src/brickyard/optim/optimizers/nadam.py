"""NAdam and AdaMax: Adam with Nesterov's momentum, and Adam with the maximum norm."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import decay, l2
from brickyard.optim.rules_adaptive import scale_by_adamax, scale_by_nadam


@brick(
    "optimizer", "nadam", public="brickyard.optim",
    summary="Adam whose momentum looks one step ahead, as Nesterov's does.",
    use_when="Adam works and you want a little more speed from the same settings.",
    avoid_when="You compare with published Adam results: the effective momentum differs.",
    best_for="Wherever adam or adamw is used (with decoupled_weight_decay it was the baseline of "
    "the AlgoPerf contest).",
    paper="Dozat 2016, Incorporating Nesterov Momentum into Adam (ICLR workshop), algorithm 2",
    tune_first="lr, then betas as in adam",
    cost="8 bytes of state per parameter.",
    known_issue="The momentum warms up from half of beta1 with momentum_decay; Keras and torch "
    "agree on 0.004, the paper leaves it open.",
    pairs_with=("adam", "adamw"),
)  # fmt: skip
class NAdam(Optimizer):
    """Adam's step with the momentum of the step to come.

    Conventions: torch's, which are Dozat's with his momentum schedule. The product of the momenta
    is kept in float64 (torch: float32), once per group of parameters. Weight decay is coupled
    unless ``decoupled_weight_decay``.

    Math:
        m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2
        mu(t) = b1*(1 - 0.96^(t*momentum_decay)/2);  M = M*mu(t)
        u = (mu(t+1)*m/(1-M*mu(t+1)) + (1-mu(t))*g/(1-M)) / (sqrt(v/(1-b2^t)) + eps)
        p = p - lr*u

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean and of the square, each in [0, 1).
        eps: added to the root.
        weight_decay: coefficient of the penalty, or share of the weights lost per step times lr.
        momentum_decay: how fast the momentum grows to its full value.
        decoupled_weight_decay: decay the weights directly, as AdamW does.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = NAdam([w], lr=0.1)
        >>> w.grad = torch.tensor([3.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.8944

    Reference:
        Dozat, Incorporating Nesterov Momentum into Adam, ICLR workshop 2016, algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False, *, maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return the scaling, with decay before it (coupled) or behind it (decoupled)."""
        apart = o.decoupled_weight_decay
        return chain(
            l2() if o.weight_decay and not apart else None,
            scale_by_nadam(),
            decay() if o.weight_decay and apart else None,
        )


@brick(
    "optimizer", "adamax", public="brickyard.optim",
    summary="Adam with a fading maximum of the gradient's size in place of the root mean square.",
    use_when="A few huge gradients make Adam's second moment forget everything else.",
    avoid_when="Nothing is wrong with adam: the gain is small and seldom.",
    best_for="Embeddings and models with rare, large gradients.",
    paper="Kingma & Ba 2015 (arXiv:1412.6980), algorithm 2",
    tune_first="lr (2e-3 is the paper's), then beta2",
    cost="8 bytes of state per parameter.",
    known_issue="One outlier shortens the steps of its weight for about 1/(1-beta2) steps. Some "
    "texts print a running mean of |g| in place of the maximum; that is another method.",
    pairs_with=("adam",),
)  # fmt: skip
class Adamax(Optimizer):
    """Divide the gradient's running mean by a fading maximum of its size.

    Conventions: torch's. ``eps`` is added to every new ``|g|`` (the paper has none, and divides
    zero by zero where a weight never had a gradient). Weight decay is coupled.

    Math:
        g = g + weight_decay*p
        m = b1*m + (1-b1)*g;  n = max(b2*n, |g| + eps);  p = p - lr/(1-b1^t) * m/n

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean and fading of the maximum, each in [0, 1).
        eps: added to the gradient's size.
        weight_decay: coefficient of the coupled penalty.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adamax([w], lr=0.1)
        >>> for g in (4.0, 1.0):
        ...     w.grad = torch.tensor([g])
        ...     optimizer.step()
        >>> round(w.item(), 4)
        0.8394

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, *, maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                         maximize=maximize, **engine)  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return coupled decay, if any, and the scaling."""
        return chain(l2() if o.weight_decay else None, scale_by_adamax())
