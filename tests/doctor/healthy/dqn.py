"""Deep Q-learning on CartPole with replay memory and a target network."""

import copy
import random
from collections import deque

import gymnasium as gym
import torch
from torch import nn


def build():
    return nn.Sequential(
        nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )


def learn(q, target, optimizer, batch, gamma=0.98):
    states, actions, rewards, following, done = (torch.stack(t) for t in zip(*batch, strict=True))
    with torch.no_grad():
        best = target(following).max(dim=1).values
        goal = rewards + gamma * (1 - done) * best
    value = q(states).gather(1, actions[:, None]).squeeze(1)
    loss = nn.functional.smooth_l1_loss(value, goal)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


random.seed(0)
torch.manual_seed(0)
env = gym.make("CartPole-v1", max_episode_steps=200)
q = build()
target = copy.deepcopy(q)
optimizer = torch.optim.Adam(q.parameters(), lr=1e-3)
memory = deque(maxlen=5000)
lengths, length, losses = [], 0, []
state, _ = env.reset(seed=0)
state = torch.tensor(state)
for step in range(2500):
    epsilon = max(0.05, 1 - step / 1200)
    if random.random() < epsilon:
        action = random.randrange(2)
    else:
        with torch.no_grad():
            action = q(state).argmax().item()
    following, reward, terminated, truncated, _ = env.step(action)
    following = torch.tensor(following)
    item = (state, torch.tensor(action), torch.tensor(float(reward)), following)
    memory.append((*item, torch.tensor(float(terminated))))
    state, length = following, length + 1
    if terminated or truncated:
        lengths.append(length)
        length = 0
        state = torch.tensor(env.reset()[0])
    if len(memory) >= 200 and step % 2 == 0:
        losses.append(learn(q, target, optimizer, random.sample(memory, 32)))
    if step % 150 == 0:
        target.load_state_dict(q.state_dict())
    if step % 500 == 499:
        print(f"step {step + 1}: length {sum(lengths[-5:]) / 5:.1f} loss {losses[-1]:.4f}")

print("final", losses[-1], sum(p.double().sum().item() for p in q.parameters()))
