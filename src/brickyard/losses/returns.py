"""Returns and advantages from rewards; episode ends and truncations are told apart."""

from __future__ import annotations

import torch
from torch import Tensor

from brickyard.losses._contracts import check_number, shape, single

__all__ = ["discounted_returns", "gae", "n_step_returns"]


@torch.no_grad()
def discounted_returns(
    rewards: Tensor, dones: Tensor, gamma: float = 0.99, truncated: Tensor | None = None,
    next_values: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the discounted sum of rewards from each step to the end of its episode.

    Math:
        G_t = r_t                   if the episode ended (done)
            = r_t + gamma*V(s_t+1)  if it was cut off (truncated, or the last step given)
            = r_t + gamma*G_t+1     otherwise

    Args:
        rewards: ``(T,)`` or ``(T, N)`` for N environments side by side.
        dones: in the shape of ``rewards``; true where the episode ended by itself. Nothing
            follows such a step.
        gamma: discount, 0 to 1.
        truncated: in the shape of ``rewards``; true where a time limit cut the episode off.
            What would have followed is then ``next_values``.
        next_values: values of the states that each step led to, before any reset; needed with
            ``truncated``. Without it the last step is taken as the end.

    Returns:
        The returns, in the shape of ``rewards``.

    Raises:
        ValueError: shapes differ, ``gamma`` is outside [0, 1], truncation without values.

    Example:
        >>> discounted_returns(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0, 0, 1]), gamma=0.5)
        tensor([1.7500, 1.5000, 1.0000])

    Reference:
        Sutton & Barto 2018, Reinforcement Learning, eq. 3.8; time limits: Pardo et al. 2018,
        Time Limits in Reinforcement Learning, section 3.
    """
    who = "discounted_returns"
    rewards, ended, cut = _open(who, rewards, dones, truncated, gamma)
    if truncated is not None and next_values is None:
        raise ValueError(f"{who}: truncated episodes go on unseen: give next_values for them")
    after = torch.zeros_like(rewards) if next_values is None else _same(who, rewards, next_values)
    cut[-1] = True
    found = torch.empty_like(rewards)
    following = torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        following = torch.where(cut[t], after[t], following)
        following = rewards[t] + gamma * torch.where(ended[t], 0, following)
        found[t] = following
    return found


@torch.no_grad()
def gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, dones: Tensor, gamma: float = 0.99,
    lam: float = 0.95, truncated: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return generalized advantage estimates; add ``values`` for the targets of the critic.

    Math:
        delta_t = r_t + gamma*V(s_t+1)*(1 - done_t) - V(s_t)
        A_t = delta_t + gamma*lam*(1 - done_t)*(1 - truncated_t)*A_t+1

    Args:
        rewards: ``(T,)`` or ``(T, N)``.
        values: values of the states, in the shape of ``rewards``.
        next_values: values of the states that each step led to, before any reset.
        dones: true where the episode ended by itself: nothing follows, nothing is bootstrapped.
        gamma: discount, 0 to 1.
        lam: 0 is the one-step advantage, 1 the discounted return minus the value.
        truncated: true where a time limit cut the episode off: the value is bootstrapped, the
            sum stops.

    Returns:
        The advantages, in the shape of ``rewards``, without gradients.

    Raises:
        ValueError: shapes differ, ``gamma`` or ``lam`` is outside [0, 1].

    Example:
        >>> reward, value = torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5])
        >>> gae(reward, value, torch.tensor([0.5, 9.0]), torch.tensor([0, 1]), 1.0, 1.0)
        tensor([1.5000, 0.5000])

    Reference:
        Schulman et al. 2016, High-Dimensional Continuous Control Using Generalized Advantage
        Estimation, eq. 11 and 16.
    """
    rewards, ended, cut = _open("gae", rewards, dones, truncated, gamma)
    check_number("gae", "lam", lam, 0.0, 1.0)
    values, after = _same("gae", rewards, values), _same("gae", rewards, next_values)
    delta = rewards + gamma * torch.where(ended, 0, after) - values
    goes_on = ~(ended | cut)
    found = torch.empty_like(rewards)
    advantage = torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        advantage = delta[t] + gamma * lam * torch.where(goes_on[t], advantage, 0)
        found[t] = advantage
    return found


@torch.no_grad()
def n_step_returns(
    rewards: Tensor, next_values: Tensor, dones: Tensor, n: int, gamma: float = 0.99,
    truncated: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return n steps of reward plus the value of the state after them.

    Math:
        R_t = sum_{k<m} gamma^k*r_t+k + gamma^m*V(s_t+m), m = n or the steps up to the cut or the
        last step given; without the value if the episode ended there

    Args:
        rewards: ``(T,)`` or ``(T, N)``.
        next_values: values of the states that each step led to, before any reset.
        dones: true where the episode ended by itself.
        n: steps of reward; at least 1.
        gamma: discount, 0 to 1.
        truncated: true where a time limit cut the episode off.

    Returns:
        The returns, in the shape of ``rewards``.

    Raises:
        ValueError: shapes differ, ``n`` is below 1, ``gamma`` is outside [0, 1].

    Example:
        >>> ones, none = torch.ones(3), torch.zeros(3)
        >>> n_step_returns(ones, 4 * ones, none, n=2, gamma=0.5)
        tensor([2.5000, 2.5000, 3.0000])

    Reference:
        Sutton & Barto 2018, Reinforcement Learning, eq. 7.1.
    """
    rewards, ended, cut = _open("n_step_returns", rewards, dones, truncated, gamma)
    check_number("n_step_returns", "n", n, 1)
    after = torch.where(ended, 0, _same("n_step_returns", rewards, next_values))
    stops = ended | cut
    stops[-1] = True
    found = torch.zeros_like(rewards)
    alive = torch.ones_like(stops)
    for k in range(min(n, len(rewards))):
        here = slice(None, len(rewards) - k)
        there = slice(k, None)
        last = alive[here] & (stops[there] if k < n - 1 else True)
        found[here] += gamma**k * torch.where(alive[here], rewards[there], 0)
        found[here] += gamma ** (k + 1) * torch.where(last, after[there], 0)
        alive[here] &= ~stops[there]
    return found


def _open(
    who: str, rewards: Tensor, dones: Tensor, truncated: Tensor | None, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Check; return rewards, ends and cuts."""
    check_number(who, "gamma", gamma, 0.0, 1.0)
    if rewards.dim() == 0 or len(rewards) == 0:
        raise ValueError(f"{who}: rewards must hold at least one step; got {shape(rewards)}")
    rewards = single(rewards) if rewards.is_floating_point() else rewards.float()
    ended = _same(who, rewards, dones).bool()
    if truncated is None:
        return rewards, ended, torch.zeros_like(ended)
    return rewards, ended, _same(who, rewards, truncated).bool()


def _same(who: str, rewards: Tensor, other: Tensor) -> Tensor:
    if other.shape != rewards.shape:
        raise ValueError(
            f"{who}: everything must have the shape of rewards, {shape(rewards)}; got "
            f"{shape(other)}"
        )
    return other.to(rewards.dtype)
