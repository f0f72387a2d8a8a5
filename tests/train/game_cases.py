"""Recipes of GANs and agents, small enough for tests, and an environment of their own."""

import copy
import json

import gymnasium
import torch

import brickyard.nn
import brickyard.train.data.environments
import brickyard.train.metrics_games  # noqa: F401  their cards
from brickyard.train import resolve
from brickyard.train.progress import ProgressLines
from brickyard.train.setup import build_setup

ADAM = {"name": "adam", "lr": 2e-3, "betas": [0.5, 0.9]}
GAN = {
    "name": "gan",
    "data": {"name": "digits", "val": 0.3},
    "task": {
        "name": "gan", "critic_steps": 2, "latent": 4, "critic_optimizer": ADAM,
        "penalty": {"name": "gradient_penalty", "weight": 1.0},
    },
    "model": {
        "name": "generator_and_critic", "generator": {"name": "mlp", "hidden": [16]},
        "critic": {"name": "mlp", "hidden": [16]},
    },
    "loss": "wasserstein", "optimizer": ADAM, "metrics": ["sliced_wasserstein"],
    "batch_size": 100, "budget": 12, "evaluate_every": 4, "log_every": 3, "checkpoint_every": 5,
    "threads": 1,
}  # fmt: skip
POLICY = {
    "name": "policy", "data": {"name": "gymnasium", "val": 4, "episodes": 20}, "task": "policy",
    "model": {"name": "mlp", "hidden": [8], "activation": "tanh"},
    "loss": {"name": "policy_gradient", "entropy_weight": 0.01},
    "optimizer": {"name": "adam", "lr": 1e-2}, "metrics": ["mean_return"], "batch_size": 3,
    "budget": 9, "evaluate_every": 4, "log_every": 2, "checkpoint_every": 5, "threads": 1,
}  # fmt: skip
REINFORCE = {**POLICY, "task": {"name": "policy", "entropy": 0.01}}
PPO = {**POLICY, "task": {"name": "policy", "updates": 3, "lam": 0.95}, "loss": "ppo_clip"}
AGENT = {
    **POLICY, "name": "dqn", "loss": {"name": "td", "double": True},
    "task": {"name": "dqn", "start": 40, "sample": 16, "target_every": 6, "updates": 2,
             "explore_for": 20, "replay": 100},
    "budget": 50, "evaluate_every": 20, "log_every": 7, "checkpoint_every": 15,
}  # fmt: skip


EMA = [{"name": "ema", "decay": 0.8}]


def changed(recipe, **changes):
    made = copy.deepcopy(recipe)
    for path, value in changes.items():
        *way, last = path.split("__")
        at = made
        for key in way:
            at = at[key]
        at[last] = value
    return made


def set_up(recipe):
    return build_setup(resolve(recipe))


def rows_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


class Killed(Exception):  # noqa: N818
    pass


class DieAt(ProgressLines):
    """Break off without a checkpoint, as a kill does."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def boundary(self, loop):
        if loop.state.step >= self.step:
            raise Killed


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


class Corridor(gymnasium.Env):
    """Walk right from a place that the seed draws; the end at 6 pays 10, every step costs 1."""

    observation_space = gymnasium.spaces.Discrete(7)
    action_space = gymnasium.spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(0, 3))
        return self.at, {}

    def step(self, action):
        self.at = max(0, self.at + (1 if action == 6 else -1))
        over = self.at == 6
        return self.at, 10.0 if over else -1.0, over, False, {}


gymnasium.register("Corridor-v0", entry_point=Corridor, max_episode_steps=8)
