"""Losses of actors and critics in reinforcement learning."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_choice,
    check_modes,
    check_number,
    check_same_shape,
    check_values,
    reduce,
    single,
)

__all__ = [
    "PPOClipLoss", "PolicyGradientLoss", "ValueLoss", "policy_gradient_loss", "ppo_clip_loss",
    "value_loss",
]  # fmt: skip

Kind = Literal["mse", "huber"]
KINDS = ("mse", "huber")
#: Log-ratios beyond this are as good as infinite, and exp overflows in fp32 soon after.
_LARGEST_LOG_RATIO = 80.0


def policy_gradient_loss(
    log_prob: Tensor, advantage: Tensor, entropy: Tensor | None = None,
    sample_weight: Tensor | None = None, entropy_weight: float = 0.0, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return minus log-probability times advantage; see :class:`PolicyGradientLoss`."""
    who = "policy_gradient_loss"
    check_modes(who, reduction, validate)
    check_number(who, "entropy_weight", entropy_weight, 0.0)
    log_prob, advantage = check_values(
        who, log_prob, advantage, reduction, validate, "log_prob and advantage"
    )
    loss = -log_prob * advantage.detach()
    if entropy is None:
        if entropy_weight:
            raise ValueError(f"{who}: entropy_weight={entropy_weight} needs the policy's entropy")
    else:
        check_same_shape(who, log_prob, entropy, "log_prob and entropy")
        loss = loss - entropy_weight * single(entropy)
    return reduce(who, loss, reduction, sample_weight)


