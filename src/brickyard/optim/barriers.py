"""Rules that need a whole tensor, or all of them: norms, trust ratios, factored moments."""

from __future__ import annotations

import math
from typing import Any

import torch

from brickyard.optim.maths import guard, maximum, minimum, sqrt, total, unit_sum, when
from brickyard.optim.ranges import POSITIVE, in_range, within
from brickyard.optim.rule import rule

__all__ = [
    "adaptive_clip",
    "clip_by_global_norm",
    "clip_by_layer_norm",
    "clip_by_rms",
    "clip_by_value",
    "max_norm",
    "scale_by_factored_rms",
    "scale_by_param_rms",
    "scale_by_trust_ratio",
    "scale_by_unfactored_rms",
]  # fmt: skip

_EPS = torch.finfo(torch.float32).eps
_NONFINITE = ("the gradients' norm is not finite; find the first non-finite loss, lower the rate, "
              "or use on_nonfinite='skip' to leave such steps out")  # fmt: skip


def _bound(on_nonfinite: str = "skip", unitwise: bool = True, **values: Any) -> None:
    within(eps=POSITIVE)(**values)
    if on_nonfinite not in ("skip", "error"):
        raise ValueError(f"on_nonfinite must be 'skip' or 'error'; got {on_nonfinite!r}")


@rule(hyper={"max_norm": 1.0}, options={"on_nonfinite": "skip"}, role="gradient", check=_bound)
def clip_by_global_norm(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Scale all updates together so that their joint norm is at most ``max_norm``.

    A norm that is not finite skips the whole step, or raises: it never reaches weights or state.

    Math:
        n = sqrt(sum over all tensors of ||u||^2);  u = u * min(1, max_norm/n)
    """
    n = _finite(u, h)
    return u * when(n > h.max_norm, h.max_norm / n, 1.0)


@rule(hyper={"max_norm": 1.0}, options={"on_nonfinite": "skip"}, role="gradient", check=_bound)
def clip_by_layer_norm(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Scale each tensor's update so that its own norm is at most ``max_norm``.

    A norm that is not finite skips the whole step, or raises.

    Math:
        u = u * min(1, max_norm/||u||)
    """
    _finite(u, h)
    n = u.norm()
    return u * when(n > h.max_norm, h.max_norm / n, 1.0)


@rule(hyper={"limit": 1.0}, options={"on_nonfinite": "skip"}, role="gradient", check=_bound)
def clip_by_value(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Bound every element; one that is not finite skips the whole step, or raises.

    Math:
        u = max(-limit, min(limit, u))
    """
    # Differences, not squares: those of large finite elements are infinite.
    guard(total((u - u).sum()) == 0, _NONFINITE if h.on_nonfinite == "error" else "")
    return minimum(maximum(u, -h.limit), h.limit)


@rule(hyper={"factor": 0.01, "eps": 1e-3}, options={"unitwise": True, "on_nonfinite": "skip"},
      role="gradient", check=_bound)  # fmt: skip
def adaptive_clip(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Bound each unit's update by a share of the norm of the unit's weights.

    A unit is what leads to one output: a slice along the first dimension; a vector is one unit.
    With ``unitwise=False`` the whole tensor is. A norm that is not finite skips the whole step, or
    raises.

    Math:
        n = factor * max(||p_unit||, eps);  u = u * min(1, n/||u_unit||)
    """
    _finite(u, h)
    if h.unitwise:
        n, limit = unit_sum(u * u).sqrt(), unit_sum(p * p).sqrt()
    else:
        n, limit = u.norm(), p.norm()
    limit = h.factor * maximum(limit, h.eps)
    return u * when(n > limit, limit / n, 1.0)


def _finite(u: Any, h: Any) -> Any:
    """Return the joint norm; a step with one that is not finite is skipped, or raises."""
    n = sqrt(total((u * u).sum()))
    guard(n < math.inf, _NONFINITE if h.on_nonfinite == "error" else "")
    return n


@rule(role="update")
def scale_by_trust_ratio(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Give the update of each tensor the norm of the tensor; unchanged where either norm is 0.

    Math:
        u = u * ||p|| / ||u||
    """
    pn, un = p.norm(), u.norm()
    return u * when((pn > 0) & (un > 0), pn / un, 1.0)


def _beta2(h: Any) -> Any:
    """Return 1 - beta2 of Adafactor: a running mean that remembers ever longer."""
    return h.t**h.beta2_decay


@rule(slots={"row_var": "rows", "col_var": "cols"}, hyper={"beta2_decay": -0.8, "eps1": _EPS},
      check=in_range)  # fmt: skip
def scale_by_factored_rms(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Divide by the root of a rank-one second moment, kept as row and column means.

    Math:
        r = r + t^c*(mean_cols(u^2) - r);  q = q + t^c*(mean_rows(u^2) - q)
        v = r/mean(r) * q;  u = u / sqrt(v)
    """
    weight, square = _beta2(h), u * u
    r = torch.lerp(s.row_var, square.mean(-1, keepdim=True), weight)
    q = torch.lerp(s.col_var, square.mean(-2, keepdim=True), weight)
    v = r / maximum(r.mean(-2, keepdim=True), h.eps1) * q
    return u * maximum(v, h.eps1 * h.eps1).rsqrt(), {"row_var": r, "col_var": q}


@rule(slots={"variance": "zeros"}, hyper={"beta2_decay": -0.8, "eps1": _EPS}, check=in_range)
def scale_by_unfactored_rms(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Divide by the root of the second moment, with Adafactor's growing memory.

    Math:
        v = v + t^c*(u^2 - v);  u = u / sqrt(v)
    """
    v = torch.lerp(s.variance, u * u, _beta2(h))
    return u * maximum(v, h.eps1 * h.eps1).rsqrt(), {"variance": v}


@rule(hyper={"d": 1.0}, role="update", check=in_range)
def clip_by_rms(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Bound each tensor's root mean square by ``d``.

    Math:
        u = u / max(1, rms(u)/d)
    """
    return u / maximum((u * u).mean().sqrt() / h.d, 1.0)


@rule(hyper={"c": 3.0}, role="weights", check=within(c=POSITIVE))
def max_norm(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Scale each unit's new weights back to the norm ``c`` where they exceed it.

    A unit is what leads to one output: a slice along the first dimension; a vector is one unit.
    Give ``where="matrices"`` to leave biases and scales alone.

    Math:
        p_unit = p_unit * min(1, c/||p_unit||)
    """
    n = unit_sum(p * p).sqrt()
    return p * when(n > h.c, h.c / n, 1.0)


@rule(hyper={"eps2": 1e-3, "weight_decay": 0.0}, options={"relative_step": True}, role="rate",
      check=in_range)  # fmt: skip
def scale_by_param_rms(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Step relative to the size of the tensor: Adafactor's rate.

    Math:
        p = p - lr*weight_decay*p - max(eps2, rms(p)) * min(lr, 1/sqrt(t)) * u
    """
    rate = minimum(h.lr, 1 / sqrt(h.t)) if h.relative_step else h.lr
    lost = h.lr * h.weight_decay
    return lost * p + (maximum((p * p).mean().sqrt(), h.eps2) * rate) * u
