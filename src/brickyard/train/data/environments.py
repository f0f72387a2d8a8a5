"""Read an environment as data: its samples are the seeds of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from brickyard.catalog import brick
from brickyard.errors import DataError
from brickyard.train.data.base import Data, Split, fingerprint
from brickyard.train.data.batching import mix_seed

__all__ = ["gymnasium"]

#: Seeds that every environment takes.
_SEEDS = 1 << 31


@brick(
    "data", "gymnasium", aliases=("cartpole", "environment"), public="brickyard.train.data",
    task="environment", needs=("gymnasium",), extra="rl",
    summary="Any environment of gymnasium with discrete actions, by its id; CartPole by default.",
    use_when="An agent learns by acting: with the tasks policy and dqn.",
    avoid_when="Actions are continuous: none of the tasks here takes them.",
    best_for="CartPole-v1, Acrobot-v1, LunarLander-v3, and small environments of your own.",
    paper="Towers et al. 2024, Gymnasium, arXiv:2407.17032; CartPole: Barto, Sutton & Anderson "
    "1983, Neuronlike adaptive elements",
    tune_first="val: 100 episodes give a mean return to a tenth of its spread.",
    cost="Stepping the environment, in this process; CartPole takes some microseconds a step.",
    pairs_with=("mlp", "policy_gradient", "td", "mean_return"),
)  # fmt: skip
def gymnasium(
    id: str = "CartPole-v1", episodes: int = 256, val: int = 50, max_steps: int | None = None,
    options: Mapping[str, Any] | None = None, seed: int = 0,
) -> Data:  # fmt: skip
    """Make an environment's episodes data: a sample is a seed, from which an episode starts.

    Training and validation start from other seeds. Observations are flattened; actions are whole
    numbers. What an epoch means is the number of training episodes, for lengths such as ``5ep``.

    Args:
        id: the environment's, as ``gymnasium.make`` takes it; ``package.module:Name-v0`` imports
            the module that registers it first.
        episodes: training seeds of an epoch.
        val: validation seeds.
        max_steps: steps after which an episode is cut off; the environment's own limit when left
            out.
        options: further options of the environment.
        seed: draws the episodes' seeds.

    Raises:
        DataError: there is no such environment, or its actions are not discrete.

    Example:
        >>> data = gymnasium("CartPole-v1", val=10)
        >>> data.input_shape, data.outputs, len(data.val)
        ((4,), 2, 10)

    Reference:
        Towers et al. 2024, Gymnasium: A Standard Interface for Reinforcement Learning
        Environments, arXiv:2407.17032.
    """
    from brickyard.train.playing import Game

    for name, value in (("episodes", episodes), ("val", val)):
        if value < 1:
            raise DataError(f"{name} must be 1 or more; got {value}")
    game = Game(id, max_steps, dict(options or {}))
    features, actions = game.sizes()
    seeds = [mix_seed(seed, i) % (_SEEDS // 2) for i in range(episodes)]
    held = [mix_seed(seed, i) % (_SEEDS // 2) + _SEEDS // 2 for i in range(val)]
    train, test = (Split(torch.tensor(s), torch.tensor(s)) for s in (seeds, held))
    facts = {
        "source": f"gymnasium, {id}", "environment": game.to_dict(),
        "split": "episodes of other seeds", "fingerprint": fingerprint(train, test, name=f"{game}"),
    }  # fmt: skip
    return Data(id, "environment", train, test, (features,), actions, facts=facts)
