"""A denoising diffusion model of two-dimensional points."""

import math

import torch
from sklearn.datasets import make_moons
from torch import nn

STEPS = 50
betas = torch.linspace(1e-3, 0.15, STEPS)
alpha_bar = torch.cumprod(1 - betas, dim=0)


class Denoiser(nn.Module):
    def __init__(self, width=96, frequencies=8):
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(frequencies) * math.pi)
        self.net = nn.Sequential(
            nn.Linear(2 + 2 * frequencies, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x, t):
        phase = (t.float() / STEPS)[:, None] * self.frequencies
        return self.net(torch.cat([x, phase.sin(), phase.cos()], dim=1))


def noise(x, t, eps):
    a = alpha_bar[t][:, None]
    return a.sqrt() * x + (1 - a).sqrt() * eps


@torch.no_grad()
def sample(model, n):
    x = torch.randn(n, 2)
    for t in reversed(range(STEPS)):
        eps = model(x, torch.full((n,), t))
        x = (x - betas[t] / (1 - alpha_bar[t]).sqrt() * eps) / (1 - betas[t]).sqrt()
        if t > 0:
            x = x + betas[t].sqrt() * torch.randn(n, 2)
    return x


def main():
    torch.manual_seed(0)
    points, _ = make_moons(2000, noise=0.05, random_state=0)
    data = torch.tensor(points, dtype=torch.float32)
    data = (data - data.mean(0)) / data.std(0)
    model = Denoiser()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(8):
        total = 0.0
        for idx in torch.randperm(2000).split(50):
            x0 = data[idx]
            t = torch.randint(STEPS, (len(x0),))
            eps = torch.randn_like(x0)
            loss = nn.functional.mse_loss(model(noise(x0, t, eps), t), eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / 40
        print(f"epoch {epoch}: {total:.4f}")
    generated = sample(model, 200)
    print(f"mean {generated.mean().item():.3f} std {generated.std().item():.3f}")
    print("final", total, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
