"""Update rules, each the equation of its paper on one tensor."""

from __future__ import annotations

from typing import Any

import torch

from brickyard.optim.maths import sqrt, when
from brickyard.optim.ranges import MEMORY, in_range, within
from brickyard.optim.rule import rule

__all__ = [
    "decay", "ema_weights", "independent_decay", "l2", "lookahead", "scale_by_adam",
    "scale_by_ema", "scale_by_lion", "scale_by_momentum", "scale_by_rms", "velocity",
]  # fmt: skip


@rule(hyper={"weight_decay": 0.01}, role="gradient", check=in_range)
def l2(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Add the gradient of ``weight_decay/2 * ||p||^2``: coupled decay, rescaled by what follows.

    Math:
        u = u + weight_decay*p
    """
    return u + h.weight_decay * p


@rule(hyper={"weight_decay": 0.01}, role="update", check=in_range)
def decay(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Shrink the weights by ``lr * weight_decay`` per step, whatever the gradient's scale.

    Math:
        u = u + weight_decay*p
    """
    return u + h.weight_decay * p


@rule(slots={"momentum_buffer": "zeros"}, hyper={"momentum": 0.9, "dampening": 0.0},
      options={"nesterov": False}, check=in_range)  # fmt: skip
def scale_by_momentum(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Add up gradients with a fading memory, as torch does: the first step is not dampened.

    Math:
        v = momentum*v + (1-dampening)*u
        u = v, or u + momentum*v with nesterov
    """
    v = when(h.t == 1, u, h.momentum * s.momentum_buffer + (1 - h.dampening) * u)
    return (u + h.momentum * v if h.nesterov else v), {"momentum_buffer": v}


@rule(slots={"exp_avg": "zeros"}, hyper={"momentum": 0.9}, check=within(momentum=MEMORY))
def scale_by_ema(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Take a running mean, which starts at zero and is not corrected for it.

    Math:
        m = momentum*m + (1-momentum)*u;  u = m
    """
    m = torch.lerp(s.exp_avg, u, 1 - h.momentum)
    return m, {"exp_avg": m}


@rule(slots={"momentum_buffer": "zeros"}, hyper={"momentum": 0.9}, options={"nesterov": False},
      role="rate", check=in_range)  # fmt: skip
def velocity(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Keep a velocity in units of the weights: it remembers the rate at which it was made.

    Math:
        v = momentum*v + lr*u;  p = p - v, or p - (momentum*v + lr*u) with nesterov
    """
    v = h.momentum * s.momentum_buffer + h.lr * u
    return (h.momentum * v + h.lr * u if h.nesterov else v), {"momentum_buffer": v}


@rule(
    slots=lambda o: {"exp_avg": "zeros", "exp_avg_sq": "zeros",
                     **({"max_exp_avg_sq": "zeros"} if o.amsgrad else {})},
    hyper={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}, options={"amsgrad": False}, check=in_range,
)  # fmt: skip
def scale_by_adam(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Divide the gradient's running mean by the root of its running square, bias-corrected.

    Math:
        m = b1*m + (1-b1)*u;  v = b2*v + (1-b2)*u^2
        u = (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)
    """
    m = torch.lerp(s.exp_avg, u, 1 - h.beta1)
    v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * (u * u)
    new = {"exp_avg": m, "exp_avg_sq": v}
    if h.amsgrad:
        new["max_exp_avg_sq"] = v = torch.maximum(s.max_exp_avg_sq, v)
    root = v.sqrt() / sqrt(1 - h.beta2**h.t) + h.eps
    return (m / root) / (1 - h.beta1**h.t), new


@rule(slots={"exp_avg": "zeros"}, hyper={"beta1": 0.9, "beta2": 0.99}, check=in_range)
def scale_by_lion(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Take the sign of a mix of gradient and momentum; the momentum fades more slowly.

    Math:
        u' = sign(b1*m + (1-b1)*u);  m = b2*m + (1-b2)*u
    """
    return torch.sign(torch.lerp(s.exp_avg, u, 1 - h.beta1)), {
        "exp_avg": torch.lerp(s.exp_avg, u, 1 - h.beta2)
    }


@rule(
    slots=lambda o: {"square_avg": "zeros", **({"grad_avg": "zeros"} if o.centered else {})},
    hyper={"alpha": 0.99, "eps": 1e-8}, options={"centered": False, "eps_inside": False},
    check=within(alpha=MEMORY),
)  # fmt: skip
def scale_by_rms(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Divide by the root of the gradient's running square (centered: its running variance).

    Math:
        v = alpha*v + (1-alpha)*u^2
        u = u / (sqrt(v) + eps), or u / sqrt(v + eps) with eps_inside
        centered: v - m^2 in place of v, with m = alpha*m + (1-alpha)*u
    """
    v = h.alpha * s.square_avg + (1 - h.alpha) * (u * u)
    new, spread = {"square_avg": v}, v
    if h.centered:
        new["grad_avg"] = m = torch.lerp(s.grad_avg, u, 1 - h.alpha)
        spread = v - m * m
    return u / ((spread + h.eps).sqrt() if h.eps_inside else spread.sqrt() + h.eps), new


@rule(hyper={"weight_decay": 1e-5}, role="weights", check=in_range)
def independent_decay(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Shrink the weights by ``weight_decay`` per step, whatever the learning rate.

    ``decay`` multiplies by the rate, as torch does. In the paper (Loshchilov & Hutter 2019) the
    decay follows the schedule's factor alone: give ``weight_decay`` that schedule.

    Math:
        p = p - lr*u - weight_decay*p
    """
    return p - h.weight_decay * (p + u)


@rule(slots={"ema": "param"}, hyper={"ema_decay": 0.999}, role="weights", check=in_range)
def ema_weights(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Keep a running average of the weights beside them, in the same pass.

    Math:
        ema = ema_decay*ema + (1-ema_decay)*p
    """
    return p, {"ema": torch.lerp(s.ema, p, 1 - h.ema_decay)}


@rule(slots={"slow_param": "param"}, hyper={"alpha": 0.5}, role="weights", check=in_range)
def lookahead(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Move slow weights towards the fast ones and restart from there; use with ``every=k``.

    Math:
        slow = slow + alpha*(p - slow);  p = slow
    """
    slow = s.slow_param + h.alpha * (p - s.slow_param)
    return slow, {"slow_param": slow}
