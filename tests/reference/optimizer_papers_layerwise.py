"""Optimizers that look at whole tensors, transcribed from their papers to float64 NumPy."""

from __future__ import annotations

import numpy as np


def lamb(w, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, trust_ratio=True):
    """You et al. 2020, algorithm 2, phi the identity, ratio 1 where a norm is 0."""
    (b1, b2), path, m, v = betas, [], np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        r = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * w
        x, y = np.linalg.norm(w), np.linalg.norm(r)
        ratio = x / y if trust_ratio and x > 0 and y > 0 else 1.0
        w = w - lr * ratio * r
        path.append(w)
    return path, {"exp_avg": m, "exp_avg_sq": v}


def lars(w, grads, lr=1.0, momentum=0.9, weight_decay=0.0, trust_coefficient=1e-3,
         trust_ratio=True):  # fmt: skip
    """You et al. 2017, algorithm 1: v = m*v + gamma*lambda*(g + beta*w)."""
    path, v = [], np.zeros_like(w)
    for g in grads:
        x, y = np.linalg.norm(w), np.linalg.norm(g)
        local = trust_coefficient * x / (y + weight_decay * x) if x > 0 and y > 0 else 1.0
        v = momentum * v + lr * (local if trust_ratio else 1.0) * (g + weight_decay * w)
        w = w - v
        path.append(w)
    return path, {"momentum_buffer": v} if momentum else {}


def newton_schulz(x, coefficients, steps):
    """Jordan et al. 2024: x = a*x + (b*A + c*A^2)*x with A = x*x', on the wide orientation."""
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def muon(w, grads, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True,
         ns_coefficients=(3.4445, -4.7750, 2.0315), eps=1e-7, ns_steps=5,
         adjust_lr_fn=None):  # fmt: skip
    """Jordan et al. 2024 with decay and rates of Liu et al. 2025, equation 4 and section 2.2."""
    path, m = [], np.zeros_like(w)
    for g in grads:
        m = momentum * m + (1 - momentum) * g
        x = (1 - momentum) * g + momentum * m if nesterov else m
        flat = x.reshape(len(x), -1)
        o = newton_schulz(flat / max(np.linalg.norm(flat), eps), ns_coefficients, ns_steps)
        rows, cols = flat.shape
        scale = np.sqrt(max(1, rows / cols))
        if adjust_lr_fn == "match_rms_adamw":
            scale = 0.2 * np.sqrt(max(rows, cols))
        w = w - lr * (scale * o.reshape(w.shape) + weight_decay * w)
        path.append(w)
    return path, {"momentum_buffer": m}


def adafactor(w, grads, lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0,
              relative_step=True, momentum=0.0):  # fmt: skip
    """Shazeer & Stern 2018, algorithms 4 and 5, with torch's eps and lr; momentum as in section 9.

    The last two dimensions are factored, as in torch; eps[0] bounds the moment from below.
    """
    small, least = np.finfo(np.float32).eps if eps[0] is None else eps[0], eps[1]
    path, m = [], np.zeros_like(w)
    matrix = w.ndim >= 2
    r = np.zeros((*w.shape[:-1], 1)) if matrix else None
    c = np.zeros((*w.shape[:-2], 1, w.shape[-1])) if matrix else None
    v = np.zeros_like(w)
    for t, g in enumerate(grads, start=1):
        beta2 = 1 - t**beta2_decay
        if matrix:
            r = beta2 * r + (1 - beta2) * (g**2).mean(axis=-1, keepdims=True)
            c = beta2 * c + (1 - beta2) * (g**2).mean(axis=-2, keepdims=True)
            v_hat = r * c / np.maximum(r.mean(axis=-2, keepdims=True), small)
        else:
            v = v_hat = beta2 * v + (1 - beta2) * g**2
        u = g / np.sqrt(np.maximum(v_hat, small**2))
        u = u / max(1.0, np.sqrt((u**2).mean()) / d)
        if momentum:
            u = m = momentum * m + (1 - momentum) * u
        rho = min(lr, 1 / np.sqrt(t)) if relative_step else lr
        w = w - lr * weight_decay * w - max(least, np.sqrt((w**2).mean())) * rho * u
        path.append(w)
    state = {"row_var": r, "col_var": c} if matrix else {"variance": v}
    return path, {**state, **({"exp_avg": m} if momentum else {})}


def lookahead(w, fast_step, steps, k=5, alpha=0.5):
    """Zhang et al. 2019, algorithm 1; ``fast_step(w, t)`` is the inner optimizer's step."""
    path, slow = [], w
    for t in range(1, steps + 1):
        w = fast_step(w, t)
        if t % k == 0:
            slow = slow + alpha * (w - slow)
            w = slow
        path.append(w)
    return path, slow
