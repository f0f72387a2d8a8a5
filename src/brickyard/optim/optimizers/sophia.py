"""Sophia with its two estimates of the Hessian's diagonal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import distributed

from brickyard.catalog import brick
from brickyard.optim.binding import number
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.optimizers.curvature import gauss_newton_bartlett, hutchinson
from brickyard.optim.rules import decay
from brickyard.optim.rules_adaptive import scale_by_sophia


class _Sophia(Optimizer):
    """Hold what both variants share: the step, and when a new diagonal is due."""

    notes = ("hessian_step",)

    def __init__(self, params: Any, update_interval: int, **options: Any) -> None:
        super().__init__(params, update_interval=update_interval, hessian_step=-1, **options)

    def pieces(self, o: Any) -> Chain:
        """Return the clipped step and decoupled decay, if any."""
        return chain(scale_by_sophia(), decay() if o.weight_decay else None)

    @property
    def hessian_due(self) -> bool:
        """Say whether ``update_hessian`` must be called before the next step."""
        return any(
            group["hessian_step"] < 0
            or self.steps - group["hessian_step"] >= group["update_interval"]
            for group in self.param_groups
        )

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, with an estimate that is not too old.

        Raises:
            RuntimeError: a new estimate of the Hessian is due.
        """
        if self.hessian_due:
            often = min(group["update_interval"] for group in self.param_groups)
            raise RuntimeError(
                f"{type(self).__name__} needs a new Hessian every {often} steps: before step(), do "
                "'if optimizer.hessian_due: optimizer.update_hessian(...)'"
            )
        return super()._step(closure)

    def _all(self) -> list[torch.Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def record_hessian(self, diagonals: Sequence[torch.Tensor]) -> None:
        """Take up estimates of the diagonal that were made elsewhere.

        In distributed training the mean over all processes is taken, so all of them must call this.

        Args:
            diagonals: one tensor per parameter, of its shape, in the order of the groups.

        Raises:
            ValueError: another number or other shapes.
        """
        shapes = [tuple(p.shape) for p in self._all()]
        if [tuple(h.shape) for h in diagonals] != shapes:
            raise ValueError(f"diagonals must have the parameters' shapes {shapes}; "
                             f"got {[tuple(h.shape) for h in diagonals]}")  # fmt: skip
        found = iter(diagonals)
        many = distributed.get_world_size() if distributed.is_available() and (
            distributed.is_initialized()) else 1  # fmt: skip
        for group in self.param_groups:
            setup, beta2 = self.make_setup(group), number(group["betas"][1], self.steps)
            names = group.get("param_names") or [None] * len(group["params"])
            for name, p, new in zip(names, group["params"], found, strict=False):
                if many > 1:
                    new = new.clone()
                    distributed.all_reduce(new)
                    new = new / many
                row = self.state[p]
                for slot in self.slots_of(setup, name, p):
                    if slot.name not in row:
                        row[slot.name] = self.new_slot(slot, p)
                row.setdefault("step", torch.tensor(0.0))
                row["hessian"].lerp_(new.to(row["hessian"].dtype), 1 - beta2)
            group["hessian_step"] = self.steps


@brick(
    "optimizer", "sophia_g", public="brickyard.optim",
    summary="Momentum over a diagonal Gauss-Newton estimate, clipped per weight.",
    use_when="Language models are pretrained, and the loop can make an estimate every few steps.",
    avoid_when="The loss is no likelihood (then sophia_h), or AdamW has not been tuned yet.",
    best_for="Pretraining of transformers with a cross-entropy loss.",
    paper="Liu et al. 2024 (arXiv:2305.14342), algorithms 2 and 3",
    tune_first="lr (about AdamW's), then rho, so that 10 to 50 % of the steps are not clipped",
    cost="8 bytes of state per parameter; one forward and backward pass more per update_interval.",
    known_issue="The authors' code leaves the batch size out of the estimate and wants it in "
    "step(); here it is inside. Kaddour et al. 2023 (arXiv:2307.06440) and Wen et al. 2025 "
    "(arXiv:2509.02046) find little gain over a tuned AdamW.",
    pairs_with=("adamw", "sophia_h"),
)  # fmt: skip
class SophiaG(_Sophia):
    """Sophia with the Gauss-Newton-Bartlett estimate of the curvature.

    Before a step at which ``hessian_due`` is true, call ``update_hessian`` with a function that
    returns the model's outputs; targets are sampled inside, and ``p.grad`` stays untouched. A step
    without it raises.

    Conventions: the paper's algorithm 3; ``rho`` is its gamma. The first estimate counts with
    1 - beta2, as in the paper: no bias correction.

    Math:
        every k steps: h = b2*h + (1-b2)*B*grad(sampled loss)^2
        m = b1*m + (1-b1)*g;  p = p - lr*(weight_decay*p + clip(m / max(rho*h, eps), -1, 1))

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean gradient and of the Hessian, each in [0, 1).
        rho: factor of the Hessian; smaller makes more steps clipped.
        weight_decay: share of the weights, times lr, that is lost per step.
        update_interval: steps between two estimates; the paper's k.
        eps: lower bound of the divisor.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> model, x = torch.nn.Linear(4, 3), torch.ones(2, 4)
        >>> optimizer = SophiaG(model, lr=0.1, update_interval=2)
        >>> for step in range(3):
        ...     if optimizer.hessian_due:
        ...         optimizer.update_hessian(lambda: model(x))
        ...     optimizer.zero_grad()
        ...     torch.nn.functional.cross_entropy(model(x), torch.tensor([0, 1])).backward()
        ...     optimizer.step()

    Reference:
        Liu, Li, Hall, Liang & Ma, Sophia: A Scalable Stochastic Second-order Optimizer for Language
        Model Pre-training, ICLR 2024, algorithms 2 and 3.
    """

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.96, 0.99),
        rho: float = 0.05, weight_decay: float = 0.1, update_interval: int = 10, *,
        eps: float = 1e-12, maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, update_interval, lr=lr, betas=betas, rho=rho, eps=eps,
                         weight_decay=weight_decay, maximize=maximize, **engine)  # fmt: skip

    def update_hessian(
        self, forward: Callable[[], torch.Tensor],
        likelihood: Literal["categorical", "bernoulli", "gaussian"] = "categorical",
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        """Estimate the curvature on a batch.

        Args:
            forward: returns the model's outputs: logits ``(..., classes)``; for the others
                ``(batch, ...)``, logits or means.
            likelihood: what the training loss is the negative logarithm of.
            generator: source of the sampled targets.

        Raises:
            ValueError: an unknown likelihood, outputs without classes.
        """
        with torch.enable_grad():
            outputs = forward()
            found = gauss_newton_bartlett(outputs, self._all(), likelihood, generator)
        self.record_hessian(found)


@brick(
    "optimizer", "sophia_h", public="brickyard.optim",
    summary="Momentum over Hutchinson's estimate of the Hessian's diagonal, clipped per weight.",
    use_when="Curvature differs between weights, and the loss is smooth but no likelihood.",
    avoid_when="The model has operations without second derivatives (some fused attentions).",
    best_for="Smooth losses of any kind; research on curvature.",
    paper="Liu et al. 2024 (arXiv:2305.14342), algorithms 1 and 3",
    tune_first="lr (about AdamW's), then rho, so that 10 to 50 % of the steps are not clipped",
    cost="8 bytes of state per parameter; a double backward pass per update_interval.",
    known_issue="Estimates may be negative or far off; these weights take steps of lr along the "
    "sign. The paper draws a Gaussian probe; signs (probe='rademacher') have less variance.",
    pairs_with=("adamw", "sophia_g"),
)  # fmt: skip
class SophiaH(_Sophia):
    """Sophia with Hutchinson's estimate of the Hessian.

    Before a step at which ``hessian_due`` is true, call ``update_hessian`` with a function that
    returns the loss; ``p.grad`` stays untouched. A step without it raises.

    Conventions: the paper's algorithm 3; ``rho`` is its gamma. The first estimate counts with
    1 - beta2, as in the paper: no bias correction.

    Math:
        every k steps: z random;  h = b2*h + (1-b2)*z*(H*z)
        m = b1*m + (1-b1)*g;  p = p - lr*(weight_decay*p + clip(m / max(rho*h, eps), -1, 1))

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        betas: memory of the mean gradient and of the Hessian, each in [0, 1).
        rho: factor of the Hessian; smaller makes more steps clipped.
        weight_decay: share of the weights, times lr, that is lost per step.
        update_interval: steps between two estimates; the paper's k.
        eps: lower bound of the divisor.
        maximize: climb instead of descending; the Hessian's sign is turned too.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> loss = lambda: (torch.tensor([0.5, 50.0]) * w**2).sum()
        >>> optimizer = SophiaH([w], lr=0.1, betas=(0.0, 0.0), rho=1.0, weight_decay=0.0)
        >>> optimizer.update_hessian(loss, probe="rademacher")
        >>> loss().backward()
        >>> optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 0.9]

    Reference:
        Liu, Li, Hall, Liang & Ma, Sophia: A Scalable Stochastic Second-order Optimizer for Language
        Model Pre-training, ICLR 2024, algorithms 1 and 3.
    """

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.96, 0.99),
        rho: float = 0.01, weight_decay: float = 0.1, update_interval: int = 10, *,
        eps: float = 1e-12, maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, update_interval, lr=lr, betas=betas, rho=rho, eps=eps,
                         weight_decay=weight_decay, maximize=maximize, **engine)  # fmt: skip

    def update_hessian(
        self, loss: Callable[[], torch.Tensor],
        probe: Literal["gaussian", "rademacher"] = "gaussian",
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        """Estimate the curvature on a batch.

        Args:
            loss: returns the training loss of a batch, with its graph.
            probe: distribution of the random vector.
            generator: source of the random vector.

        Raises:
            ValueError: an unknown probe, a loss that is no scalar.
        """
        with torch.enable_grad():
            value = loss()
            found = hutchinson(value, self._all(), probe, generator)
        signs = [-1 if g["maximize"] else 1 for g in self.param_groups for _ in g["params"]]
        found = [sign * h for sign, h in zip(signs, found, strict=True)]
        self.record_hessian(found)
