"""Three quantiles at once with the pinball loss."""

import torch
from torch import nn

torch.manual_seed(0)
QUANTILES = torch.tensor([0.1, 0.5, 0.9])


def pinball(prediction, target):
    error = target[:, None] - prediction
    return torch.maximum(QUANTILES * error, (QUANTILES - 1) * error).mean()


x = torch.rand(2000, 1) * 6 - 3
y = torch.sin(x[:, 0]) + (0.1 + 0.2 * x[:, 0].abs()) * torch.randn(2000)
net = nn.Sequential(nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 3))
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(10):
    for idx in torch.randperm(1600).split(50):
        optimizer.zero_grad()
        pinball(net(x[idx]), y[idx]).backward()
        optimizer.step()
    with torch.no_grad():
        q = net(x[1600:])
        val = pinball(q, y[1600:]).item()
        cover = ((y[1600:] > q[:, 0]) & (y[1600:] < q[:, 2])).float().mean().item()
    print(f"epoch {epoch}: {val:.4f} coverage {cover:.2f}")

print("final", val, sum(p.double().sum().item() for p in net.parameters()))
