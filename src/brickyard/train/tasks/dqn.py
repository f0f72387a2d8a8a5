"""Deep Q-learning: replayed transitions, and a target network that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.catalog import Card, brick
from brickyard.errors import RecipeError
from brickyard.schedules import Length
from brickyard.train.data import Data
from brickyard.train.data.batching import mix_seed
from brickyard.train.playing import Player, acting
from brickyard.train.tasks.base import Batch, inputs_of
from brickyard.train.tasks.episodes import Episodes, Means

if TYPE_CHECKING:
    from brickyard.train.recipe import Recipe

__all__ = ["DQN", "Replay"]


class Replay:
    """Keep the latest transitions; the oldest make room for new ones.

    Args:
        size: how many.
        features: numbers of a state.
    """

    def __init__(self, size: int, features: int):
        self.parts = {
            "state": torch.zeros(size, features),
            "action": torch.zeros(size, dtype=torch.long),
            "reward": torch.zeros(size),
            "next_state": torch.zeros(size, features),
            "done": torch.zeros(size, dtype=torch.bool),
        }
        self.size, self.count = size, 0

    def __len__(self) -> int:
        """Return how many transitions there are."""
        return min(self.count, self.size)

    def add(self, **values: Any) -> None:
        """Add transitions: arrays (n, ...) of every part by name."""
        first = len(values["action"]) - self.size  # of more than fit, the last ones stay
        for name, part in self.parts.items():
            given = torch.as_tensor(np.asarray(values[name]))[max(0, first) :].to(part.dtype)
            part[(self.count + max(0, first) + torch.arange(len(given))) % self.size] = given
        self.count += len(values["action"])

    def sample(self, size: int, device: torch.device) -> dict[str, Tensor]:
        """Return ``size`` transitions, drawn with replacement by torch's generator."""
        rows = torch.randint(0, len(self), (size,))
        return {name: part[rows].to(device) for name, part in self.parts.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the transitions that there are."""
        kept = {name: part[: len(self)].clone() for name, part in self.parts.items()}
        return {"count": self.count, "parts": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put saved transitions back."""
        self.count = int(state["count"])
        for name, part in state["parts"].items():
            self.parts[name][: len(part)] = part


@brick(
    "task", "dqn", aliases=("q_network", "double_dqn"), public="brickyard.train.tasks",
    takes=("environment",),
    summary="Learn what every action is worth from replayed transitions, and take the best one.",
    use_when="Actions are few and discrete, and a step of the environment is worth using many "
    "times.",
    avoid_when="Episodes are cheap and short: policy is quieter and easier to tune.",
    best_for="Games with a screen or a handful of numbers, and some ten actions.",
    paper="Mnih et al. 2015, Human-level control through deep reinforcement learning; double: van "
    "Hasselt et al. 2016, arXiv:1509.06461",
    tune_first="The rate and target_every together; then the loss's double: true; then how long "
    "explore_for lasts.",
    cost="A copy of the network, and replay x (2 features + 3) numbers in memory and in each "
    "checkpoint; per step a forward and backward pass, and one or two of the target network.",
    pairs_with=("td", "mean_return", "gymnasium", "clip_by_global_norm"),
)  # fmt: skip
class DQN(Episodes):
    """Act, remember, and fit the network to rewards plus what its own copy expects next.

    The batch size is the number of environments side by side; the batch's seeds start those
    whose episodes have ended. Before a step each of them acts once (with ``updates`` above 1, only
    before every so many steps): the best action by the network, or with the present chance a random
    one. The gradient is that of ``sample`` remembered transitions. An episode that a limit of steps
    cuts off has not ended: its last state still counts.

    A checkpoint holds the memory, the copy, and for every environment the seed and the actions
    of its episode, which are played again on a resume.

    Math:
        loss = loss(Q, Q_copy, transitions)
        every target_every steps:  copy <- copy + tau (Q - copy)
        chance of a random action: from explore_from to explore_to, linearly, over explore_for

    Args:
        data: the environment.
        sample: transitions of a step.
        replay: transitions that are remembered.
        start: transitions that are played, at random, before the first step.
        updates: steps of the optimizer for every action of each environment.
        target_every: steps after which the copy is renewed.
        tau: how far the copy goes; 1 makes it equal, 0.005 with ``target_every: 1`` lets it follow
            slowly.
        explore_from: chance of a random action at first.
        explore_to: chance of a random action at last.
        explore_for: steps in between: a number, or a share of the run such as ``"20%"``.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> from brickyard.train.data import gymnasium
        >>> DQN(gymnasium(val=10), sample=64).sample
        64

    Reference:
        Mnih et al. 2015, algorithm 1; soft updates: Lillicrap et al. 2016, arXiv:1509.02971.
    """

    name = "dqn"
    wants = "an error of Q values: q, its copy and a batch of transitions"

    def __init__(
        self, data: Data, sample: int = 128, replay: int = 50_000, start: int = 1_000,
        updates: int = 1, target_every: int = 200, tau: float = 1.0, explore_from: float = 1.0,
        explore_to: float = 0.05, explore_for: int | str = "20%",
    ):  # fmt: skip
        super().__init__(data)
        counts = {"sample": sample, "replay": replay, "start": start, "updates": updates,
                  "target_every": target_every}  # fmt: skip
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more; got {value}")
        if start > replay:
            raise ValueError(f"start must be at most replay, {replay}; got {start}")
        for name, value in (("explore_from", explore_from), ("explore_to", explore_to)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 to 1; got {value}")
        if not 0 < tau <= 1:
            raise ValueError(f"tau must be above 0 and at most 1; got {tau}")
        Length.parse(explore_for)
        self.sample, self.start, self.updates = sample, start, updates
        self.target_every, self.tau = target_every, tau
        self.explore_from, self.explore_to = explore_from, explore_to
        self.explore_for = explore_for
        self.memory = Replay(replay, data.input_shape[0])
        self.drawn: dict[str, Tensor] = {}
        self.step = 0
        self._acting: list[Player] = []
        self._means = Means(("mean_return", "q"))

    def takes(self, loss: Card) -> bool:
        """Say whether a loss compares Q values with those of a copy."""
        return inputs_of(loss) == ["q", "q_target", "batch"]

    def check(self, recipe: Recipe) -> None:
        """Refuse what has no meaning for episodes, or for replayed transitions."""
        super().check(recipe)
        if recipe.accumulate > 1:
            raise RecipeError(
                "accumulate: the gradient of dqn is that of `sample` transitions, however large; "
                "give task: {name: dqn, sample: ...} instead"
            )

    def begin(self, model: nn.Module, loss: Any, total: int, epoch: int) -> None:
        """Copy the network, and turn lengths into steps."""
        self.target_model = deepcopy(model).requires_grad_(False).eval()
        self.explored = max(1, Length.parse(self.explore_for).steps(total, epoch))

    @property
    def chance(self) -> float:
        """Return the present chance of a random action."""
        way = min(1.0, self.step / self.explored)
        return self.explore_from + way * (self.explore_to - self.explore_from)

    def prepare(self, model: nn.Module, window: Sequence[Batch]) -> Sequence[Batch]:
        """Act in every environment, and draw transitions for the step."""
        seeds = window[0][0]
        if not self._acting:
            for i, player in enumerate(self.players(self._acting, len(seeds))):
                player.reset(_seed(seeds, i))
        if self.step % self.updates == 0 or len(self.memory) < self.start:
            with acting(model):
                self._act(model, seeds)
                while len(self.memory) < self.start:
                    self._act(model, seeds)
        self.drawn = self.memory.sample(self.sample, seeds.device)
        return window

    def _act(self, model: nn.Module, seeds: Tensor) -> None:
        """Let every environment take one step; those whose episodes end begin anew."""
        many, chance = self._acting, self.chance
        if len(self.memory) < self.start:
            chance = self.explore_from
        states = torch.from_numpy(np.stack([player.state for player in many]))
        scores = model(states.to(seeds.device))
        best = scores.argmax(1).tolist()
        self._means.add("q", float(scores.max(1).values.mean()))
        random = torch.randint(0, self.actions, (len(many),)).tolist()
        explore = (torch.rand(len(many)) < chance).tolist()
        actions = [random[i] if explore[i] else best[i] for i in range(len(many))]
        found = [player.step(action) for player, action in zip(many, actions, strict=True)]
        rewards, ended, cut = zip(*found, strict=True)
        after = np.stack([player.state for player in many])
        self.memory.add(state=states, action=actions, reward=rewards, next_state=after, done=ended)
        for i, player in enumerate(many):
            if ended[i] or cut[i]:
                self._means.add("mean_return", player.total)
                # A batch may have fewer seeds, and one environment may end twice before the next.
                player.reset(_seed(seeds, i, self.memory.count))

    def forward(self, model: nn.Module, x: Tensor) -> Any:
        """Return the network itself for the loss; in eval mode, the episodes' returns."""
        return (model,) if model.training else self.evaluate(model, x)

    def loss(self, criterion: Any, output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the error of the Q values of the drawn transitions."""
        return criterion(output[0], self.target_model, self.drawn)

    def stepped(self, model: nn.Module) -> None:
        """Renew the copy when it is time to."""
        self.step += 1
        if self.step % self.target_every:
            return
        with torch.no_grad():
            own = model.state_dict()
            for name, value in self.target_model.state_dict().items():
                if value.is_floating_point() and self.tau < 1:
                    value.lerp_(own[name], self.tau)
                else:
                    value.copy_(own[name])

    def inputs(self, x: Tensor) -> Tensor:
        """Return the states of the drawn transitions."""
        return self.drawn["state"]

    def measured(self) -> dict[str, float]:
        """Return the mean return of ended episodes, the best Q, and the chance of exploring."""
        return {**self._means.take(), "explore": self.chance}

    def state_dict(self) -> dict[str, Any]:
        """Return the memory, the copy, and where every environment stands."""
        return {
            "step": self.step, "memory": self.memory.state_dict(),
            "target_model": self.target_model.state_dict(),
            "players": [player.state_dict() for player in self._acting],
            "means": self._means.sums,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state: the episodes under way are played again to where they stood."""
        self.step = int(state["step"])
        self.memory.load_state_dict(state["memory"])
        self.target_model.load_state_dict(state["target_model"])
        saved = state["players"]
        many = self.players(self._acting, len(saved))
        for player, position in zip(many, saved, strict=True):
            player.load_state_dict(position)
        self._means.sums = {name: list(pair) for name, pair in state["means"].items()}


def _seed(seeds: Tensor, i: int, more: int = 0) -> int:
    """Return the seed of the next episode of environment ``i``."""
    return mix_seed(int(seeds[i % len(seeds)]), i, more) % (1 << 30)
