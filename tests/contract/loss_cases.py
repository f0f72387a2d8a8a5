"""Data and float64 oracles for every loss: the formulas of the papers, in plain NumPy loops.

Each case gives the arguments of the loss, which of them are differentiable, and an oracle that
returns the unreduced loss of the same arguments as NumPy arrays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

N, C = 6, 4


@dataclass
class Case:
    """Say how to call a loss and what it must return."""

    make: Callable[[], tuple]
    oracle: Callable[..., Any]
    differentiable: tuple[int, ...] = (0,)
    options: dict[str, Any] = field(default_factory=dict)
    mean: Callable[..., float] = lambda losses, *_: float(np.mean(losses))
    call: Callable[..., Any] = lambda loss, *args: loss(*args)
    single: float = 1e-6  # relative error allowed in fp32


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def classes() -> torch.Tensor:
    return torch.randperm(N) % C  # every class occurs


def probabilities(*shape: int) -> torch.Tensor:
    return torch.softmax(normal(*shape), 1)


def signs(*shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape).double() * 2 - 1


def bits(*shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape).double()


def boxes(count: int) -> torch.Tensor:
    corner = 3 * torch.rand(count, 2, dtype=torch.float64)
    return torch.cat([corner, corner + 0.5 + 2 * torch.rand(count, 2, dtype=torch.float64)], 1)


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


def seeded(loss, *args):
    torch.manual_seed(1)
    return loss(*args)


def transitions():
    return {
        "state": normal(N, 3), "action": torch.randint(0, 3, (N,)), "reward": normal(N),
        "next_state": normal(N, 3), "done": torch.tensor([0, 1, 0, 0, 1, 0]).bool(),
    }  # fmt: skip


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


def values():
    return normal(N, 3), normal(N, 3)


def pairs():
    return normal(N, 3), normal(N, 3)


def masks():
    return normal(2, 3, 4), bits(2, 3, 4)


def sides():
    return normal(N, 1), normal(N, 1)


def game(fool: Callable, accept: Callable, reject: Callable) -> dict[str, Case]:
    return {
        "discriminator": Case(
            sides, lambda real, fake: accept(real) + reject(fake), (0, 1),
            call=lambda loss, *args: loss.discriminator(*args),
        ),
        "generator": Case(
            lambda: (normal(N, 1),), fool, call=lambda loss, fake: loss.generator(fake)
        ),
    }  # fmt: skip


def softplus(x):
    return np.log1p(np.exp(x))


CASES: dict[str, Case] = {
    "mse": Case(values, lambda x, y: (x - y) ** 2),
    "mae": Case(values, lambda x, y: np.abs(x - y)),
    "huber": Case(values, lambda x, y: np.where(
        np.abs(x - y) <= 1, 0.5 * (x - y) ** 2, np.abs(x - y) - 0.5)),
    "smooth_l1": Case(values, lambda x, y: np.where(
        np.abs(x - y) < 1, 0.5 * (x - y) ** 2, np.abs(x - y) - 0.5)),
    "log_cosh": Case(values, lambda x, y: np.log(np.cosh(x - y))),
    "quantile": Case(values, lambda x, y: np.where(y > x, 0.5 * (y - x), 0.5 * (x - y))),
    "bce": Case(lambda: (normal(N, 3), bits(N, 3)), bce),
    "cross_entropy": Case(
        lambda: (normal(N, C), classes()), lambda x, y: -np.log(true_probability(x, y))),
    "nll": Case(
        lambda: (torch.log_softmax(normal(N, C), 1), classes()),
        lambda x, y: -x[np.arange(N), y]),
    "focal": Case(
        lambda: (normal(N, C), classes()),
        lambda x, y: -(1 - true_probability(x, y)) ** 2 * np.log(true_probability(x, y))),
    "binary_focal": Case(lambda: (normal(N, 3), bits(N, 3)), binary_focal),
    "hinge": Case(lambda: (normal(N), signs(N)), lambda s, y: np.maximum(0, 1 - y * s)),
    "squared_hinge": Case(
        lambda: (normal(N), signs(N)), lambda s, y: np.maximum(0, 1 - y * s) ** 2),
    "multiclass_hinge": Case(lambda: (normal(N, C), classes()), crammer_singer),
    "kl_divergence": Case(lambda: (normal(N, C), probabilities(N, C)), kl, (0, 1), single=5e-6),
    "distillation": Case(
        lambda: (normal(N, C), normal(N, C), classes()), distillation, single=5e-6),
    "elbo": Case(
        lambda: (normal(N, 5), torch.rand(N, 5).double(), normal(N, 2), normal(N, 2)), elbo,
        (0, 2, 3)),
    "triplet": Case(
        lambda: (normal(N, 3), normal(N, 3), normal(N, 3)),
        lambda a, p, n: np.maximum(
            0, np.linalg.norm(a - p, axis=1) - np.linalg.norm(a - n, axis=1) + 1), (0, 1, 2)),
    "batch_triplet": Case(
        lambda: (normal(8, 3), torch.randint(0, 3, (8,))), batch_hard, mean=nonzero_mean),
    "contrastive": Case(
        lambda: (*pairs(), bits(N)),
        lambda a, b, y: 0.5 * (1 - y) * ((a - b) ** 2).sum(1)
        + 0.5 * y * np.maximum(0, 1 - np.linalg.norm(a - b, axis=1)) ** 2, (0, 1)),
    "info_nce": Case(pairs, info_nce, (0, 1), single=5e-6),
    "nt_xent": Case(pairs, nt_xent, (0, 1)),
    "sup_con": Case(
        lambda: (normal(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 3])), sup_con,
        mean=lambda losses, *_: losses.sum() / 7, single=5e-6),
    "dice": Case(masks, overlap),
    "iou": Case(masks, lambda x, t: overlap(x, t, 1, 1)),
    "tversky": Case(
        masks, lambda x, t: overlap(x, t, 0.3, 0.7), options={"alpha": 0.3, "beta": 0.7}),
    "focal_tversky": Case(masks, lambda x, t: overlap(x, t, 0.3, 0.7, 0.75)),
    "lovasz": Case(masks, lovasz_hinge),
    "box_iou": Case(
        lambda: (boxes(N), boxes(N)), lambda a, b: np.array([1 - p[0] for p in box_parts(a, b)])),
    "giou": Case(lambda: (boxes(N), boxes(N)), giou),
    "diou": Case(lambda: (boxes(N), boxes(N)), diou),
    "ciou": Case(lambda: (boxes(N), boxes(N)), ciou),
    "perceptual": Case(
        lambda: (normal(N, 3), normal(N, 3)), perceptual,
        options={"features": NETWORK, "layers": ["1"]}, single=5e-6),
    "gradient_penalty": Case(
        lambda: (critic, normal(N, 3), normal(N, 3)), gradient_penalty, (), call=seeded,
        single=float("inf")),  # fp32 draws other random numbers
    "r1_penalty": Case(
        lambda: (critic, normal(N, 3)), lambda _, x: 5 * slopes(x) ** 2, ()),
    "ctc": Case(
        lambda: (torch.log_softmax(normal(4, 3, 3), 2), torch.tensor([[1, 1], [2, 1], [2, 0]]),
                 torch.tensor([4, 3, 2]), torch.tensor([2, 2, 1])), ctc,
        mean=lambda losses, *args: float(np.mean(losses / args[3]))),
    "linear_cross_entropy": Case(
        lambda: (normal(N, 3), normal(C, 3), classes(), normal(C)), head, (0, 1, 3)),
    "policy_gradient": Case(
        lambda: (normal(N), normal(N), normal(N)), lambda p, a, _: -p * a),
    "value": Case(values, lambda v, r: 0.5 * (v - r) ** 2),
    "td": Case(lambda: (q, q_target, transitions()), td, ()),
    "ppo_clip": Case(lambda: (normal(N), normal(N), normal(N)), ppo),
}  # fmt: skip

GAMES = {
    "gan_minimax": game(lambda f: -softplus(f), lambda r: softplus(-r), softplus),
    "gan_non_saturating": game(lambda f: softplus(-f), lambda r: softplus(-r), softplus),
    "gan_least_squares": game(
        lambda f: 0.5 * (f - 1) ** 2, lambda r: 0.5 * (r - 1) ** 2, lambda f: 0.5 * f**2),
    "gan_hinge": game(
        lambda f: -f, lambda r: np.maximum(0, 1 - r), lambda f: np.maximum(0, 1 + f)),
    "wasserstein": game(lambda f: -f, lambda r: -r, lambda f: f),
}  # fmt: skip
for _key, _sides in GAMES.items():
    for _side, _case in _sides.items():
        CASES[f"{_key}/{_side}"] = _case

#: One value of each option that is not its default and must change the loss of the case's data.
OTHER: dict[tuple[str, str], Any] = {
    ("huber", "delta"): 0.3, ("smooth_l1", "beta"): 0.3, ("quantile", "q"): 0.9,
    ("bce", "pos_weight"): 3.0, ("bce", "weight"): [1.0, 2.0, 3.0],
    ("cross_entropy", "weight"): [1.0, 2.0, 3.0, 4.0], ("nll", "weight"): [1.0, 2.0, 3.0, 4.0],
    ("focal", "gamma"): 0.5, ("focal", "alpha"): [1.0, 2.0, 3.0, 4.0],
    ("binary_focal", "gamma"): 0.5, ("binary_focal", "alpha"): None,
    ("multiclass_hinge", "margin"): 2.0, ("multiclass_hinge", "variant"): "weston_watkins",
    ("kl_divergence", "temperature"): 2.0, ("distillation", "temperature"): 2.0,
    ("distillation", "alpha"): 0.9, ("elbo", "likelihood"): "gaussian", ("elbo", "beta"): 4.0,
    ("triplet", "margin"): 2.0, ("triplet", "p"): 1.0, ("batch_triplet", "margin"): 2.0,
    ("batch_triplet", "mining"): "semi_hard", ("contrastive", "margin"): 5.0,
    ("info_nce", "temperature"): 0.5, ("info_nce", "symmetric"): True,
    ("nt_xent", "temperature"): 0.1, ("sup_con", "temperature"): 0.5,
    ("tversky", "alpha"): 0.9, ("tversky", "beta"): 0.1, ("focal_tversky", "alpha"): 0.9,
    ("focal_tversky", "beta"): 0.1, ("focal_tversky", "gamma"): 3.0,
    ("gradient_penalty", "weight"): 1.0, ("gradient_penalty", "target"): 0.0,
    ("r1_penalty", "weight"): 1.0, ("ctc", "blank"): 2,
    ("linear_cross_entropy", "class_weight"): [1.0, 2.0, 3.0, 4.0],
    ("linear_cross_entropy", "soft_cap"): 1.0, ("policy_gradient", "entropy_weight"): 0.5,
    ("value", "kind"): "huber", ("td", "gamma"): 0.5, ("td", "double"): True,
    ("td", "kind"): "huber", ("ppo_clip", "clip"): 0.5, ("perceptual", "features"): None,
    ("perceptual", "layers"): ["2"], ("perceptual", "weights"): [3.0],
    ("perceptual", "distance"): "gram",
}  # fmt: skip
#: Options with the same meaning wherever they occur.
COMMON = {"label_smoothing": 0.1, "ignore_index": 1, "smooth": 5.0}
#: Options that need their own test, and where it is.
ELSEWHERE = {
    "validate": "test_full_validation_refuses_what_is_not_finite, tests/losses",
    "gather": "tests/losses/test_gather.py",
    "chunk": "tests/losses/test_sequence.py (the value must not change)",
    "zero_infinity": "tests/losses/test_sequence.py",
    "mode": "tests/losses/test_segmentation.py",
    "from_logits": "tests/losses/test_segmentation.py",
}
#: The same, of single bricks.
ALSO_ELSEWHERE = {
    ("ctc", "blank"), ("value", "delta"), ("td", "delta"), ("perceptual", "features"),
    ("dice", "weight"), ("iou", "weight"), ("tversky", "weight"), ("focal_tversky", "weight"),
}  # fmt: skip
