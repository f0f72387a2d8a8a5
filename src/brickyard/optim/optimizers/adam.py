"""Adam, AMSGrad and AdamW."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import decay, l2, scale_by_adam


@brick(
    "optimizer", "adam", public="brickyard.optim",
    summary="Momentum divided by a running root mean square of the gradient, bias-corrected.",
    use_when="You need progress without tuning the rate per layer.",
    avoid_when="You regularize by weight decay: the penalty is rescaled away; take adamw.",
    best_for="Quick experiments, GANs, reinforcement learning.",
    paper="Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1",
    tune_first="lr (3e-4 is a common start), then eps where gradients are tiny",
    cost="8 bytes of state per parameter.",
    known_issue="Can fail to converge on convex problems (Reddi et al. 2018, theorem 1: amsgrad); "
    "weight decay is coupled to the adaptive scale.",
    pairs_with=("sgd",),
)  # fmt: skip
class Adam(Optimizer):
    """Divide the gradient's running mean by the root of its running square.

    Conventions: torch's. ``eps`` is outside the bias-corrected root. AMSGrad keeps the maximum of
    the raw second moment and corrects its bias after. Weight decay is coupled (part of the
    gradient).

    Math:
        g = g + weight_decay*p
        m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2
        p = p - lr * (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)
        amsgrad: max over time of v in place of v

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean and of the square, each in [0, 1).
        eps: added to the root; bounds the step where gradients are tiny.
        weight_decay: coefficient of the coupled penalty.
        amsgrad: never let the scale shrink.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.tensor([2.0]))
        >>> optimizer = Adam([x], lr=0.01)
        >>> for _ in range(3):
        ...     x.grad = 2 * x.detach()
        ...     optimizer.step()
        >>> round(x.item(), 4)
        1.97

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1. AMSGrad:
        Reddi, Kale & Kumar, On the Convergence of Adam and Beyond, ICLR 2018, algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, *,
        maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
            maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return coupled decay, if any, and Adam's scaling."""
        return chain(l2() if o.weight_decay else None, scale_by_adam(amsgrad=o.amsgrad))


@brick(
    "optimizer", "amsgrad", public="brickyard.optim",
    summary="Adam whose second moment is replaced by its maximum so far: rates never grow back.",
    use_when="Adam circles around a solution instead of settling, and the rate decays already.",
    avoid_when="You look for a better result in general: measured differences are mostly noise.",
    best_for="Problems with rare, large and informative gradients.",
    paper="Reddi, Kale & Kumar 2018 (arXiv:1904.09237), algorithm 2",
    tune_first="lr as in adam",
    cost="12 bytes of state per parameter.",
    known_issue="One outlier shortens all later steps of its weight. The paper has no bias "
    "correction; torch takes the maximum first and corrects after, Keras likewise.",
    pairs_with=("adam", "adamw"),
)  # fmt: skip
class AMSGrad(Adam):
    """Adam with ``amsgrad=True``: the second moment's maximum sets the rate.

    Conventions: torch's: maximum of the raw second moment, then bias correction. Its checkpoints
    and those of ``Adam(amsgrad=True)`` are the same. Weight decay is coupled.

    Math:
        m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2;  n = max(n, v)
        p = p - lr * (m/(1-b1^t)) / (sqrt(n/(1-b2^t)) + eps)

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean and of the square, each in [0, 1).
        eps: added to the root.
        weight_decay: coefficient of the coupled penalty.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AMSGrad([w], lr=0.1)
        >>> w.grad = torch.tensor([3.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Reference:
        Reddi, Kale & Kumar, On the Convergence of Adam and Beyond, ICLR 2018, algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, *, maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad=True, maximize=maximize,
                         **engine)  # fmt: skip


@brick(
    "optimizer", "adamw", public="brickyard.optim",
    summary="Adam with weight decay applied to the weights directly, not through the gradient.",
    use_when="Transformers, fine-tuning, most new models.",
    avoid_when="Optimizer memory is the limit: take lion or adafactor.",
    best_for="Transformers with warmup and cosine decay.",
    paper="Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2",
    tune_first="lr, then weight_decay (0.01 to 0.1)",
    cost="8 bytes of state per parameter.",
    known_issue="The decay is multiplied by lr: changing the rate changes the regularization.",
)  # fmt: skip
class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    Conventions: torch's. The decay is multiplied by ``lr`` (the paper multiplies it by the
    schedule's factor alone, so its ``lambda`` is ``lr * weight_decay`` here). For a decay that does
    not depend on the rate: ``Optimizer(model, chain(scale_by_adam(), independent_decay(1e-5)))``.

    Math:
        m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2
        p = p - lr * ((m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps) + weight_decay*p)

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean and of the square, each in [0, 1).
        eps: added to the root; bounds the step where gradients are tiny.
        weight_decay: share of the weights, times lr, that is lost per step.
        amsgrad: never let the scale shrink.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW([w], lr=0.1, weight_decay=0.5)
        >>> w.grad = torch.tensor([3.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.85

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
            maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return Adam's scaling and decoupled decay, if any."""
        return chain(scale_by_adam(amsgrad=o.amsgrad), decay() if o.weight_decay else None)
