"""Update rules, each the equation of its paper on one tensor."""

from __future__ import annotations

from typing import Any

import torch

from brickyard.optim.rule import rule


@rule(
    slots=lambda o: {"exp_avg": "zeros", "exp_avg_sq": "zeros",
                     **({"max_exp_avg_sq": "zeros"} if o.amsgrad else {})},
    hyper={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    options={"amsgrad": False},
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
    root = v.sqrt() / (1 - h.beta2**h.t) ** 0.5 + h.eps
    return (m / root) * (1 / (1 - h.beta1**h.t)), new


@rule(hyper={"weight_decay": 0.01}, role="update")
def decay(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Shrink the weights by ``lr * weight_decay`` per step, whatever the gradient's scale.

    Math:
        u = u + weight_decay*p
    """
    return u + h.weight_decay * p
