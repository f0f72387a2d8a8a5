"""What tasks share whose samples are episodes: players, greedy evaluation, what they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.train.data import Data
from brickyard.train.playing import Game, Player, greedy
from brickyard.train.tasks.base import Task
from brickyard.train.tasks.refusals import refuse, refuse_regularizers

if TYPE_CHECKING:
    from brickyard.train.recipe import Recipe

__all__ = ["Episodes"]


class Episodes(Task):
    """Play episodes of the data's environment; in evaluation, without exploring.

    Args:
        data: says which environment.
    """

    held_out_loss = False
    given = "observations of the environment, flattened"
    meaning = "It returns a score for every action: the greatest is taken, `scores.argmax(1)`."

    def __init__(self, data: Data):
        self.game = Game(**data.facts["environment"])
        self.actions = self.outputs = data.outputs
        self._greedy: list[Player] = []

    def check(self, recipe: Recipe) -> None:
        """Refuse what has no meaning for episodes."""
        refuse(
            recipe,
            precision=f"{self.name} plays with the weights in fp32, and the step must use the same",
            compile=f"{self.name} calls the network with another number of states each time, and "
            "compiling it anew takes longer than the call",
            augmentation=f"the samples of {self.name} are seeds of episodes, and nothing changes "
            "them but another seed",
        )
        refuse_regularizers(
            recipe, snapshot_ensemble="mean of several agents' outputs is no agent that was judged"
        )

    def scores(self, model: Any, states: Tensor) -> Tensor:
        """Return the score of every action (N, actions) for states (N, features)."""
        return model(states)

    def evaluate(self, model: nn.Module, seeds: Tensor) -> Tensor:
        """Return the returns (N,) of the seeds' episodes, played greedily."""
        device = next(model.parameters()).device
        many = self.players(self._greedy, len(seeds))
        return greedy(many, seeds.tolist(), lambda states: self.scores(model, states.to(device)))

    def exported(self, model: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
        """Return the network that acts, and the first observations of the seeds' episodes."""
        players = self.players(self._greedy, len(x))
        for player, seed in zip(players, x.tolist(), strict=False):
            player.reset(seed)
        return model, torch.from_numpy(np.stack([player.state for player in players[: len(x)]]))

    def players(self, known: list[Player], count: int) -> list[Player]:
        """Return ``known`` with as many players as there are episodes side by side."""
        known += [Player(self.game) for _ in range(count - len(known))]
        return known

    def scored(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the episodes' returns and seeds."""
        return output, y


class Means:
    """Average figures between two training rows.

    Args:
        names: of the figures.
    """

    def __init__(self, names: Sequence[str]):
        self.sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in names}

    def add(self, name: str, total: float, count: int = 1) -> None:
        """Add the sum of ``count`` values."""
        self.sums[name][0] += total
        self.sums[name][1] += count

    def take(self) -> dict[str, float]:
        """Return the means of what was added since the last call."""
        found = {name: total / count for name, (total, count) in self.sums.items() if count}
        self.sums = {name: [0.0, 0.0] for name in self.sums}
        return found
