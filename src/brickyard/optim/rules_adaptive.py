"""Rules that scale every weight by a history of its own gradients, beyond Adam's."""

from __future__ import annotations

from typing import Any

import torch

from brickyard.optim.maths import maximum, minimum, sqrt, when
from brickyard.optim.ranges import SHARE, in_range, within
from brickyard.optim.rule import rule

__all__ = [
    "bound_rates", "scale_by_adadelta", "scale_by_adagrad", "scale_by_adamax", "scale_by_nadam",
    "scale_by_radam", "scale_by_sophia", "scale_by_yogi",
]  # fmt: skip


def form_of(form: str) -> None:
    """Raise ValueError unless ``form`` is ``"paper"`` or ``"code"``."""
    if form not in ("paper", "code"):
        raise ValueError(f"form must be 'paper' or 'code' (the authors'); got {form!r}")


def _formed(form: str = "paper", **values: Any) -> None:
    form_of(form)
    in_range(**values)


@rule(slots={"sum": "zeros"},
      hyper={"lr_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
      options={"eps_inside": False}, check=in_range)  # fmt: skip
def scale_by_adagrad(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Divide by the root of the sum of all squares so far.

    Math:
        G = G + u^2
        u = u / (sqrt(G) + eps), or u / sqrt(G + eps) with eps_inside;  u = u / (1 + (t-1)*lr_decay)
    """
    total = when(h.t == 1, h.initial_accumulator_value, s.sum) + u * u
    root = (total + h.eps).sqrt() if h.eps_inside else total.sqrt() + h.eps
    return u / root * (1 / (1 + (h.t - 1) * h.lr_decay)), {"sum": total}


@rule(slots={"square_avg": "zeros", "acc_delta": "zeros"}, hyper={"rho": 0.9, "eps": 1e-6},
      check=within(rho=SHARE))  # fmt: skip
def scale_by_adadelta(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Scale by the running size of past updates over the running size of gradients.

    Math:
        v = rho*v + (1-rho)*u^2;  d = sqrt(a + eps) / sqrt(v + eps) * u
        a = rho*a + (1-rho)*d^2;  u = d
    """
    v = h.rho * s.square_avg + (1 - h.rho) * (u * u)
    d = (s.acc_delta + h.eps).sqrt() / (v + h.eps).sqrt() * u
    return d, {"square_avg": v, "acc_delta": h.rho * s.acc_delta + (1 - h.rho) * (d * d)}


@rule(slots={"exp_avg": "zeros", "exp_avg_sq": "zeros", "mu_product": "host"},
      hyper={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "momentum_decay": 4e-3},
      check=in_range)  # fmt: skip
def scale_by_nadam(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Take Adam's step from where the momentum will be one step later.

    Math:
        m = b1*m + (1-b1)*u;  v = b2*v + (1-b2)*u^2
        mu(t) = b1*(1 - 0.96^(t*momentum_decay)/2);  M = M*mu(t)
        u = (mu(t+1)*m/(1-M*mu(t+1)) + (1-mu(t))*u/(1-M)) / (sqrt(v/(1-b2^t)) + eps)
    """
    mu = h.beta1 * (1 - 0.5 * 0.96 ** (h.t * h.momentum_decay))
    ahead = h.beta1 * (1 - 0.5 * 0.96 ** ((h.t + 1) * h.momentum_decay))
    product = s.mu_product * mu
    m = torch.lerp(s.exp_avg, u, 1 - h.beta1)
    v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * (u * u)
    mean = (ahead / (1 - product * ahead)) * m + ((1 - mu) / (1 - product)) * u
    root = v.sqrt() / sqrt(1 - h.beta2**h.t) + h.eps
    return mean / root, {"exp_avg": m, "exp_avg_sq": v, "mu_product": product}


@rule(slots={"exp_avg": "zeros", "exp_avg_sq": "zeros"},
      hyper={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "threshold": 5.0},
      check=in_range)  # fmt: skip
def scale_by_radam(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Use Adam's scale only as far as its variance is known; momentum alone before that.

    Math:
        m = b1*m + (1-b1)*u;  v = b2*v + (1-b2)*u^2
        rho_inf = 2/(1-b2) - 1;  rho = rho_inf - 2*t*b2^t/(1-b2^t)
        r = sqrt((rho-4)*(rho-2)*rho_inf / ((rho_inf-4)*(rho_inf-2)*rho))
        u = m/(1-b1^t) * (r*sqrt(1-b2^t)/(sqrt(v)+eps) if rho > threshold else 1)
    """
    m = torch.lerp(s.exp_avg, u, 1 - h.beta1)
    v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * (u * u)
    left = 1 - h.beta2**h.t
    limit = 2 / (1 - h.beta2) - 1
    rho = limit - 2 * h.t * h.beta2**h.t / left
    # Below the threshold the quotient is not used, and its divisor may be zero.
    known = (rho - 4) * (rho - 2) * limit / maximum((limit - 4) * (limit - 2) * rho, 1e-30)
    root = when(rho > h.threshold, (v.sqrt() + h.eps) / sqrt(known * left), 1.0)
    return (m / root) / (1 - h.beta1**h.t), {"exp_avg": m, "exp_avg_sq": v}


@rule(slots={"exp_avg": "zeros", "exp_inf": "zeros"},
      hyper={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}, check=in_range)  # fmt: skip
def scale_by_adamax(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Divide the running mean by a fading maximum of the gradient's size.

    Math:
        m = b1*m + (1-b1)*u;  n = max(b2*n, |u| + eps);  u = m / ((1-b1^t)*n)
    """
    m = torch.lerp(s.exp_avg, u, 1 - h.beta1)
    n = maximum(h.beta2 * s.exp_inf, u.abs() + h.eps)
    return (m / n) / (1 - h.beta1**h.t), {"exp_avg": m, "exp_inf": n}


@rule(slots={"exp_avg": "zeros", "exp_avg_sq": "zeros"},
      hyper={"beta1": 0.9, "beta2": 0.999, "eps": 1e-3, "initial_accumulator_value": 1e-6},
      options={"form": "paper"}, check=_formed)  # fmt: skip
def scale_by_yogi(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Let the second moment move by a share of the new square, whatever the distance to it.

    Math:
        m = b1*m + (1-b1)*u;  v = v - (1-b2)*sign(v - u^2)*u^2
        paper: u = m / (sqrt(v) + eps)
        code:  u = m * sqrt(1-b2^t)/(1-b1^t) / (sqrt(v) + eps), v from initial_accumulator_value
    """
    paper, square = h.form == "paper", u * u
    m = torch.lerp(s.exp_avg, u, 1 - h.beta1)
    old = s.exp_avg_sq if paper else when(h.t == 1, h.initial_accumulator_value, s.exp_avg_sq)
    v = old - (1 - h.beta2) * torch.sign(old - square) * square
    step = m / (v.sqrt() + h.eps)
    if not paper:
        step = step * (sqrt(1 - h.beta2**h.t) / (1 - h.beta1**h.t))
    return step, {"exp_avg": m, "exp_avg_sq": v}


@rule(
    slots=lambda o: {"exp_avg": "zeros", "exp_avg_sq": "zeros",
                     **({"max_exp_avg_sq": "zeros"} if o.amsbound else {})},
    hyper={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "final_lr": 0.1, "gamma": 1e-3,
           "base_lr": 1e-3},
    options={"amsbound": False, "form": "paper"}, role="rate", check=_formed,
)  # fmt: skip
def bound_rates(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Clip Adam's rate per weight to bounds that close in on one rate for all: AdaBound.

    Math:
        m = b1*m + (1-b1)*u;  v = b2*v + (1-b2)*u^2;  amsbound: max over time of v in place of v
        low = final_lr*(1 - 1/(gamma*t+1));  high = final_lr*(1 + 1/(gamma*t))
        paper: p = p - clip(lr/(sqrt(v)+eps), low, high) / sqrt(t) * m
        code:  p = p - clip(lr*sqrt(1-b2^t)/(1-b1^t)/(sqrt(v)+eps), low*lr/base_lr,
                            high*lr/base_lr) * m
    """
    m = torch.lerp(s.exp_avg, u, 1 - h.beta1)
    v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * (u * u)
    new = {"exp_avg": m, "exp_avg_sq": v}
    if h.amsbound:
        new["max_exp_avg_sq"] = v = torch.maximum(s.max_exp_avg_sq, v)
    lr, final = h.lr, h.final_lr
    if h.form == "code":
        lr = lr * sqrt(1 - h.beta2**h.t) / (1 - h.beta1**h.t)
        final = final * h.lr / h.base_lr
    low, high = final * (1 - 1 / (h.gamma * h.t + 1)), final * (1 + 1 / (h.gamma * h.t))
    rate = minimum(maximum(lr / (v.sqrt() + h.eps), low), high)
    return (rate * m if h.form == "code" else rate * m * (1 / sqrt(h.t))), new


@rule(slots={"exp_avg": "zeros", "hessian": "zeros"},
      hyper={"beta1": 0.96, "rho": 0.05, "eps": 1e-12}, check=in_range)  # fmt: skip
def scale_by_sophia(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Divide the running mean by a diagonal Hessian made elsewhere, and bound the result by 1.

    Math:
        m = b1*m + (1-b1)*u;  u = clip(m / max(rho*hessian, eps), -1, 1)
    """
    m = torch.lerp(s.exp_avg, u, 1 - h.beta1)
    step = m / maximum(h.rho * s.hessian, h.eps)
    return minimum(maximum(step, -1.0), 1.0), {"exp_avg": m}
