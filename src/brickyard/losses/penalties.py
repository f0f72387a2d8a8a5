"""Gradient penalties on critics; they differentiate twice."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_finite,
    check_floating,
    check_modes,
    check_not_empty,
    check_number,
    check_same_shape,
    reduce,
    shape,
)
from brickyard.losses._similarity import length

__all__ = ["GradientPenalty", "R1Penalty", "gradient_penalty", "r1_penalty"]

Critic = Callable[[Tensor], Tensor]


def gradient_penalty(
    critic: Critic, real: Tensor, fake: Tensor, weight: float = 10.0, target: float = 1.0,
    generator: torch.Generator | None = None, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the penalty of WGAN-GP on the critic's slope; see :class:`GradientPenalty`."""
    who = "gradient_penalty"
    check_modes(who, reduction, validate)
    check_number(who, "weight", weight, 0.0)
    check_number(who, "target", target, 0.0)
    check_floating(who, "real", real)
    check_floating(who, "fake", fake)
    check_same_shape(who, real, fake, "real and fake")
    check_not_empty(who, real, reduction)
    mix = torch.rand(
        real.shape[0], *[1] * (real.dim() - 1),
        generator=generator, dtype=real.dtype, device=real.device,
    )  # fmt: skip
    between = torch.lerp(fake.detach(), real.detach(), mix)
    slope = length(_slopes(who, critic, between, validate))
    return reduce(who, weight * (slope - target).square(), reduction)


def r1_penalty(
    critic: Critic, real: Tensor, weight: float = 10.0, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return half the squared slope on real data, weighed; see :class:`R1Penalty`."""
    who = "r1_penalty"
    check_modes(who, reduction, validate)
    check_number(who, "weight", weight, 0.0)
    check_floating(who, "real", real)
    check_not_empty(who, real, reduction)
    slopes = _slopes(who, critic, real.detach(), validate)
    return reduce(who, 0.5 * weight * slopes.square().sum(1), reduction)


def _slopes(who: str, critic: Critic, points: Tensor, validate: str) -> Tensor:
    """Return the gradient of each sample's scores at the sample, ``(N, features)``, with graph."""
    with torch.enable_grad():
        points = points.requires_grad_()
        scores = critic(points)
        if scores.shape[:1] != points.shape[:1] or not scores.requires_grad:
            raise ValueError(
                f"{who}: the critic must return differentiable scores with the samples on axis 0; "
                f"got shape {shape(scores)} for samples {shape(points)}"
            )
        (slopes,) = torch.autograd.grad(scores.sum(), points, create_graph=True)
    if validate == "full":
        check_finite(who, slope=slopes)
    return slopes.flatten(1) if slopes.dim() > 1 else slopes.unsqueeze(1)


@brick(
    "loss", "gradient_penalty", public="brickyard.losses", output="scores", target="none",
    summary="Hold the critic's slope at 1 between real and fake samples (WGAN-GP).",
    use_when="The critic of a Wasserstein game.",
    avoid_when="The critic holds batch normalization: a sample's slope then depends on others.",
    best_for="WGAN-GP.",
    paper="Gulrajani et al. 2017, Improved Training of Wasserstein GANs, eq. 3",
    tune_first="weight (10 in the paper), then critic steps per generator step",
    cost="A forward and a double backward of the critic.",
    pairs_with=("wasserstein", "adam"),
)  # fmt: skip
class GradientPenalty(Loss):
    """Hold the slope of a critic at ``target`` on lines between real and fake samples.

    Call it with the critic itself. The result differentiates through the slope, so the critic's
    activations must have a useful second derivative path (ReLU networks do). A critic that is
    flat somewhere has slope 0 and a gradient of 0 there, not NaN.

    Math:
        x = u*real + (1-u)*fake, u ~ U(0,1) per sample
        l_i = weight * (|grad_x critic(x_i)| - target)^2

    Args:
        weight: factor of the penalty; at least 0.
        target: slope to hold; at least 0.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite slopes too.

    Shape:
        real and fake ``(N, *)``; the critic maps them to ``(N, *)``.

    Raises:
        ValueError: shapes differ, the critic's scores do not start with N or have no gradient.
        TypeError: samples are not floating point.

    Example:
        >>> import torch
        >>> critic = lambda x: 3.0 * x.sum(1)  # slope 3 in one dimension
        >>> GradientPenalty(weight=10.0)(critic, torch.zeros(4, 1), torch.ones(4, 1))
        tensor(40.)

    Reference:
        Gulrajani et al. 2017, Improved Training of Wasserstein GANs, eq. 3 and algorithm 1.
    """

    def __init__(
        self, weight: float = 10.0, target: float = 1.0, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("GradientPenalty", "weight", weight, 0.0)
        check_number("GradientPenalty", "target", target, 0.0)
        self.weight, self.target = weight, target

    def forward(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the penalty of ``critic`` between ``real`` and ``fake``."""
        return gradient_penalty(
            critic, real, fake, self.weight, self.target, generator, self.reduction, self.validate
        )


@brick(
    "loss", "r1_penalty", public="brickyard.losses", output="scores", target="none",
    summary="Half the squared slope of the discriminator on real samples.",
    use_when="Any game whose discriminator oscillates or grows too steep.",
    avoid_when="A slope of 1 is needed, as for Wasserstein: take gradient_penalty.",
    best_for="Non-saturating GANs, every 16th step (StyleGAN2).",
    paper="Mescheder, Geiger & Nowozin 2018, Which Training Methods for GANs do actually Converge",
    tune_first="weight (1 to 100, growing with the resolution)",
    cost="A forward and a double backward of the discriminator on real samples.",
    pairs_with=("gan_non_saturating", "adam"),
)  # fmt: skip
class R1Penalty(Loss):
    """Flatten a discriminator on real samples.

    Math:
        l_i = weight/2 * |grad_x critic(real_i)|^2

    Args:
        weight: factor of the penalty (gamma in the paper); at least 0.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite slopes too.

    Shape:
        real ``(N, *)``; the critic maps it to ``(N, *)``.

    Raises:
        ValueError: the critic's scores do not start with N or have no gradient.
        TypeError: samples are not floating point.

    Example:
        >>> import torch
        >>> R1Penalty(weight=2.0)(lambda x: x.square().sum(1), torch.ones(4, 1))
        tensor(4., grad_fn=<MeanBackward0>)

    Reference:
        Mescheder, Geiger & Nowozin 2018, Which Training Methods for GANs do actually Converge?,
        eq. 9.
    """

    def __init__(
        self, weight: float = 10.0, reduction: Reduction = "mean", validate: Validate = "cheap"
    ):
        super().__init__(reduction, validate)
        check_number("R1Penalty", "weight", weight, 0.0)
        self.weight = weight

    def forward(self, critic: Critic, real: Tensor) -> Tensor:
        """Return the penalty of ``critic`` on ``real``."""
        return r1_penalty(critic, real, self.weight, self.reduction, self.validate)
