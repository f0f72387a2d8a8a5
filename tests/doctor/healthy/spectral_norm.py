"""Spectrally normalised regressor on standardised housing-like data."""

import torch
from sklearn.datasets import make_friedman1
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class Lipschitz(nn.Module):
    def __init__(self, inputs, width=64):
        super().__init__()
        self.a = spectral_norm(nn.Linear(inputs, width))
        self.b = spectral_norm(nn.Linear(width, width))
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        h = nn.functional.leaky_relu(self.a(x), 0.1)
        h = nn.functional.leaky_relu(self.b(h), 0.1)
        return self.out(h).squeeze(1)


torch.manual_seed(0)
features, target = make_friedman1(1400, random_state=0)
x = torch.tensor((features - features.mean(0)) / features.std(0), dtype=torch.float32)
y = torch.tensor((target - target.mean()) / target.std(), dtype=torch.float32)
model = Lipschitz(10)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(8):
    model.train()
    total = 0.0
    for idx in torch.randperm(1100).split(44):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[idx]), y[idx])
        loss.backward()
        optimizer.step()
        total += loss.item()
    model.eval()
    with torch.no_grad():
        val = nn.functional.mse_loss(model(x[1100:]), y[1100:]).item()
    print(f"epoch {epoch}: train {total / 25:.4f} val {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
