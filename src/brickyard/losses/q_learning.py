"""The temporal-difference loss of Q functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_modes,
    check_number,
    check_values,
    extremes,
    reduce,
    shape,
    single,
)
from brickyard.losses.reinforcement import Kind, check_kind, value_error

__all__ = ["TDLoss", "td_loss"]

_FIELDS = ("state", "action", "reward", "next_state", "done")


def td_loss(
    q: Callable[[Any], Tensor], q_target: Callable[[Any], Tensor], batch: Any,
    sample_weight: Tensor | None = None, gamma: float = 0.99, double: bool = False,
    kind: str = "mse", delta: float = 1.0, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the temporal-difference error of a Q function; see :class:`TDLoss`."""
    who = "td_loss"
    check_modes(who, reduction, validate)
    check_number(who, "gamma", gamma, 0.0, 1.0)
    check_kind(who, kind, delta)
    state, action, reward, next_state, done = _fields(who, batch)
    scores = q(state)
    _check_batch(who, scores, action, reward, done)
    with torch.no_grad():
        after = single(q_target(next_state))
        if double:
            best = q(next_state).argmax(1, keepdim=True)
            future = after.gather(1, best).squeeze(1)
        else:
            future = after.amax(1)
        future = torch.where(done.bool(), 0, future)
        target = reward.to(future.dtype) + gamma * future
    chosen = scores.gather(1, action.long().unsqueeze(1)).squeeze(1)
    chosen, target = check_values(who, chosen, target, reduction, validate, "q and target")
    return reduce(who, value_error(chosen, target, kind, delta), reduction, sample_weight)


def _fields(who: str, batch: Any) -> list[Any]:
    """Return the five parts of a batch: a mapping, or an object with these attributes."""
    found = []
    for name in _FIELDS:
        if isinstance(batch, Mapping) and name in batch:
            found.append(batch[name])
        elif not isinstance(batch, Mapping) and hasattr(batch, name):
            found.append(getattr(batch, name))
        else:
            has = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(
                f"{who}: batch must hold {', '.join(_FIELDS)}; {name!r} is not in {has}"
            )
    return found


def _check_batch(who: str, scores: Tensor, action: Tensor, reward: Tensor, done: Tensor) -> None:
    if scores.dim() != 2:
        raise ValueError(f"{who}: q must return (N, actions); got {shape(scores)}")
    count, actions = scores.shape
    for name, part in (("action", action), ("reward", reward), ("done", done)):
        if part.shape != (count,):
            raise ValueError(
                f"{who}: {name} must have shape ({count},), as q returned {shape(scores)}; got "
                f"{shape(part)}"
            )
    if action.is_floating_point():
        raise TypeError(f"{who}: action must hold integers; got {action.dtype}")
    found = extremes(action)
    if found is not None and not (found[0] >= 0 and found[1] < actions):
        raise ValueError(
            f"{who}: action must lie in [0, {actions}), as q returned {shape(scores)}; got "
            f"{found[0]:g} to {found[1]:g}"
        )


@brick(
    "loss", "td", aliases=("q_learning",), public="brickyard.losses", output="other",
    target="none",
    summary="Error of Q against reward plus the discounted best Q of the next state.",
    use_when="Few discrete actions and a replay buffer: DQN and its double form.",
    avoid_when="Actions are continuous, or data come straight from the policy in use.",
    best_for="DQN, double DQN.",
    paper="Mnih et al. 2015, Human-level control through deep reinforcement learning, algorithm 1",
    tune_first="how often the target network is copied, then kind='huber', then double=True",
    cost="One pass of q and one of the target (two of q if double).",
    pairs_with=("value", "adam"),
)  # fmt: skip
class TDLoss(Loss):
    """Measure the temporal-difference error of a Q function.

    The target has no gradient. ``done`` is true where the episode ended by itself; where a time
    limit cut it off, pass false, so that the next state's value still counts.

    Math:
        y_i = r_i + gamma * (1 - done_i) * max_a Qtarget(s'_i, a)
        double: y_i = r_i + gamma * (1 - done_i) * Qtarget(s'_i, argmax_a Q(s'_i, a))
        mse: l_i = 0.5*(Q(s_i, a_i) - y_i)^2;  huber: Huber's loss of the same difference

    Args:
        gamma: discount, 0 to 1.
        double: choose the next action with ``q``, value it with the target network.
        kind: ``"mse"`` or ``"huber"``.
        delta: error from which ``"huber"`` is linear; above 0.
        reduction: ``"mean"`` over the batch (weighted when ``sample_weight`` is given, as for
            prioritized replay), ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of actions;
            ``"full"`` also refuses non-finite values.

    Shape:
        batch: a mapping or object with state, action ``(N,)``, reward ``(N,)``, next_state and
        done ``(N,)``; both networks map states to ``(N, actions)``.

    Raises:
        ValueError: a field is missing, shapes do not match, an action is out of range.
        TypeError: actions are not integers.

    Example:
        >>> import torch
        >>> batch = dict(state=torch.zeros(1, 2), action=torch.tensor([1]),
        ...              reward=torch.tensor([1.0]), next_state=torch.tensor([[4.0, 2.0]]),
        ...              done=torch.tensor([False]))
        >>> TDLoss(gamma=0.5)(torch.nn.Identity(), torch.nn.Identity(), batch)  # y = 3
        tensor(4.5000)

    Reference:
        Mnih et al. 2015, Human-level control through deep reinforcement learning, algorithm 1;
        van Hasselt et al. 2016, Deep Reinforcement Learning with Double Q-learning, eq. 4.
    """

    def __init__(
        self, gamma: float = 0.99, double: bool = False, kind: Kind = "mse", delta: float = 1.0,
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("TDLoss", "gamma", gamma, 0.0, 1.0)
        check_kind("TDLoss", kind, delta)
        self.gamma, self.uses_double, self.kind, self.delta = gamma, double, kind, delta

    def forward(
        self, q: Callable[[Any], Tensor], q_target: Callable[[Any], Tensor], batch: Any,
        sample_weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the loss of ``q`` on a batch of transitions."""
        return td_loss(
            q, q_target, batch, sample_weight, self.gamma, self.uses_double, self.kind, self.delta,
            self.reduction, self.validate,
        )  # fmt: skip
