"""RAdam, and Ranger: RAdam inside Lookahead."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import decay, l2, lookahead
from brickyard.optim.rules_adaptive import scale_by_radam


@brick(
    "optimizer", "radam", public="brickyard.optim",
    summary="Adam that begins as momentum SGD until its second moment is worth trusting.",
    use_when="Adam needs a warmup and you do not want to tune one.",
    avoid_when="You warm up anyway: a linear warmup of 2/(1-beta2) steps does the same.",
    best_for="Transformers and other models that diverge in Adam's first steps.",
    paper="Liu et al. 2020 (arXiv:1908.03265), algorithm 2",
    tune_first="lr as in adam, then beta2 (it sets the length of the warmup)",
    cost="8 bytes of state per parameter.",
    known_issue="The first steps are lr times the mean gradient, so large gradients make large "
    "steps. Ma & Yarats 2021 (arXiv:1910.04209): equal to Adam with a linear warmup.",
    pairs_with=("adam",),
)  # fmt: skip
class RAdam(Optimizer):
    """Adam whose adaptive scale is weighted by how well its variance is known.

    Conventions: torch's. The scale is used when ``rho > 5``; the paper's bound is 4 (pass
    ``threshold=4``). Before that the steps are momentum SGD's, as in the paper (some well-known
    code does not move there). Weight decay is coupled unless ``decoupled_weight_decay`` (the
    paper's code: decoupled).

    Math:
        m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2
        rho_inf = 2/(1-b2) - 1;  rho = rho_inf - 2*t*b2^t/(1-b2^t)
        r = sqrt((rho-4)*(rho-2)*rho_inf / ((rho_inf-4)*(rho_inf-2)*rho))
        p = p - lr * m/(1-b1^t) * (r*sqrt(1-b2^t)/(sqrt(v)+eps) if rho > threshold else 1)

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean and of the square, each in [0, 1).
        eps: added to the root.
        weight_decay: coefficient of the penalty, or share of the weights lost per step times lr.
        decoupled_weight_decay: decay the weights directly, as AdamW does.
        maximize: climb instead of descending.
        threshold: length of the second moment's memory above which it is used; 4 or more.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = RAdam([w], lr=0.1)
        >>> w.grad = torch.tensor([3.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.7

    Reference:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
        algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, decoupled_weight_decay: bool = False, *,
        maximize: bool = False, threshold: float = 5.0, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay, threshold=threshold,
            maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return the scaling, with decay before it (coupled) or behind it (decoupled)."""
        apart = o.decoupled_weight_decay
        return chain(
            l2() if o.weight_decay and not apart else None,
            scale_by_radam(),
            decay() if o.weight_decay and apart else None,
        )


@brick(
    "optimizer", "ranger", public="brickyard.optim",
    summary="RAdam whose weights are pulled back to a slow average every few steps.",
    use_when="You want no warmup and little noise in the weights, with few settings.",
    avoid_when="Memory counts, or you average weights at the end anyway (EMA, SWA).",
    best_for="Image classifiers trained for few epochs at a flat rate that falls at the end.",
    paper="Wright 2019, Ranger (Liu et al. 2020, arXiv:1908.03265; Zhang et al. 2019, "
    "arXiv:1907.08610)",
    tune_first="lr, then k",
    cost="12 bytes of state per parameter; the average costs a pass every k steps.",
    known_issue="The evidence is a few image data sets. Later versions of the authors' code add "
    "gradient centralization and more; this is the first. A well-known package's version climbs "
    "in its first steps.",
    pairs_with=("radam", "lookahead"),
)  # fmt: skip
class Ranger(Optimizer):
    """RAdam and Lookahead in one pass.

    Conventions: the paper's parts. RAdam's steps move from the first on (momentum SGD until the
    second moment is known); slow weights start as the weights before the first step; the first
    average is at step ``k``. Weight decay is decoupled.

    Math:
        p = p - lr*(radam(g) + weight_decay*p)
        every k steps: slow = slow + alpha*(p - slow);  p = slow

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        alpha: how far the slow weights move towards the fast ones, in [0, 1].
        k: steps between two averages.
        betas: memory of the mean and of the square, each in [0, 1).
        eps: added to the root.
        weight_decay: share of the weights, times lr, that is lost per step.
        threshold: length of the second moment's memory above which it is used; 4 or more.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Ranger([w], lr=0.1, k=2)
        >>> for _ in range(2):
        ...     w.grad = torch.tensor([1.0])
        ...     optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Reference:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020; Zhang et
        al., Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, alpha: float = 0.5, k: int = 6,
        betas: tuple[float, float] = (0.95, 0.999), eps: float = 1e-5, weight_decay: float = 0.0,
        *, threshold: float = 5.0, maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, alpha=alpha, k=k, betas=betas, eps=eps, weight_decay=weight_decay,
            threshold=threshold, maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return RAdam's scaling, decoupled decay, if any, and the slow weights."""
        return chain(scale_by_radam(), decay() if o.weight_decay else None, lookahead(every=o.k))
