"""REINFORCE with a moving baseline on CartPole."""

import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(0)
env = gym.make("CartPole-v1", max_episode_steps=120)
policy = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
gamma = 0.99
baseline = 0.0
lengths = []

for episode in range(70):
    state, _ = env.reset(seed=episode)
    log_probs, rewards, done = [], [], False
    while not done:
        dist = Categorical(logits=policy(torch.as_tensor(state)))
        action = dist.sample()
        log_probs.append(dist.log_prob(action))
        state, reward, terminated, truncated, _ = env.step(action.item())
        rewards.append(float(reward))
        done = terminated or truncated

    returns, g = [], 0.0
    for r in reversed(rewards):
        g = r + gamma * g
        returns.append(g)
    returns = torch.tensor(returns[::-1])
    baseline = 0.9 * baseline + 0.1 * returns.mean().item()
    advantage = (returns - baseline) / (returns.std(unbiased=False) + 1e-6)
    loss = -(torch.stack(log_probs) * advantage).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    lengths.append(len(rewards))
    if episode % 10 == 9:
        print(f"episode {episode + 1}: mean length {sum(lengths[-10:]) / 10:.1f}")

env.close()
print("final", sum(lengths[-10:]) / 10, sum(p.double().sum().item() for p in policy.parameters()))
