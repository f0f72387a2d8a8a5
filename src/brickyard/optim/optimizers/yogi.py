"""Yogi and AdaBound: Adam with a tamer second moment, and Adam that turns into SGD."""

from __future__ import annotations

from typing import Any, Literal

from brickyard.catalog import brick
from brickyard.optim.binding import number
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.ranges import check_option
from brickyard.optim.rules import l2
from brickyard.optim.rules_adaptive import bound_rates, scale_by_yogi


@brick(
    "optimizer", "yogi", public="brickyard.optim",
    summary="Adam whose second moment moves by additive steps, so that rates cannot jump.",
    use_when="Gradients come in bursts, and Adam's rate shoots up in the quiet between them.",
    avoid_when="Adam is stable: the evidence for a gain is thin.",
    best_for="Sparse or bursty gradients; server steps of federated learning.",
    paper="Zaheer et al. 2018, Adaptive Methods for Nonconvex Optimization (NeurIPS), algorithm 2",
    tune_first="lr (1e-2 is the authors'), then eps (1e-3 is theirs)",
    cost="8 bytes of state per parameter.",
    known_issue="The paper has no bias correction and starts at 0: steps of a new run are about "
    "three times as long as later ones. The authors' code corrects the bias and starts at 1e-6.",
    pairs_with=("adam",),
)  # fmt: skip
class Yogi(Optimizer):
    """Move the second moment by a share of the new square, up or down, whatever its distance.

    Conventions: the paper's. ``form="code"`` is the authors' PyTorch code: Adam's bias correction
    and a second moment that starts at 1e-6. Weight decay is coupled.

    Math:
        g = g + weight_decay*p
        m = b1*m + (1-b1)*g;  v = v - (1-b2)*sign(v - g^2)*g^2
        paper: p = p - lr * m / (sqrt(v) + eps), v from 0
        code:  p = p - lr * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps), v from 1e-6

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean, and one minus the share of the square; each in [0, 1).
        eps: added to the root; a large one makes the method less adaptive.
        weight_decay: coefficient of the coupled penalty.
        form: ``"paper"`` or ``"code"``.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Yogi([w], lr=0.01)
        >>> w.grad = torch.tensor([4.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9686

    Reference:
        Zaheer, Reddi, Sachan, Kale & Kumar, Adaptive Methods for Nonconvex Optimization, NeurIPS
        2018, algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-3, weight_decay: float = 0.0, *,
        form: Literal["paper", "code"] = "paper", maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                         form=form, maximize=maximize, **engine)  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return coupled decay, if any, and the scaling."""
        return chain(l2() if o.weight_decay else None, scale_by_yogi(form=o.form))


@brick(
    "optimizer", "adabound", public="brickyard.optim",
    summary="Adam with bounds on the rate per weight that close until one rate is left.",
    use_when="You want Adam's start and SGD's end without a switch.",
    avoid_when="You need results that others can compare: it is little used.",
    best_for="Image classifiers where SGD ends better than Adam.",
    paper="Luo et al. 2019 (arXiv:1902.09843), algorithm 2; AMSBound: appendix",
    tune_first="final_lr (the SGD rate at the end), then lr",
    cost="8 bytes of state per parameter; 4 more with amsbound.",
    known_issue="The paper divides every rate by sqrt(t), the authors' code does not: the two "
    "differ by a factor of 100 after ten thousand steps. In the paper's form a schedule of lr has "
    "little effect once the bounds have closed.",
    pairs_with=("adam", "sgd"),
)  # fmt: skip
class AdaBound(Optimizer):
    """Clip Adam's rates to bounds that close in on ``final_lr``.

    Conventions: the paper's; its bounds are those of its section 4, where ``gamma`` is 1 - beta2
    (the same at the defaults). ``form="code"`` is the authors' code: bias correction, no division
    by sqrt(t), and bounds that follow a scheduled lr (``base_lr`` of the group is where it
    started). Weight decay is coupled.

    Math:
        m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2;  amsbound: max over time of v in place of v
        low = final_lr*(1 - 1/(gamma*t+1));  high = final_lr*(1 + 1/(gamma*t))
        paper: p = p - clip(lr/(sqrt(v)+eps), low, high) / sqrt(t) * m
        code:  p = p - clip(lr*sqrt(1-b2^t)/(1-b1^t)/(sqrt(v)+eps), low*lr/base_lr,
                            high*lr/base_lr) * m

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: Adam's rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean and of the square, each in [0, 1).
        final_lr: the rate to which all weights come.
        gamma: speed at which the bounds close; above 0.
        eps: added to the root (the paper has none).
        weight_decay: coefficient of the coupled penalty.
        amsbound: never let the second moment shrink.
        form: ``"paper"`` or ``"code"``.
        engine: ``maximize``, ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of
            ``Optimizer``.

    Raises:
        ValueError: a value out of range; a rate of 0 at the start with ``form="code"``.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdaBound([w], lr=0.01, form="code")
        >>> w.grad = torch.tensor([4.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.99

    Reference:
        Luo, Xiong, Liu & Sun, Adaptive Gradient Methods with Dynamic Bound of Learning Rate, ICLR
        2019, algorithm 2 and section 4.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        final_lr: float = 0.1, gamma: float = 1e-3, eps: float = 1e-8, weight_decay: float = 0.0,
        amsbound: bool = False, *, form: Literal["paper", "code"] = "paper", **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, final_lr=final_lr, gamma=gamma, eps=eps,
            weight_decay=weight_decay, amsbound=amsbound, form=form, base_lr=None, **engine,
        )  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its rate now is the one that its bounds are relative to.

        Raises:
            ValueError: a rate of 0, in the form that divides by it.
        """
        group = {**param_group}
        rate = group.get("lr", self.defaults["lr"])
        check_option("lr", 1e-3, rate)
        group.setdefault("base_lr", number(rate, 0))
        super().add_param_group(group)

    def check_options(self, o: Any) -> None:
        """Raise ValueError for a first rate of 0 in the form that divides by it."""
        base = o.lr if o.base_lr is None else o.base_lr
        if o.form == "code" and not number(base, 0) > 0:
            raise ValueError("form='code' bounds rates relative to the first lr, which is "
                             f"{base!r}: give the group's base_lr")  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return coupled decay, if any, and the bounded step."""
        return chain(l2() if o.weight_decay else None,
                     bound_rates(amsbound=o.amsbound, form=o.form))  # fmt: skip
