"""Constraints on weights: what is done to them beside the gradient's step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from brickyard.catalog import brick
from brickyard.regularize._weights import Named, choose, chosen

__all__ = ["MaxNorm", "WeightDecay", "max_norm_"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def max_norm_(params: Tensor | Iterable[Tensor], c: float = 3.0, dim: int = 0) -> None:
    """Scale the weights of every unit back to the norm ``c`` where they exceed it, in place.

    A unit is a slice along ``dim``: all weights that lead to one output, in torch's layout of
    linear layers and convolutions. A vector is one unit.

    Math:
        w_unit = w_unit * min(1, c / ||w_unit||)

    Args:
        params: weights; no gradient is recorded.
        c: largest norm of a unit, more than 0.
        dim: the dimension along which units lie.

    Raises:
        ValueError: a bound that is not above 0.
        IndexError: a tensor without the dimension ``dim``.

    Example:
        >>> weight = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
        >>> max_norm_(weight, c=1.0)
        >>> weight
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])

    Reference:
        Srivastava et al., Dropout, 2014, section 5.1.
    """
    _check_bound(c)
    with torch.no_grad():
        for p in [params] if isinstance(params, Tensor) else params:
            norms = unit_norms(p, dim)
            if p.device.type == "cpu" and not bool((norms > c).any()):
                continue  # elsewhere asking would wait for the device, which costs more
            # Where the norm is 0 the quotient is infinite, and 1 is taken.
            p.mul_((c / norms).clamp_(max=1.0).to(p.dtype))


def unit_norms(p: Tensor, dim: int = 0) -> Tensor:
    """Return each unit's norm, in fp32 at least, other dimensions kept as 1; a vector is a unit."""
    if p.ndim > 1 and not -p.ndim <= dim < p.ndim:
        raise IndexError(f"dim must be a dimension of the weights of shape {tuple(p.shape)}; "
                         f"got {dim}")  # fmt: skip
    others = [d for d in range(p.ndim) if d != dim % p.ndim] if p.ndim > 1 else None
    wide = torch.promote_types(p.dtype, torch.float32)
    return torch.linalg.vector_norm(p.detach(), dim=others, keepdim=p.ndim > 0, dtype=wide)


def _check_bound(c: Any) -> None:
    if not (isinstance(c, int | float) and c > 0):
        raise ValueError(f"c must be a number above 0, the largest norm of a unit; got {c!r}")


@brick(
    "regularizer", "max_norm", aliases=("max_norm_constraint",), public="brickyard.regularize",
    summary="Keeps the norm of every unit's incoming weights below a bound, after each step.",
    use_when="Large rates with strong dropout; weights that must stay bounded whatever the "
    "gradients do.",
    avoid_when="A normalization follows the layer: its output does not depend on the scale, so the "
    "bound only changes the effective rate. Beside weight decay that already keeps norms small.",
    best_for="Plain or recurrent networks with dropout, as in 2014.",
    paper="Srebro & Shraibman 2005 (the norm); Srivastava et al. 2014, Dropout, section 5.1.",
    tune_first="c: 3 to 4 in the dropout paper; look at the norms of a run without it first.",
    cost="Two passes over the weights each step; as a piece of a chain, part of the step's pass.",
    pairs_with=("dropout", "sgd"),
)  # fmt: skip
class MaxNorm:
    """Keep the norm of each unit's weights below a bound.

    ``after_step(model)`` in a loop of your own, ``attach(optimizer, model)`` as a hook, or the
    piece ``brickyard.optim.max_norm`` inside the optimizer's own pass.

    Math:
        w_unit = w_unit * min(1, c / ||w_unit||)

    Args:
        c: largest norm of a unit, more than 0.
        dim: the dimension of the units: 0 where torch's linear layers and convolutions have their
            outputs. Transposed convolutions have them on 1, which is seen to.
        where: ``"weights"`` (matrices and filters that belong to no normalization), ``"all"``, or
            patterns of names such as ``"body.*.weight"``.

    Raises:
        ValueError: a bound that is not above 0; when called, patterns that match nothing, or a
            grouped transposed convolution.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
        >>> handle = MaxNorm(c=1.0).attach(optimizer, model)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> bool((model.weight.norm(dim=1) <= 1 + 1e-6).all())
        True

    Reference:
        Srivastava et al., Dropout, 2014, section 5.1.
    """

    def __init__(self, c: float = 3.0, dim: int = 0, where: str | list[str] = "weights"):
        _check_bound(c)
        self.c, self.dim, self.where = c, dim, where

    def after_step(self, model: Named) -> None:
        """Bound the norms; call it after ``optimizer.step()``.

        Args:
            model: a module, or named parameters.
        """
        for _, p, module in chosen(model, self.where, "max_norm"):
            max_norm_(p, self.c, self._dim(p, module))

    def attach(self, optimizer: Optimizer, model: Named) -> RemovableHandle:
        """Bound the norms after every step of an optimizer; return the hook's handle.

        Args:
            optimizer: any torch optimizer.
            model: whose weights it steps.
        """
        chosen(model, self.where, "max_norm")  # a pattern without effect is told now
        return optimizer.register_step_post_hook(lambda *_: self.after_step(model))

    def _dim(self, p: Tensor, module: nn.Module | None) -> int:
        if not isinstance(module, _TRANSPOSED) or self.dim not in (0, 1) or p.ndim < 3:
            return self.dim
        if module.groups > 1:
            raise ValueError(
                "max_norm: the units of a grouped transposed convolution lie on no dimension of "
                "its weights; leave it out by where="
            )
        return 1 - self.dim

    def effect(self, model: nn.Module, bins: int = 24) -> dict[str, Any]:
        """Return a histogram of the units' norms and the share that is within 1 % of the bound.

        Args:
            model: whose weights.
            bins: of the histogram, from 0 to the bound or the largest norm.
        """
        norms = torch.cat([
            unit_norms(p, self._dim(p, module)).flatten().float().cpu()
            for _, p, module in chosen(model, self.where, "max_norm")
        ])  # fmt: skip
        top = max(float(norms.max()), self.c)
        return {
            "bound": self.c,
            "units": norms.numel(),
            "at_bound": float((norms >= 0.99 * self.c).float().mean()),
            "largest": float(norms.max()),
            "top": top,
            "histogram": torch.histc(norms, bins, 0.0, top).int().tolist(),
        }

    def __repr__(self) -> str:
        return f"MaxNorm(c={self.c:g}, dim={self.dim}, where={self.where!r})"


