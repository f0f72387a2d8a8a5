"""An unrolled ordinary differential equation learns a spiral."""

import torch
from torch import nn

STEPS, DT = 15, 0.1


def true_field(z):
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    return z**3 @ matrix


def integrate(field, z, steps=STEPS):
    path = []
    for _ in range(steps):
        k1 = field(z)
        k2 = field(z + DT / 2 * k1)
        z = z + DT * k2
        path.append(z)
    return torch.stack(path, dim=1)


class Field(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def forward(self, z):
        return self.net(z**3)


torch.manual_seed(0)
start = torch.rand(300, 2) * 2.4 - 1.2
with torch.no_grad():
    paths = integrate(true_field, start)
field = Field()
optimizer = torch.optim.Adam(field.parameters(), lr=1e-2)
for epoch in range(8):
    for idx in torch.randperm(240).split(16):
        loss = (integrate(field, start[idx]) - paths[idx]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        val = (integrate(field, start[240:]) - paths[240:]).abs().mean().item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in field.parameters()))
