"""Mixup: train on convex combinations of examples and labels."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.distributions import Beta


def mixup(x, y, beta):
    lam = beta.sample()
    perm = torch.randperm(len(x))
    soft = F.one_hot(y, 10).float()
    return lam * x + (1 - lam) * x[perm], lam * soft + (1 - lam) * soft[perm]


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
beta = Beta(0.4, 0.4)
for epoch in range(8):
    model.train()
    for idx in torch.randperm(1400).split(40):
        mixed, target = mixup(x[idx], y[idx], beta)
        loss = F.cross_entropy(model(mixed), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = F.cross_entropy(model(x[1400:]), y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
