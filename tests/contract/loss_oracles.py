"""Float64 oracles of the losses: the formulas of the papers, in plain NumPy loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import nn

N = 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def true_probability(x, y):
    return softmax(x)[np.arange(len(y)), y]


def bce(x, t):
    p = sigmoid(x)
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


def binary_focal(x, t, gamma=2.0, alpha=0.25):
    p = sigmoid(x)
    pt = p * t + (1 - p) * (1 - t)
    return (alpha * t + (1 - alpha) * (1 - t)) * (1 - pt) ** gamma * bce(x, t)


def kl(x, p):
    q = softmax(x)
    return np.array([sum(a * math.log(a / b) for a, b in zip(r, s, strict=True) if a)
                     for r, s in zip(p, q, strict=True)])  # fmt: skip


def kl_terms(x, p):
    """Return the size of the two codes whose difference the divergence is."""
    q = softmax(x)
    return -(p * np.log(np.where(p > 0, p, 1)) + p * np.log(q)).sum(1)


def distillation_terms(student, teacher, y, temperature=4.0, alpha=0.5):
    soft = kl_terms(student / temperature, softmax(teacher / temperature))
    return alpha * temperature**2 * soft - (1 - alpha) * np.log(true_probability(student, y))


def distillation(student, teacher, y, temperature=4.0, alpha=0.5):
    soft = kl(student / temperature, softmax(teacher / temperature))
    return alpha * temperature**2 * soft - (1 - alpha) * np.log(true_probability(student, y))


def crammer_singer(s, y):
    return np.array([max(0.0, 1 + max(v for c, v in enumerate(row) if c != k) - row[k])
                     for row, k in zip(s, y, strict=True)])  # fmt: skip


def batch_hard(z, y, margin=1.0):
    found = []
    for a in range(len(z)):
        d = [math.dist(z[a], z[j]) for j in range(len(z))]
        same = [d[j] for j in range(len(z)) if j != a and y[j] == y[a]]
        other = [d[j] for j in range(len(z)) if y[j] != y[a]]
        found.append(max(0.0, max(same) - min(other) + margin) if same and other else 0.0)
    return np.array(found)


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def info_nce(q, k, temperature=0.07):
    s = unit(q) @ unit(k).T / temperature
    return np.array(
        [-math.log(math.exp(s[i, i]) / sum(map(math.exp, s[i]))) for i in range(len(s))]
    )


def nt_xent(z1, z2, temperature=0.5):
    z = unit(np.concatenate([z1, z2]))
    n, found = len(z1), []
    for i in range(2 * n):
        s = [math.exp(z[i] @ z[j] / temperature) for j in range(2 * n)]
        found.append(-math.log(s[(i + n) % (2 * n)] / (sum(s) - s[i])))
    return np.array(found)


def sup_con(z, y, temperature=0.07):
    z, found = unit(z), []
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and y[p] == y[i]]
        total = sum(math.exp(z[i] @ z[a] / temperature) for a in range(len(z)) if a != i)
        logs = [math.log(math.exp(z[i] @ z[p] / temperature) / total) for p in positives]
        found.append(-sum(logs) / len(logs) if logs else 0.0)
    return np.array(found)


def overlap(x, t, alpha=0.5, beta=0.5, power=1.0):
    p, hit, fp, fn = sigmoid(x), 0.0, 0.0, 0.0
    for a, b in zip(p.ravel(), t.ravel(), strict=True):
        hit, fp, fn = hit + a * b, fp + a * (1 - b), fn + (1 - a) * b
    return np.array([(1 - hit / (hit + alpha * fp + beta * fn)) ** power])


def lovasz_hinge(x, t):
    """Sum errors times the growth of the Jaccard loss as pixels join the set of errors."""
    errors, truth = (1 - (2 * t - 1) * x).ravel(), t.ravel()
    order, total, before, wrong = np.argsort(-errors), 0.0, 0.0, set()
    positives = set(np.flatnonzero(truth))
    for i in order:
        wrong.add(i)
        jaccard = len(wrong) / len(positives | wrong)
        total += max(0.0, errors[i]) * (jaccard - before)
        before = jaccard
    return np.array([total])


def box_parts(a, b):
    rows = []
    for p, t in zip(a, b, strict=True):
        w = max(0.0, min(p[2], t[2]) - max(p[0], t[0]))
        h = max(0.0, min(p[3], t[3]) - max(p[1], t[1]))
        area = [(r[2] - r[0]) * (r[3] - r[1]) for r in (p, t)]
        hull = (max(p[2], t[2]) - min(p[0], t[0]), max(p[3], t[3]) - min(p[1], t[1]))
        apart = ((p[0] + p[2] - t[0] - t[2]) / 2) ** 2 + ((p[1] + p[3] - t[1] - t[3]) / 2) ** 2
        angles = [math.atan((r[2] - r[0]) / (r[3] - r[1])) for r in (p, t)]
        union = sum(area) - w * h
        rows.append(
            (w * h / union, union, hull, apart, 4 / math.pi**2 * (angles[1] - angles[0]) ** 2)
        )
    return rows


def giou(a, b):
    return np.array(
        [1 - i + (h[0] * h[1] - u) / (h[0] * h[1]) for i, u, h, _, _ in box_parts(a, b)]
    )


def diou(a, b):
    return np.array([1 - i + d / (h[0] ** 2 + h[1] ** 2) for i, _, h, d, _ in box_parts(a, b)])


def ciou(a, b):
    return np.array([
        1 - i + d / (h[0] ** 2 + h[1] ** 2) + v / (1 - i + v) * v
        for i, _, h, d, v in box_parts(a, b)
    ])  # fmt: skip


def ctc(log_probs, targets, frames, symbols):
    """Add up every path that collapses to the target."""
    found = []
    for i in range(len(frames)):
        wanted, total = list(targets[i][: symbols[i]]), 0.0
        for path in itertools.product(range(log_probs.shape[2]), repeat=int(frames[i])):
            merged = [c for c, _ in itertools.groupby(path)]
            if [c for c in merged if c] == wanted:
                total += math.exp(sum(log_probs[t, i, c] for t, c in enumerate(path)))
        found.append(-math.log(total))
    return np.array(found)


def head(hidden, weight, y, bias):
    return -np.log(true_probability(hidden @ weight.T + bias, y))


def elbo(recon, x, mu, log_var):
    gap = 0.5 * (mu**2 + np.exp(log_var) - 1 - log_var).sum(1)
    return bce(recon, x).sum(1) + gap


NETWORK = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
FIRST, SECOND = (torch.randn(3, 3, generator=torch.Generator().manual_seed(s)).double()
                 for s in (0, 1))  # fmt: skip


def perceptual(x, y):
    w, b = (p.detach().double().numpy() for p in NETWORK[0].parameters())
    return ((np.tanh(x @ w.T + b) - np.tanh(y @ w.T + b)) ** 2).mean(1)


def critic(x):
    return (x @ FIRST.to(x) * x).sum(1)


def slopes(x):
    a = FIRST.numpy()
    return np.linalg.norm(x @ (a + a.T), axis=1)


def gradient_penalty(_, real, fake):
    torch.manual_seed(1)
    u = torch.rand(len(real), 1, dtype=torch.float64).numpy()
    return 10 * (slopes(u * real + (1 - u) * fake) - 1) ** 2


def q(x):
    return x @ FIRST.to(x)


def q_target(x):
    return x @ SECOND.to(x)


def td(_q, _target, batch):
    after = batch["next_state"] @ SECOND.numpy()
    y = batch["reward"] + 0.99 * (1 - batch["done"]) * after.max(1)
    return 0.5 * ((batch["state"] @ FIRST.numpy())[np.arange(N), batch["action"]] - y) ** 2


def ppo(new, old, advantage, clip=0.2):
    r = np.exp(new - old)
    return -np.minimum(r * advantage, np.clip(r, 1 - clip, 1 + clip) * advantage)


def nonzero_mean(losses, *_):
    return losses.sum() / max(1, (losses > 0).sum())


def softplus(x):
    return np.log1p(np.exp(x))
