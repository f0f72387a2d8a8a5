"""Play the episodes of an environment, many side by side, each from a seed of its own.

Where an environment stands is the seed that it was reset with and the actions since: that is what a
checkpoint holds, whatever the environment is made of, and playing them again leads there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.errors import DataError

__all__ = ["Episode", "Game", "Player", "acting", "greedy", "play"]

#: Chooses an action for every state of a batch: (N, features) to N whole numbers.
Choice = Callable[[Tensor], Sequence[int]]


@dataclass(frozen=True)
class Game:
    """Name an environment.

    Args:
        id: as ``gymnasium.make`` takes it.
        max_steps: steps after which an episode is cut off; None for the environment's own limit.
        options: further options of the environment.
    """

    id: str
    max_steps: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the environment as plain data."""
        return {"id": self.id, "max_steps": self.max_steps, "options": dict(self.options)}

    def make(self) -> Any:
        """Return a new environment whose observations are vectors.

        Raises:
            DataError: it cannot be made, or what it shows or takes does not fit.
        """
        import gymnasium

        spaces = gymnasium.spaces
        try:
            made = gymnasium.make(self.id, max_episode_steps=self.max_steps,
                                  disable_env_checker=True, **self.options)  # fmt: skip
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"gymnasium cannot make {self.id!r}: {reason}") from error
        if not isinstance(made.action_space, spaces.Discrete):
            raise DataError(
                f"{self.id} takes actions of {made.action_space}, and the tasks here choose one of "
                "some: take an environment with a Discrete action space"
            )
        seen = made.observation_space
        if isinstance(seen, spaces.Box) and len(seen.shape or ()) == 1:
            return made
        try:
            return gymnasium.wrappers.FlattenObservation(made)
        except (NotImplementedError, ValueError) as error:
            raise DataError(f"{self.id}: observations of {seen} cannot be flattened") from error

    def sizes(self) -> tuple[int, int]:
        """Return the numbers of an observation, and how many actions there are."""
        made = self.make()
        try:
            return int(made.observation_space.shape[0]), int(made.action_space.n)
        finally:
            made.close()


class Player:
    """Hold one environment in the middle of an episode.

    Args:
        game: which environment.
    """

    def __init__(self, game: Game):
        self.env = game.make()
        self.first = int(getattr(self.env.action_space, "start", 0))
        self.seed, self.actions, self.total = -1, list[int](), 0.0
        self.state = np.zeros(0, np.float32)

    def reset(self, seed: int) -> None:
        """Begin the episode of a seed."""
        state, _ = self.env.reset(seed=seed)
        self.seed, self.actions, self.total = seed, [], 0.0
        self.state = np.asarray(state, np.float32)

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Act; return the reward, whether the episode ended by itself, whether it was cut off."""
        state, reward, ended, cut, _ = self.env.step(self.first + action)
        self.actions.append(action)
        self.total += float(reward)
        self.state = np.asarray(state, np.float32)
        return float(reward), bool(ended), bool(cut)

    def state_dict(self) -> dict[str, Any]:
        """Return where the episode stands."""
        return {"seed": self.seed, "actions": list(self.actions)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the saved episode again, up to where it stood."""
        self.reset(int(state["seed"]))
        for action in state["actions"]:
            self.step(int(action))


@dataclass(frozen=True)
class Episode:
    """Hold an episode.

    Args:
        states: (T + 1, features); the last one is what the last action led to.
        actions: (T,), int64.
        rewards: (T,).
        ended: it ended by itself; else a limit of steps cut it off.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    ended: bool


def play(players: Sequence[Player], seeds: Sequence[int], choose: Choice) -> list[Episode]:
    """Play one episode on each player, from start to end.

    Args:
        players: as many as seeds, or more.
        seeds: of the episodes.
        choose: chooses actions for the states of the episodes that still run.
    """
    paths, rewards, ended = [], [[] for _ in seeds], [False for _ in seeds]
    for player, seed in zip(players, seeds, strict=False):
        player.reset(seed)
        paths.append([player.state])
    running = list(range(len(seeds)))
    while running:
        states = torch.from_numpy(np.stack([players[i].state for i in running]))
        still = []
        for i, action in zip(running, choose(states), strict=True):
            reward, ended[i], cut = players[i].step(int(action))
            paths[i].append(players[i].state)
            rewards[i].append(reward)
            if not (ended[i] or cut):
                still.append(i)
        running = still
    return [
        Episode(torch.from_numpy(np.stack(paths[i])), torch.tensor(players[i].actions),
                torch.tensor(rewards[i], dtype=torch.float32), ended[i])
        for i in range(len(seeds))
    ]  # fmt: skip


def greedy(
    players: Sequence[Player], seeds: Sequence[int], scores: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the returns (N,) of episodes in which the action with the highest score is taken.

    Args:
        players: as many as seeds, or more.
        seeds: of the episodes.
        scores: of the actions, (N, actions) for states (N, features).
    """
    for player, seed in zip(players, seeds, strict=False):
        player.reset(seed)
    running = list(players[: len(seeds)])
    while running:
        states = torch.from_numpy(np.stack([player.state for player in running]))
        chosen = scores(states).argmax(1).tolist()
        running = [
            player for player, action in zip(running, chosen, strict=True)
            if not any(player.step(action)[1:])
        ]  # fmt: skip
    return torch.tensor([player.total for player in players[: len(seeds)]])


@contextmanager
def acting(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode without gradients, as it acts; afterwards it is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
