"""Policy gradients: play with the present policy, then make good actions likelier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from brickyard.catalog import Card, brick
from brickyard.errors import RecipeError
from brickyard.losses.reinforcement import value_loss
from brickyard.losses.returns import gae
from brickyard.train.data import Data
from brickyard.train.playing import Episode, Player, acting, play
from brickyard.train.tasks.base import Batch, inputs_of
from brickyard.train.tasks.episodes import Episodes, Means

if TYPE_CHECKING:
    from brickyard.train.recipe import Recipe

__all__ = ["ActorCritic", "Policy"]

_ON_POLICY = ["log_prob", "advantage"]
_REUSING = ["log_prob", "old_log_prob", "advantage"]


class ActorCritic(nn.Module):
    """Hold a policy and, if there is one, a network that guesses what states are worth.

    Args:
        policy: from states (N, features) to logits (N, actions).
        value: from states to values (N, 1).
    """

    def __init__(self, policy: nn.Module, value: nn.Module | None = None):
        super().__init__()
        self.policy, self.value = policy, value

    def forward(self, states: Tensor) -> Tensor:
        """Return the policy's logits (N, actions)."""
        return self.policy(states)

    def values(self, states: Tensor) -> Tensor:
        """Return what states are worth (N,); zeros without a value network."""
        if self.value is None:
            return torch.zeros(len(states), device=states.device)
        return self.value(states).squeeze(-1)


@dataclass(frozen=True)
class Acted:
    """Hold what the present networks say of the actions that were taken.

    Args:
        log_prob: of each action, (M,).
        entropy: of the policy in each state, (M,).
        value: of each state, (M,).
    """

    log_prob: Tensor
    entropy: Tensor
    value: Tensor


