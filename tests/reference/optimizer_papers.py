"""Optimizers transcribed from their papers to float64 NumPy, in the papers' own notation.

Each function takes the first weights and a list of gradients of one tensor, and returns the weights
after every step and the state at the end, under the names that the library gives it. Nothing here
is shared with the library: arrays, plain loops, and the algorithm's lines in the paper's order.
"""

from __future__ import annotations

import numpy as np


def sgd(w, grads, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False,
        velocity="torch"):  # fmt: skip
    """Sutskever et al. 2013, equations 1 to 4; velocity="torch" is torch's documentation.

    ``lr`` may be a list with one rate per step: the two conventions differ then.
    """
    rates = [lr] * len(grads) if np.isscalar(lr) else list(lr)
    path, v = [], np.zeros_like(w)
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        g = g + weight_decay * w
        if velocity == "classic":
            v = momentum * v - lr * g
            w = w + (momentum * v - lr * g if nesterov else v)
        else:
            v = g.copy() if t == 1 else momentum * v + (1 - dampening) * g
            d = g + momentum * v if nesterov else v
            w = w - lr * (d if momentum else g)
        path.append(w)
    if velocity == "classic":
        return path, {"momentum_buffer": -v}
    return path, {"momentum_buffer": v} if momentum else {}


def nag(w, gradient, steps, lr=1e-3, momentum=0.9, weight_decay=0.0):
    """Sutskever et al. 2013, equations 3 and 4: the gradient is taken at w + mu*v."""
    path, v = [], np.zeros_like(w)
    for _ in range(steps):
        ahead = w + momentum * v
        v = momentum * v - lr * (gradient(ahead) + weight_decay * ahead)
        w = w + v
        path.append(w)
    return path, {"momentum_buffer": -v}


def rmsprop(w, grads, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0,
            centered=False, eps_inside=False):  # fmt: skip
    """Tieleman & Hinton 2012, slide 29; centered: Graves 2013, equations 38 to 41."""
    path, n, mean, delta = [], np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for g in grads:
        g = g + weight_decay * w
        n = alpha * n + (1 - alpha) * g**2
        mean = alpha * mean + (1 - alpha) * g
        spread = n - mean**2 if centered else n
        root = np.sqrt(spread + eps) if eps_inside else np.sqrt(spread) + eps
        delta = momentum * delta + g / root
        w = w - lr * delta
        path.append(w)
    state = {"square_avg": n, **({"grad_avg": mean} if centered else {})}
    return path, {**state, **({"momentum_buffer": delta} if momentum else {})}


def adagrad(w, grads, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0,
            eps=1e-10, eps_inside=False):  # fmt: skip
    """Duchi et al. 2011, figure 1, diagonal: delta*I + diag(G)^(1/2)."""
    path, big_g = [], np.full_like(w, initial_accumulator_value)
    for t, g in enumerate(grads):
        g = g + weight_decay * w
        big_g = big_g + g**2
        root = np.sqrt(big_g + eps) if eps_inside else eps + np.sqrt(big_g)
        w = w - (lr / (1 + t * lr_decay)) * g / root
        path.append(w)
    return path, {"sum": big_g}


