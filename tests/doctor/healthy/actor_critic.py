"""Advantage actor-critic on CartPole with four environments and short rollouts."""

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.Tanh())
        self.policy = nn.Linear(64, 2)
        self.value = nn.Linear(64, 1)

    def forward(self, x):
        h = self.body(x)
        return torch.distributions.Categorical(logits=self.policy(h)), self.value(h).squeeze(-1)


def rollout(envs, states, model, steps, lengths):
    log_probs, values, rewards, masks, entropies = [], [], [], [], []
    for _ in range(steps):
        dist, value = model(torch.tensor(np.stack(states)))
        actions = dist.sample()
        reward, mask = np.ones(len(envs), np.float32), np.ones(len(envs), np.float32)
        for i, (env, action) in enumerate(zip(envs, actions.tolist(), strict=True)):
            states[i], _, terminated, truncated, _ = env.step(action)
            lengths[i].append(lengths[i].pop() + 1)
            if terminated or truncated:
                mask[i] = 0.0
                states[i], _ = env.reset()
                lengths[i].append(0)
        log_probs.append(dist.log_prob(actions))
        entropies.append(dist.entropy())
        values.append(value)
        rewards.append(torch.tensor(reward))
        masks.append(torch.tensor(mask))
    return log_probs, values, rewards, masks, entropies


def main(updates=150, steps=16, gamma=0.97):
    torch.manual_seed(1)
    envs = [gym.make("CartPole-v1", max_episode_steps=150) for _ in range(4)]
    states = [env.reset(seed=i)[0] for i, env in enumerate(envs)]
    lengths = [[0] for _ in envs]
    model = ActorCritic()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for update in range(updates):
        log_probs, values, rewards, masks, entropies = rollout(envs, states, model, steps, lengths)
        with torch.no_grad():
            _, ret = model(torch.tensor(np.stack(states)))
        returns = []
        for r, m in zip(reversed(rewards), reversed(masks), strict=True):
            ret = r + gamma * m * ret
            returns.insert(0, ret)
        returns, values = torch.stack(returns), torch.stack(values)
        advantage = (returns - values).detach()
        actor = -(torch.stack(log_probs) * advantage).mean()
        critic = F.smooth_l1_loss(values, returns)
        loss = actor + 0.5 * critic - 0.01 * torch.stack(entropies).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if update % 50 == 49:
            recent = np.mean([n for each in lengths for n in each[-3:-1]] or [0])
            print(f"update {update + 1}: episode length {recent:.1f}, critic {critic.item():.3f}")
    print("final", float(recent), sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
