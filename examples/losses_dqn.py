"""Double DQN balances CartPole: TDLoss on a replay buffer.

Eight poles fill the buffer. `done` says that a pole fell; at the limit of 500 steps an episode is
cut off, which is no end, so the value of its last state still counts. The target network is a copy
from some steps ago.

`python examples/losses_dqn.py` (torch 2.13.0, CPU, 1 thread):

    seed 0  mean return of 20 episodes 182
    seed 1  mean return of 20 episodes 246
    seed 2  mean return of 20 episodes 246

A number behind the command runs fewer seeds.
"""

import sys

import gymnasium
import numpy as np
import torch

from brickyard import clip, losses, nn, optim, schedules

torch.set_num_threads(1)
SEEDS = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
ROUNDS, POLES, UPDATES, BATCH, COPY = 2_500, 8, 2, 128, 50


class Buffer:
    """Keep transitions; hand out random batches of them."""

    def __init__(self, size):
        self.parts = {
            "state": torch.zeros(size, 4), "action": torch.zeros(size, dtype=torch.long),
            "reward": torch.zeros(size), "next_state": torch.zeros(size, 4),
            "done": torch.zeros(size, dtype=torch.bool),
        }  # fmt: skip
        self.count = 0

    def add(self, *values):
        for part, value in zip(self.parts.values(), values, strict=True):
            part[self.count] = torch.as_tensor(value)
        self.count += 1

    def sample(self, size):
        rows = torch.randint(0, self.count, (size,))
        return {name: part[rows] for name, part in self.parts.items()}


@torch.no_grad()
def best(q, states):
    """Return the action of the highest value for each state."""
    return q(torch.from_numpy(np.stack(states))).argmax(1).tolist()


def collect(q, poles, states, chance, explore, buffer):
    """Step every pole once; a pole that fell or was cut off starts again."""
    for i, action in enumerate(best(q, states)):
        if chance.random() < explore:
            action = int(chance.integers(2))
        after, reward, fell, cut, _ = poles[i].step(action)
        buffer.add(states[i], action, reward, after, fell)  # not `fell or cut`
        states[i] = poles[i].reset()[0] if fell or cut else after


def fit(seed):
    """Train a Q network on ROUNDS x POLES steps; return it."""
    torch.manual_seed(seed)
    chance, buffer = np.random.default_rng(seed), Buffer(ROUNDS * POLES)
    q, q_target = (nn.MLP((4,), 2, hidden=64, depth=2) for _ in range(2))
    td = losses.TDLoss(gamma=0.98, double=True)
    optimizer = optim.Adam(q, lr=2e-3)
    scheduler = schedules.linear().bind(optimizer, total=ROUNDS * UPDATES)
    poles = [gymnasium.make("CartPole-v1") for _ in range(POLES)]
    states = [pole.reset(seed=POLES * seed + i)[0] for i, pole in enumerate(poles)]
    for step in range(ROUNDS):
        explore = max(0.05, 1 - step / (0.2 * ROUNDS))
        collect(q, poles, states, chance, explore, buffer)
        if step % COPY == 0:
            q_target.load_state_dict(q.state_dict())
        for _ in range(UPDATES):
            optimizer.zero_grad()
            td(q, q_target, buffer.sample(BATCH)).backward()
            clip.clip_by_global_norm(q.parameters(), 10.0)
            optimizer.step()
            scheduler.step()
    return q


def evaluate(q, episodes=20):
    """Return the mean return of greedy episodes from starts that training never saw."""
    poles = [gymnasium.make("CartPole-v1") for _ in range(episodes)]
    states = [pole.reset(seed=1000 + i)[0] for i, pole in enumerate(poles)]
    total, running = 0.0, list(range(episodes))
    while running:
        still = []
        for i, action in zip(running, best(q, [states[i] for i in running]), strict=True):
            states[i], reward, fell, cut, _ = poles[i].step(action)
            total += float(reward)
            if not (fell or cut):
                still.append(i)
        running = still
    return total / episodes


found = []
for seed in SEEDS:
    found.append(evaluate(fit(seed)))
    print(f"seed {seed}  mean return of 20 episodes {found[-1]:.0f}")
if np.mean(found) < 120:
    raise SystemExit("the mean return should reach 120")
