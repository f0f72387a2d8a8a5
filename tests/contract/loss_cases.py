"""Data and oracle for every loss.

Each case gives the arguments of the loss, which of them are differentiable, and an oracle that
returns the unreduced loss of the same arguments as NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import loss_oracles as o
import numpy as np
import torch

N, C = o.N, 4


@dataclass
class Case:
    """Say how to call a loss and what it must return."""

    make: Callable[[], tuple]
    oracle: Callable[..., Any]
    differentiable: tuple[int, ...] = (0,)
    options: dict[str, Any] = field(default_factory=dict)
    mean: Callable[..., float] = lambda losses, *_: float(np.mean(losses))
    call: Callable[..., Any] = lambda loss, *args: loss(*args)
    #: In fp32 the loss is right to 1e-6 of this. None: of the loss itself, as it must be where
    #: nothing cancels. Where large terms cancel it is their size, since they were rounded before.
    terms: Callable[..., Any] | None = None
    compare_single: bool = True


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


def seeded(loss, *args):
    torch.manual_seed(1)
    return loss(*args)


def transitions():
    return {
        "state": normal(N, 3), "action": torch.randint(0, 3, (N,)), "reward": normal(N),
        "next_state": normal(N, 3), "done": torch.tensor([0, 1, 0, 0, 1, 0]).bool(),
    }  # fmt: skip


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


CASES: dict[str, Case] = {
    "mse": Case(values, lambda x, y: (x - y) ** 2),
    "mae": Case(values, lambda x, y: np.abs(x - y)),
    "huber": Case(values, lambda x, y: np.where(
        np.abs(x - y) <= 1, 0.5 * (x - y) ** 2, np.abs(x - y) - 0.5)),
    "smooth_l1": Case(values, lambda x, y: np.where(
        np.abs(x - y) < 1, 0.5 * (x - y) ** 2, np.abs(x - y) - 0.5)),
    "log_cosh": Case(values, lambda x, y: np.log(np.cosh(x - y))),
    "quantile": Case(values, lambda x, y: np.where(y > x, 0.5 * (y - x), 0.5 * (x - y))),
    "bce": Case(lambda: (normal(N, 3), bits(N, 3)), o.bce),
    "cross_entropy": Case(
        lambda: (normal(N, C), classes()), lambda x, y: -np.log(o.true_probability(x, y))),
    "nll": Case(
        lambda: (torch.log_softmax(normal(N, C), 1), classes()),
        lambda x, y: -x[np.arange(N), y]),
    "focal": Case(
        lambda: (normal(N, C), classes()),
        lambda x, y: -(1 - o.true_probability(x, y)) ** 2 * np.log(o.true_probability(x, y))),
    "binary_focal": Case(lambda: (normal(N, 3), bits(N, 3)), o.binary_focal),
    "hinge": Case(lambda: (normal(N), signs(N)), lambda s, y: np.maximum(0, 1 - y * s)),
    "squared_hinge": Case(
        lambda: (normal(N), signs(N)), lambda s, y: np.maximum(0, 1 - y * s) ** 2),
    "multiclass_hinge": Case(lambda: (normal(N, C), classes()), o.crammer_singer),
    "kl_divergence": Case(lambda: (normal(N, C), probabilities(N, C)), o.kl, (0, 1),
        terms=o.kl_terms),
    "distillation": Case(
        lambda: (normal(N, C), normal(N, C), classes()), o.distillation,
        terms=o.distillation_terms),
    "elbo": Case(
        lambda: (normal(N, 5), torch.rand(N, 5).double(), normal(N, 2), normal(N, 2)), o.elbo,
        (0, 2, 3)),
    "triplet": Case(
        lambda: (normal(N, 3), normal(N, 3), normal(N, 3)),
        lambda a, p, n: np.maximum(
            0, np.linalg.norm(a - p, axis=1) - np.linalg.norm(a - n, axis=1) + 1), (0, 1, 2)),
    "batch_triplet": Case(
        lambda: (normal(8, 3), torch.randint(0, 3, (8,))), o.batch_hard, mean=o.nonzero_mean),
    "contrastive": Case(
        lambda: (*pairs(), bits(N)),
        lambda a, b, y: 0.5 * (1 - y) * ((a - b) ** 2).sum(1)
        + 0.5 * y * np.maximum(0, 1 - np.linalg.norm(a - b, axis=1)) ** 2, (0, 1)),
    "info_nce": Case(pairs, o.info_nce, (0, 1), terms=lambda *_: 1 / 0.07),
    "nt_xent": Case(pairs, o.nt_xent, (0, 1)),
    "sup_con": Case(
        lambda: (normal(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 3])), o.sup_con,
        mean=lambda losses, *_: losses.sum() / 7, terms=lambda *_: 1 / 0.07),
    "dice": Case(masks, o.overlap),
    "iou": Case(masks, lambda x, t: o.overlap(x, t, 1, 1)),
    "tversky": Case(
        masks, lambda x, t: o.overlap(x, t, 0.3, 0.7), options={"alpha": 0.3, "beta": 0.7}),
    "focal_tversky": Case(masks, lambda x, t: o.overlap(x, t, 0.3, 0.7, 0.75)),
    "lovasz": Case(masks, o.lovasz_hinge),
    "box_iou": Case(
        lambda: (boxes(N), boxes(N)), lambda a, b: np.array([1 - p[0] for p in o.box_parts(a, b)])),
    "giou": Case(lambda: (boxes(N), boxes(N)), o.giou),
    "diou": Case(lambda: (boxes(N), boxes(N)), o.diou),
    "ciou": Case(lambda: (boxes(N), boxes(N)), o.ciou),
    "perceptual": Case(
        lambda: (normal(N, 3), normal(N, 3)), o.perceptual,
        options={"features": o.NETWORK, "layers": ["1"]}),
    "gradient_penalty": Case(
        lambda: (o.critic, normal(N, 3), normal(N, 3)), o.gradient_penalty, (), call=seeded,
        compare_single=False),  # fp32 draws other numbers: tests/losses/test_adversarial.py
    "r1_penalty": Case(
        lambda: (o.critic, normal(N, 3)), lambda _, x: 5 * o.slopes(x) ** 2, ()),
    "ctc": Case(
        lambda: (torch.log_softmax(normal(4, 3, 3), 2), torch.tensor([[1, 1], [2, 1], [2, 0]]),
                 torch.tensor([4, 3, 2]), torch.tensor([2, 2, 1])), o.ctc,
        mean=lambda losses, *args: float(np.mean(losses / args[3]))),
    "linear_cross_entropy": Case(
        lambda: (normal(N, 3), normal(C, 3), classes(), normal(C)), o.head, (0, 1, 3)),
    "policy_gradient": Case(
        lambda: (normal(N), normal(N), normal(N)), lambda p, a, _: -p * a),
    "value": Case(values, lambda v, r: 0.5 * (v - r) ** 2),
    "td": Case(lambda: (o.q, o.q_target, transitions()), o.td, ()),
    "ppo_clip": Case(lambda: (normal(N), normal(N), normal(N)), o.ppo),
}  # fmt: skip

GAMES = {
    "gan_minimax": game(lambda f: -o.softplus(f), lambda r: o.softplus(-r), o.softplus),
    "gan_non_saturating": game(lambda f: o.softplus(-f), lambda r: o.softplus(-r), o.softplus),
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
