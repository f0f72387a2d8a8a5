"""L-BFGS: torch's own, with the strong Wolfe line search switched on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from brickyard.catalog import brick
from brickyard.optim.ranges import fixed, whole


@brick(
    "optimizer", "lbfgs", public="brickyard.optim",
    summary="Quasi-Newton steps from the last gradients, with a line search; full batches.",
    use_when="Few parameters, a smooth loss, and the gradient of all data fits one closure.",
    avoid_when="Gradients come from mini-batches: their differences say nothing about curvature.",
    best_for="Logistic regression, physics-informed networks, style transfer, polishing.",
    paper="Nocedal & Wright 2006, Numerical Optimization, algorithms 7.4, 7.5, 3.5 and 3.6",
    tune_first="max_iter per step, then history_size",
    cost="Up to 8 * history_size bytes per parameter, and several closures per step.",
    known_issue="torch's default is no line search and lr=1, which may diverge; here the search "
    "is on. One step is up to max_iter iterations. One parameter group only.",
    pairs_with=("cma_es",),
)  # fmt: skip
class LBFGS(torch.optim.LBFGS):
    """Step along an approximate inverse Hessian times the gradient.

    This is ``torch.optim.LBFGS`` with another default for ``line_search_fn``, and it takes a module
    too. ``step`` needs a closure that zeroes gradients, computes loss and gradients, and returns
    the loss.

    Math:
        d = -H*g with H from the last history_size pairs (s, y);  p = p + t*d
        t: f(p+t*d) <= f(p) + 1e-4*t*g'd and |g(p+t*d)'d| <= 0.9*|g'd|

    Args:
        params: parameters, named parameters, one group, or a module.
        lr: first trial step of the line search, or the step itself without one.
        max_iter: iterations per call of ``step``.
        max_eval: closures per call of ``step``; None for max_iter * 5/4.
        tolerance_grad: ends a step when the largest gradient is below it.
        tolerance_change: ends a step when weights or loss change by less.
        history_size: number of pairs kept.
        line_search_fn: ``"strong_wolfe"``, or None for steps of ``lr``.

    Raises:
        TypeError: an option of the wrong kind; schedules are not taken here.
        ValueError: a value out of range, more than one parameter group.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([-1.2, 1.0]))
        >>> optimizer = LBFGS([w], max_iter=100)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
        ...     loss.backward()
        ...     return loss
        >>> _ = optimizer.step(closure)
        >>> [round(x, 3) for x in w.tolist()]
        [1.0, 1.0]

    Reference:
        Nocedal & Wright, Numerical Optimization, 2nd edition, chapters 3 and 7.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, max_iter: int = 20, max_eval: int | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: Literal["strong_wolfe"] | None = "strong_wolfe",
    ) -> None:  # fmt: skip
        if isinstance(params, torch.nn.Module):
            params = list(params.named_parameters())
        _check({"lr": lr, "max_iter": max_iter, "max_eval": max_eval,
                "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
                "history_size": history_size, "line_search_fn": line_search_fn})  # fmt: skip
        super().__init__(params, lr, max_iter, max_eval, tolerance_grad, tolerance_change,
                         history_size, line_search_fn)  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group that there is; its options win over the constructor's.

        Raises:
            TypeError: an option of the wrong kind.
            ValueError: a value out of range.
        """
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)


def _check(o: Mapping[str, Any]) -> None:
    for name in ("lr", "tolerance_grad", "tolerance_change"):
        fixed(name, o[name])
    for name in ("max_iter", "history_size", "max_eval"):
        if name != "max_eval" or o[name] is not None:
            whole(name, o[name])
    if o["line_search_fn"] not in ("strong_wolfe", None):
        raise ValueError(f"line_search_fn must be 'strong_wolfe' or None; "
                         f"got {o['line_search_fn']!r}")  # fmt: skip
