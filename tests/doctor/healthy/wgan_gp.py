"""Wasserstein GAN with gradient penalty and five critic steps per generator step."""

from itertools import pairwise

import torch
import torch.nn as nn
from torch.optim import Adam


class MLP(nn.Sequential):
    def __init__(self, sizes, slope=0.2):
        layers = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.LeakyReLU(slope)]
        super().__init__(*layers[:-1])


def sample(n):
    x = torch.rand(n) * 3
    return torch.stack([x, torch.sin(2 * x)], dim=1) + 0.03 * torch.randn(n, 2)


def gradient_penalty(critic, real, fake):
    mix = torch.rand(len(real), 1)
    x = (mix * real + (1 - mix) * fake).requires_grad_(True)
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return ((grad.norm(dim=1) - 1) ** 2).mean()


def main(rounds=120, n_critic=5, weight=10.0, batch=64):
    torch.manual_seed(0)
    generator, critic = MLP([4, 64, 64, 2]), MLP([2, 64, 64, 1])
    opt_g = Adam(generator.parameters(), lr=5e-4, betas=(0.0, 0.9))
    opt_c = Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    for round_ in range(rounds):
        for _ in range(n_critic):
            x = sample(batch)
            with torch.no_grad():
                fake = generator(torch.randn(batch, 4))
            distance = critic(x).mean() - critic(fake).mean()
            loss = -distance + weight * gradient_penalty(critic, x, fake)
            opt_c.zero_grad()
            loss.backward()
            opt_c.step()
        g_loss = -critic(generator(torch.randn(batch, 4))).mean()
        opt_g.zero_grad()
        g_loss.backward()
        opt_g.step()
        if round_ % 30 == 29:
            print(f"round {round_ + 1}: distance {distance.item():.4f}")
    weights = [*generator.parameters(), *critic.parameters()]
    print("final", distance.item(), sum(p.double().sum().item() for p in weights))


if __name__ == "__main__":
    main()