@brick(
    "task", "policy", aliases=("actor_critic", "ppo", "a2c"), public="brickyard.train.tasks",
    takes=("environment",),
    summary="Play whole episodes with the present policy and make good actions likelier.",
    use_when="Actions are few and discrete, and episodes are cheap to play: REINFORCE, or PPO with "
    "the loss ppo_clip.",
    avoid_when="A step of the environment is expensive: dqn uses each one many times.",
    best_for="CartPole and other short games; the loss policy_gradient with a value network.",
    paper="Williams 1992, Simple Statistical Gradient-Following Algorithms; PPO: Schulman et al. "
    "2017, arXiv:1707.06347",
    tune_first="The rate; then batch_size, the number of episodes a step, and entropy when the "
    "policy gets sure too early.",
    cost="Playing takes most of the time. One forward and backward pass over all states of the "
    "episodes for each step.",
    pairs_with=("policy_gradient", "ppo_clip", "mean_return", "gymnasium", "clip_by_global_norm"),
)  # fmt: skip
class Policy(Episodes):
    """Play a batch of episodes, compare what followed each action with what was expected.

    A step plays one episode for each seed of the batch, with actions drawn from the policy by
    torch's generator. The recipe's model is built twice: as the policy, with an output for each
    action, and as the value network, with one. Episodes that a limit of steps cuts off are valued
    on from their last state; without a value network the cut counts as the end.

    Math:
        A_t = sum_k (gamma lam)^k (r_(t+k) + gamma V(s_(t+k+1)) - V(s_(t+k))), standardised
        loss = loss(log pi(a_t|s_t), A_t) - entropy H(pi(.|s_t))
               + value_weight huber(V(s_t), A_t + V_old(s_t))

    Args:
        data: the environment.
        loss: the loss's card.
        gamma: discount.
        lam: 1 for whole returns, as in REINFORCE; less trusts the value network more.
        baseline: ``"value"`` trains a value network; ``"none"`` leaves the mean of the batch.
        normalize: take the batch's mean off the advantages and divide by their deviation.
        entropy: bonus for a policy that stays undecided.
        value_weight: of the value network's loss.
        updates: steps of the optimizer on the same episodes; more than one for ``ppo_clip`` alone.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> from brickyard.train.data import gymnasium
        >>> Policy(gymnasium(val=10), gamma=0.98).actions
        2

    Reference:
        Williams 1992, eq. 11; Schulman et al. 2016, eq. 16; Schulman et al. 2017, algorithm 1.
    """

    name = "policy"
    wants = "log-probabilities of actions and their advantages"

    def __init__(
        self, data: Data, loss: Card | None = None, gamma: float = 0.99, lam: float = 1.0,
        baseline: Literal["value", "none"] = "value", normalize: bool = True,
        entropy: float = 0.0, value_weight: float = 1.0, updates: int = 1,
    ):  # fmt: skip
        super().__init__(data)
        for name, value in (("gamma", gamma), ("lam", lam)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 to 1; got {value}")
        for name, value in (("entropy", entropy), ("value_weight", value_weight)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more; got {value}")
        self.reuses = loss is not None and inputs_of(loss) == _REUSING
        if updates < 1 or (updates > 1 and loss is not None and not self.reuses):
            raise ValueError(
                f"updates={updates}: a policy gradient is right for the policy that played, so "
                f"after a step new episodes must be played; take updates: 1, or the loss ppo_clip"
            )
        self.gamma, self.lam, self.baseline = gamma, lam, baseline
        self.normalize, self.entropy, self.value_weight = normalize, entropy, value_weight
        self.updates, self.left = updates, 0
        self.played: dict[str, Tensor] = {}
        self._players: list[Player] = []
        self._means = Means(("mean_return", "entropy", "value_loss"))

    def takes(self, loss: Card) -> bool:
        """Say whether a loss weighs log-probabilities by advantages."""
        return inputs_of(loss) in (_ON_POLICY, _REUSING)

    def build(self, make: Callable[..., nn.Module], data: Data) -> ActorCritic:
        """Return the recipe's model as policy and as value network."""
        policy = make(input_shape=data.input_shape, outputs=data.outputs)
        if self.baseline == "none":
            return ActorCritic(policy)
        return ActorCritic(policy, make(input_shape=data.input_shape, outputs=1))

    def prepare(self, model: Any, window: Sequence[Batch]) -> Sequence[Batch]:
        """Play the episodes of the batches' seeds, unless the last ones are used again."""
        if self.left == 0:
            seeds = torch.cat([seeds for seeds, _ in window]).tolist()
            device = window[0][0].device
            with acting(model):
                episodes = play(
                    self.players(self._players, len(seeds)), seeds,
                    lambda states: model(states.to(device)).softmax(1).multinomial(1)
                    .squeeze(1).tolist(),
                )  # fmt: skip
                self.played = self._look_back(model, episodes, device)
            returns = sum(float(one.rewards.sum()) for one in episodes)
            self._means.add("mean_return", returns, len(episodes))
            self.left = self.updates
        self.left -= 1
        return window[-1:]

    def _look_back(
        self, model: Any, episodes: Sequence[Episode], device: torch.device
    ) -> dict[str, Tensor]:
        """Return states and actions of all episodes, one after the other, and what they led to."""
        lengths = [len(one.actions) for one in episodes]
        states = torch.cat([one.states[:-1] for one in episodes]).to(device)
        actions = torch.cat([one.actions for one in episodes]).to(device)
        values = [model.values(one.states.to(device)).cpu() for one in episodes]
        rewards = pad_sequence([one.rewards for one in episodes])
        last = torch.tensor(lengths) - 1
        final = torch.arange(len(rewards))[:, None] == last
        ended = torch.tensor([one.ended or self.baseline == "none" for one in episodes])
        advantages = gae(
            rewards, pad_sequence([v[:-1] for v in values]), pad_sequence([v[1:] for v in values]),
            final & ended, self.gamma, self.lam, truncated=final & ~ended,
        )  # fmt: skip
        advantage = torch.cat([advantages[:n, i] for i, n in enumerate(lengths)]).to(device)
        value = torch.cat([v[:-1] for v in values]).to(device)
        returns = advantage + value
        if self.normalize and len(advantage) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        log_prob = model(states).log_softmax(1).gather(1, actions[:, None]).squeeze(1)
        return {"states": states, "actions": actions, "advantage": advantage, "returns": returns,
                "log_prob": log_prob}  # fmt: skip

    def forward(self, model: Any, x: Tensor) -> Acted | Tensor:
        """Return what the networks say of the actions; in eval mode, the episodes' returns."""
        if not model.training:
            return self.evaluate(model, x)
        played = self.played
        logs = model(played["states"]).log_softmax(1)
        log_prob = logs.gather(1, played["actions"][:, None]).squeeze(1)
        return Acted(log_prob, -(logs.exp() * logs).sum(1), model.values(played["states"]))

    def loss(self, criterion: Any, output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of policy and value network on the episodes just played."""
        played = self.played
        given = [played["log_prob"]] if self.reuses else []
        given.append(played["advantage"])
        loss = criterion(output.log_prob, *given, **self._bonus(criterion, output))
        self._means.add("entropy", float(output.entropy.detach().mean()))
        if self.entropy:
            loss = loss - self.entropy * output.entropy.mean()
        if self.baseline == "value":
            error = value_loss(output.value, played["returns"], kind="huber")
            self._means.add("value_loss", float(error.detach()))
            loss = loss + self.value_weight * error
        return loss

    @staticmethod
    def _bonus(criterion: Any, output: Acted) -> dict[str, Tensor]:
        """Return the entropy for losses that weigh it themselves."""
        return {"entropy": output.entropy} if getattr(criterion, "entropy_weight", 0.0) else {}

    def inputs(self, x: Tensor) -> Tensor:
        """Return the states of the last episodes."""
        return self.played["states"]

    def measured(self) -> dict[str, float]:
        """Return the mean return of the played episodes, the entropy and the value's error."""
        return self._means.take()

    def state_dict(self) -> dict[str, Any]:
        """Return the episodes that are used again, and the figures since the last row."""
        return {"left": self.left, "played": self.played if self.left else {},
                "means": self._means.sums}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the saved episodes."""
        self.left, self.played = int(state["left"]), dict(state["played"])
        self._means.sums = {name: list(pair) for name, pair in state["means"].items()}

    def check(self, recipe: Recipe) -> None:
        """Refuse what has no meaning for episodes, or for a policy."""
        super().check(recipe)
        if recipe.accumulate > 1 and self.updates > 1:
            raise RecipeError(
                "accumulate: with updates the same episodes serve several steps, whose batches are "
                "left out; take a larger batch_size instead"
            )
