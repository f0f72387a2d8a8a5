"""Mean and variance from two heads, trained on the Gaussian likelihood."""

import torch
from sklearn.datasets import make_friedman1
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class MeanVariance(nn.Module):
    def __init__(self, inputs, width=48):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.mean = nn.Linear(width, 1)
        self.raw = nn.Linear(width, 1)

    def forward(self, x):
        h = self.body(x)
        return self.mean(h), nn.functional.softplus(self.raw(h)) + 1e-4


torch.manual_seed(0)
x, y = make_friedman1(1600, noise=1.0, random_state=3)
x = torch.tensor(2 * x - 1, dtype=torch.float32)
y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)[:, None]
loader = DataLoader(TensorDataset(x[:1300], y[:1300]), batch_size=50, shuffle=True)
model, nll = MeanVariance(10), nn.GaussianNLLLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(10):
    for xb, yb in loader:
        mean, var = model(xb)
        loss = nll(mean, yb, var)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        mean, var = model(x[1300:])
        val = nll(mean, y[1300:], var).item()
    print(f"epoch {epoch}: nll {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
