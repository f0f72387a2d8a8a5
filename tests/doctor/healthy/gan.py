"""GAN on a ring of eight Gaussians."""

import math

import torch
from torch import nn

torch.manual_seed(0)


def real(n):
    angle = torch.randint(8, (n,)) * (2 * math.pi / 8)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2)


G = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
D = nn.Sequential(
    nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
)
opt_g = torch.optim.Adam(G.parameters(), lr=1e-3, betas=(0.5, 0.999))
opt_d = torch.optim.Adam(D.parameters(), lr=1e-3, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()
ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)

for step in range(500):
    fake = G(torch.randn(64, 8))
    d_loss = bce(D(real(64)), ones) + bce(D(fake.detach()), zeros)
    opt_d.zero_grad()
    d_loss.backward()
    opt_d.step()

    g_loss = bce(D(fake), ones)
    opt_g.zero_grad()
    g_loss.backward()
    opt_g.step()
    if step % 100 == 99:
        with torch.no_grad():
            radius = G(torch.randn(512, 8)).norm(dim=1)
        print(f"{step + 1}: D {d_loss.item():.3f} G {g_loss.item():.3f} radius {radius.mean():.3f}")

print("final", g_loss.item(), sum(p.double().sum().item() for m in (G, D) for p in m.parameters()))