@brick(
    "regularizer", "weight_decay", aliases=("decoupled_weight_decay",),
    public="brickyard.regularize",
    summary="Shrinks weights by a share each step, beside the gradient; for any torch optimizer.",
    use_when="The optimizer has no decoupled decay of its own (torch's Adam, RMSprop, Rprop ...), "
    "or the decay shall not follow the learning rate.",
    avoid_when="The optimizer has the option (adamw, lion, lamb); beside it, it would decay twice.",
    best_for="Nearly all training; where it is not an option of the optimizer.",
    paper="Hanson & Pratt 1988; Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization "
    "(arXiv:1711.05101).",
    tune_first="rate: times_lr 0.01 to 0.1; independent 1e-5 to 1e-3.",
    cost="One pass over the weights each step.",
    pairs_with=("adam", "rmsprop"),
)  # fmt: skip
class WeightDecay:
    """Shrink weights by a share just before each step of an optimizer.

    Three things are called weight decay. *Coupled*: the gradient of an L2 penalty, which an
    adaptive optimizer then rescales; that is ``l2_penalty``, and ``weight_decay`` of torch's SGD
    and Adam. *Decoupled, times the rate*: ``weight_decay`` of AdamW in torch and here; halving
    the rate halves the decay. *Independent*: the share as it is, so that rate and decay can be
    tuned apart; the paper multiplies both by one schedule factor, so give ``rate`` a schedule of
    its own to have that exactly (the piece ``independent_decay`` of ``brickyard.optim`` takes one).

    Math:
        times_lr:    w = w - lr * rate * w,  then the step
        independent: w = w - rate * w,       then the step

    Args:
        rate: share of the weights lost per step (times the learning rate of the group, for
            ``times_lr``).
        convention: ``"times_lr"`` or ``"independent"``.
        where: ``"weights"`` (matrices and filters that belong to no normalization), ``"all"``, or
            patterns of names.

    Raises:
        ValueError: a rate that is not from 0 (below 1 when independent), an unknown convention;
            when attached, an optimizer that decays already, or patterns that match nothing.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        >>> handle = WeightDecay(1e-4, "independent").attach(optimizer, model)

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2.
    """

    def __init__(
        self, rate: float = 0.01, convention: Literal["times_lr", "independent"] = "times_lr",
        where: str | list[str] = "weights",
    ):  # fmt: skip
        if convention not in ("times_lr", "independent"):
            raise ValueError(
                f"convention must be 'times_lr' or 'independent'; got {convention!r} (coupled "
                "decay is l2_penalty, or weight_decay of SGD)"
            )
        most = 1.0 if convention == "independent" else math.inf
        if not (isinstance(rate, int | float) and 0 <= rate < most):
            raise ValueError(f"rate must be from 0 and below {most:g}; got {rate!r}")
        self.rate, self.convention, self.where = rate, convention, where

    def attach(self, optimizer: Optimizer, model: Named) -> RemovableHandle:
        """Decay before every step of an optimizer; return the hook's handle.

        Weights without a gradient are not stepped, so they are not decayed either; nor are any in
        a step that a loss scaler leaves out.

        Args:
            optimizer: any torch optimizer.
            model: whose weights it steps.
        """
        twice = [g["weight_decay"] for g in optimizer.param_groups if g.get("weight_decay")]
        if twice:
            raise ValueError(
                f"weight_decay: {type(optimizer).__name__} decays already (weight_decay="
                f"{twice[0]:g}); set that to 0, or leave this out"
            )
        mine = {id(p) for p in choose(model, self.where, "weight_decay")}

        @torch.no_grad()
        def decay(owner: Any, *_: Any) -> None:
            lost = getattr(owner, "found_inf", None)  # a scaler calls fused steps that take none
            if lost is not None and float(lost):
                return
            for group in owner.param_groups:
                params = [p for p in group["params"] if id(p) in mine and p.grad is not None]
                share = self.rate * (_rate(group) if self.convention == "times_lr" else 1.0)
                if params and share:
                    torch._foreach_mul_(params, 1.0 - share)  # pyright: ignore

        return optimizer.register_step_pre_hook(decay)

    def __repr__(self) -> str:
        return f"WeightDecay({self.rate:g}, {self.convention!r}, where={self.where!r})"


def _rate(group: dict[str, Any]) -> float:
    if "lr" not in group:
        raise ValueError("weight_decay: the optimizer has no lr to multiply by; take independent")
    return float(group["lr"])
