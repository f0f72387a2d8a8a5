"""Counts per hour: Poisson regression with an offset for exposure."""

import torch
import torch.nn as nn

torch.manual_seed(0)
x = torch.randn(2000, 5)
exposure = 0.5 + torch.rand(2000)
rate = torch.exp(0.4 * x[:, 0] - 0.3 * x[:, 1] * x[:, 2] + 0.8)
counts = torch.poisson(rate * exposure)


class CountModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x, exposure):
        return self.net(x).squeeze(-1) + torch.log(exposure)


model = CountModel()
criterion = nn.PoissonNLLLoss(log_input=True, full=False)
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
for epoch in range(10):
    model.train()
    for idx in torch.randperm(1600).split(40):
        optimizer.zero_grad()
        criterion(model(x[idx], exposure[idx]), counts[idx]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = criterion(model(x[1600:], exposure[1600:]), counts[1600:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