def adadelta(w, grads, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
    """Zeiler 2012, algorithm 1."""
    path, eg2, ex2 = [], np.zeros_like(w), np.zeros_like(w)
    for g in grads:
        g = g + weight_decay * w
        eg2 = rho * eg2 + (1 - rho) * g**2
        dx = -np.sqrt(ex2 + eps) / np.sqrt(eg2 + eps) * g
        ex2 = rho * ex2 + (1 - rho) * dx**2
        w = w + lr * dx
        path.append(w)
    return path, {"square_avg": eg2, "acc_delta": ex2}


def adam(w, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False,
         decoupled=False):  # fmt: skip
    """Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2; Reddi et al. 2018."""
    (b1, b2), path = betas, []
    m, v, v_max = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(grads, start=1):
        if not decoupled:
            g = g + weight_decay * w
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        v_max = np.maximum(v_max, v)
        m_hat, v_hat = m / (1 - b1**t), (v_max if amsgrad else v) / (1 - b2**t)
        step = lr * m_hat / (np.sqrt(v_hat) + eps)
        w = w - step - (lr * weight_decay * w if decoupled else 0)
        path.append(w)
    state = {"exp_avg": m, "exp_avg_sq": v, **({"max_exp_avg_sq": v_max} if amsgrad else {})}
    return path, state


def adamw(w, grads, weight_decay=1e-2, **options):
    """Loshchilov & Hutter 2019, algorithm 2, with the decay times lr."""
    return adam(w, grads, weight_decay=weight_decay, decoupled=True, **options)


def amsgrad(w, grads, **options):
    """Reddi et al. 2018, algorithm 2, with Adam's bias correction."""
    return adam(w, grads, amsgrad=True, **options)


def adamax(w, grads, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Kingma & Ba 2015, algorithm 2, with torch's eps."""
    (b1, b2), path, m, u = betas, [], np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(grads, start=1):
        g = g + weight_decay * w
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        w = w - (lr / (1 - b1**t)) * m / u
        path.append(w)
    return path, {"exp_avg": m, "exp_inf": u}


def nadam(w, grads, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, momentum_decay=4e-3,
          decoupled_weight_decay=False):  # fmt: skip
    """Dozat 2016, algorithm 2, with mu_t = beta1*(1 - 0.5 * 0.96^(t*psi))."""
    (b1, b2), path, m, n = betas, [], np.zeros_like(w), np.zeros_like(w)
    mus = [b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in range(1, len(grads) + 2)]
    for t, g in enumerate(grads, start=1):
        if not decoupled_weight_decay:
            g = g + weight_decay * w
        g_hat = g / (1 - np.prod(mus[:t]))
        m = b1 * m + (1 - b1) * g
        m_hat = m / (1 - np.prod(mus[: t + 1]))
        n = b2 * n + (1 - b2) * g**2
        n_hat = n / (1 - b2**t)
        m_bar = (1 - mus[t - 1]) * g_hat + mus[t] * m_hat
        decay = lr * weight_decay * w if decoupled_weight_decay else 0
        w = w - lr * m_bar / (np.sqrt(n_hat) + eps) - decay
        path.append(w)
    product = np.prod(mus[: len(grads)])
    return path, {"exp_avg": m, "exp_avg_sq": n, "mu_product": product}


def radam(w, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0,
          decoupled_weight_decay=False, threshold=5.0):  # fmt: skip
    """Liu et al. 2020, algorithm 2; eps stands as in torch's documentation."""
    (b1, b2), path, m, v = betas, [], np.zeros_like(w), np.zeros_like(w)
    rho_inf = 2 / (1 - b2) - 1
    for t, g in enumerate(grads, start=1):
        if not decoupled_weight_decay:
            g = g + weight_decay * w
        v = b2 * v + (1 - b2) * g**2
        m = b1 * m + (1 - b1) * g
        m_hat = m / (1 - b1**t)
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        if rho > threshold:
            adaptive = np.sqrt(1 - b2**t) / (np.sqrt(v) + eps)
            top = (rho - 4) * (rho - 2) * rho_inf
            r = np.sqrt(top / ((rho_inf - 4) * (rho_inf - 2) * rho))
            step = lr * r * m_hat * adaptive
        else:
            step = lr * m_hat
        w = w - step - (lr * weight_decay * w if decoupled_weight_decay else 0)
        path.append(w)
    return path, {"exp_avg": m, "exp_avg_sq": v}


def ranger(w, grads, lr=1e-3, alpha=0.5, k=6, betas=(0.95, 0.999), eps=1e-5, weight_decay=0.0,
           threshold=5.0):  # fmt: skip
    """Zhang et al. 2019, algorithm 1, around Liu et al. 2020, algorithm 2.

    RAdam's state depends on the gradients alone, so its steps are differences of a run that is not
    pulled back; decay is added to them.
    """
    options = {"lr": lr, "betas": betas, "eps": eps, "threshold": threshold}
    free, state = radam(w, grads, **options)
    steps = np.diff(np.stack([w, *free]), axis=0)
    slow, path = w, []
    for t, step in enumerate(steps, start=1):
        w = w + step - lr * weight_decay * w
        if t % k == 0:
            slow = slow + alpha * (w - slow)
            w = slow
        path.append(w)
    return path, {**state, "slow_param": slow}


def yogi(w, grads, lr=1e-2, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.0, form="paper"):
    """Zaheer et al. 2018, algorithm 2; form="code": bias correction, v_0 = 1e-6."""
    (b1, b2), path, m = betas, [], np.zeros_like(w)
    v = np.full_like(w, 1e-6 if form == "code" else 0.0)
    for t, g in enumerate(grads, start=1):
        g = g + weight_decay * w
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        rate = lr * np.sqrt(1 - b2**t) / (1 - b1**t) if form == "code" else lr
        w = w - rate / (np.sqrt(v) + eps) * m
        path.append(w)
    return path, {"exp_avg": m, "exp_avg_sq": v}


def adabound(w, grads, lr=1e-3, betas=(0.9, 0.999), final_lr=0.1, gamma=1e-3, eps=1e-8,
             weight_decay=0.0, amsbound=False, form="paper"):  # fmt: skip
    """Luo et al. 2019, algorithm 2 and 3, bounds of section 4; form="code" as published there.

    ``lr`` may be a list with one rate per step; the code's bounds follow it.
    """
    rates = [lr] * len(grads) if np.isscalar(lr) else list(lr)
    (b1, b2), path = betas, []
    m, v, v_hat = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, (g, a) in enumerate(zip(grads, rates, strict=True), start=1):
        g = g + weight_decay * w
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        v_hat = np.maximum(v_hat, v)
        root = np.sqrt(v_hat if amsbound else v) + eps
        final = final_lr * a / rates[0] if form == "code" else final_lr
        low, high = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
        if form == "code":
            eta = np.clip(a * np.sqrt(1 - b2**t) / (1 - b1**t) / root, low, high)
        else:
            eta = np.clip(a / root, low, high) / np.sqrt(t)
        w = w - eta * m
        path.append(w)
    state = {"exp_avg": m, "exp_avg_sq": v, **({"max_exp_avg_sq": v_hat} if amsbound else {})}
    return path, state


def lion(w, grads, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    """Chen et al. 2023, algorithm 2."""
    (b1, b2), path, m = betas, [], np.zeros_like(w)
    for g in grads:
        c = b1 * m + (1 - b1) * g
        w = w - lr * (np.sign(c) + weight_decay * w)
        m = b2 * m + (1 - b2) * g
        path.append(w)
    return path, {"exp_avg": m}


def sophia(w, grads, hessians, lr=1e-4, betas=(0.96, 0.99), rho=0.05, weight_decay=0.1,
           update_interval=10, eps=1e-12):  # fmt: skip
    """Liu et al. 2024, algorithm 3; ``hessians`` are the estimates of the steps t mod k = 1."""
    (b1, b2), path, m, h = betas, [], np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        if t % update_interval == 1 or update_interval == 1:
            h = b2 * h + (1 - b2) * hessians[(t - 1) // update_interval]
        w = w - lr * weight_decay * w - lr * np.clip(m / np.maximum(rho * h, eps), -1, 1)
        path.append(w)
    return path, {"exp_avg": m, "hessian": h}
