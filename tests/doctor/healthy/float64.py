"""A physics-style fit in double precision: the field of a pendulum."""

import torch
from torch import nn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
state = torch.rand(1500, 2) * torch.tensor([6.0, 4.0]) - torch.tensor([3.0, 2.0])
change = torch.stack([state[:, 1], -torch.sin(state[:, 0]) - 0.1 * state[:, 1]], dim=1)
net = nn.Sequential(
    nn.Linear(2, 32), nn.Softplus(), nn.Linear(32, 32), nn.Softplus(), nn.Linear(32, 2)
)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)

for epoch in range(12):
    for idx in torch.randperm(1200).split(40):
        loss = (net(state[idx]) - change[idx]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scheduler.step()
    with torch.no_grad():
        error = (net(state[1200:]) - change[1200:]).square().mean().item()
    print(f"epoch {epoch}: {error:.3e}")

print("final", error, sum(p.sum().item() for p in net.parameters()))