def value_loss(
    value: Tensor, target: Tensor, sample_weight: Tensor | None = None, kind: str = "mse",
    delta: float = 1.0, reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the error of predicted values; see :class:`ValueLoss`."""
    who = "value_loss"
    check_modes(who, reduction, validate)
    check_kind(who, kind, delta)
    value, target = check_values(who, value, target, reduction, validate, "value and target")
    return reduce(who, value_error(value, target.detach(), kind, delta), reduction, sample_weight)


def ppo_clip_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor,
    sample_weight: Tensor | None = None, clip: float = 0.2, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the clipped surrogate of PPO; see :class:`PPOClipLoss`."""
    who = "ppo_clip_loss"
    check_modes(who, reduction, validate)
    check_number(who, "clip", clip, 0.0, open_low=True)
    check_same_shape(who, log_prob, old_log_prob, "log_prob and old_log_prob")
    log_prob, advantage = check_values(
        who, log_prob, advantage, reduction, validate, "log_prob and advantage"
    )
    advantage = advantage.detach()
    moved = log_prob - single(old_log_prob).detach().to(log_prob.dtype)
    ratio = moved.clamp_max(_LARGEST_LOG_RATIO).exp()
    held = ratio.clamp(1 - clip, 1 + clip)
    loss = -torch.minimum(ratio * advantage, held * advantage)
    return reduce(who, loss, reduction, sample_weight)


def check_kind(who: str, kind: str, delta: float) -> None:
    """Refuse an unknown kind of error, or a delta that is not above 0."""
    check_choice(who, "kind", kind, KINDS)
    check_number(who, "delta", delta, 0.0, open_low=True)


def value_error(value: Tensor, target: Tensor, kind: str, delta: float) -> Tensor:
    """Return half the squared error, or Huber's."""
    if kind == "mse":
        return 0.5 * (value - target).square()
    return F.huber_loss(value, target, reduction="none", delta=delta)


@brick(
    "loss", "policy_gradient", aliases=("reinforce",), public="brickyard.losses", output="other",
    target="none",
    summary="Raise the log-probability of actions in proportion to their advantage.",
    use_when="A policy is trained on episodes it has just played.",
    avoid_when="Samples are reused for several updates: take ppo_clip.",
    best_for="REINFORCE with a baseline, A2C.",
    paper="Williams 1992, Simple Statistical Gradient-Following Algorithms, eq. 11",
    tune_first="the baseline (normalize or subtract a value), then entropy_weight",
    cost="Negligible beside the rollouts.",
    pairs_with=("value", "adam"),
)  # fmt: skip
class PolicyGradientLoss(Loss):
    """Weigh log-probabilities of the actions taken by their advantages.

    The advantage is detached inside: the policy's loss never trains the baseline.

    Math:
        l_i = -log pi(a_i|s_i) * A_i - entropy_weight * H(pi(.|s_i))

    Args:
        entropy_weight: bonus for a policy that stays undecided; at least 0, needs ``entropy``.
        reduction: ``"mean"`` over the steps (weighted when ``sample_weight`` is given), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        log_prob, advantage and entropy ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, ``entropy_weight`` without entropy, the batch is empty.
        TypeError: log_prob or advantage is not floating point.

    Example:
        >>> import torch
        >>> PolicyGradientLoss()(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, -1.0]))
        tensor(0.5000)

    Reference:
        Williams 1992, Simple Statistical Gradient-Following Algorithms for Connectionist
        Reinforcement Learning, eq. 11; entropy: Mnih et al. 2016, section 4.
    """

    def __init__(
        self, entropy_weight: float = 0.0, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("PolicyGradientLoss", "entropy_weight", entropy_weight, 0.0)
        self.entropy_weight = entropy_weight

    def forward(
        self, log_prob: Tensor, advantage: Tensor, entropy: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the loss of actions with ``log_prob`` and ``advantage``."""
        return policy_gradient_loss(
            log_prob, advantage, entropy, sample_weight, self.entropy_weight, self.reduction,
            self.validate,
        )  # fmt: skip


@brick(
    "loss", "value", public="brickyard.losses", output="values", target="values",
    summary="Half the squared, or Huber's, error of predicted values; the target is detached.",
    use_when="A critic is trained on returns or bootstrapped targets.",
    avoid_when="Ordinary regression: mse and huber are the same without the half.",
    best_for="Critics of A2C and PPO.",
    paper="Mnih et al. 2016, Asynchronous Methods for Deep Reinforcement Learning, section 4",
    tune_first="its weight against the policy's loss (0.25 to 1), then kind",
    cost="Negligible beside the rollouts.",
    pairs_with=("policy_gradient", "ppo_clip"),
)  # fmt: skip
class ValueLoss(Loss):
    """Measure the error of predicted values against fixed targets.

    Math:
        mse:   l_i = 0.5*(V_i - R_i)^2
        huber: l_i = 0.5*e^2 if |e| <= delta, else delta*(|e| - 0.5*delta);  e = V_i - R_i

    Args:
        kind: ``"mse"`` or ``"huber"``.
        delta: error from which ``"huber"`` is linear; above 0.
        reduction: ``"mean"`` over all values (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        value and target ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, an option is out of range, the batch is empty.
        TypeError: value or target is not floating point.

    Example:
        >>> import torch
        >>> ValueLoss()(torch.tensor([1.0]), torch.tensor([3.0]))
        tensor(2.)

    Reference:
        Mnih et al. 2016, Asynchronous Methods for Deep Reinforcement Learning, section 4;
        Huber 1964, Robust Estimation of a Location Parameter.
    """

    def __init__(
        self, kind: Kind = "mse", delta: float = 1.0, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_kind("ValueLoss", kind, delta)
        self.kind, self.delta = kind, delta

    def forward(self, value: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``value`` against ``target``."""
        return value_loss(
            value, target, sample_weight, self.kind, self.delta, self.reduction, self.validate
        )


@brick(
    "loss", "ppo_clip", public="brickyard.losses", output="other", target="none",
    summary="Policy gradient that stops once an action's probability has moved by clip.",
    use_when="Rollouts are reused for several epochs of updates.",
    avoid_when="Samples are much older than the policy: the ratio is then clipped everywhere.",
    best_for="PPO.",
    paper="Schulman et al. 2017, Proximal Policy Optimization Algorithms, eq. 7",
    tune_first="clip (0.1 to 0.3), then epochs per rollout",
    cost="Negligible beside the rollouts.",
    pairs_with=("value", "policy_gradient", "adam"),
)  # fmt: skip
class PPOClipLoss(Loss):
    """Raise the probability of good actions, but not by more than a factor.

    Old log-probabilities and advantages are detached inside. A log-ratio above 80 counts as 80:
    its exponential would overflow.

    Math:
        r_i = exp(log_prob_i - old_log_prob_i)
        l_i = -min(r_i*A_i, clamp(r_i, 1 - clip, 1 + clip)*A_i)

    Args:
        clip: how far the ratio may move before the gradient stops; above 0.
        reduction: ``"mean"`` over the steps (weighted when ``sample_weight`` is given), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        log_prob, old_log_prob and advantage ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, ``clip`` is not above 0, the batch is empty.
        TypeError: log_prob or advantage is not floating point.

    Example:
        >>> import torch
        >>> new, old = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
        >>> PPOClipLoss(clip=0.2)(new, old, torch.tensor([1.0]))
        tensor(-1.2000)

    Reference:
        Schulman et al. 2017, Proximal Policy Optimization Algorithms, eq. 7.
    """

    def __init__(
        self, clip: float = 0.2, reduction: Reduction = "mean", validate: Validate = "cheap"
    ):
        super().__init__(reduction, validate)
        check_number("PPOClipLoss", "clip", clip, 0.0, open_low=True)
        self.clip = clip

    def forward(
        self, log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the loss of actions taken with ``old_log_prob``."""
        return ppo_clip_loss(
            log_prob, old_log_prob, advantage, sample_weight, self.clip, self.reduction,
            self.validate,
        )  # fmt: skip
