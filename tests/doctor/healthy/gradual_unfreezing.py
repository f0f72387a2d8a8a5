"""Unfreeze a pretrained network from the top down, one layer per phase."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.low, self.mid = nn.Linear(64, 64), nn.Linear(64, 48)
        self.head = nn.Linear(48, classes)

    def forward(self, x):
        return self.head(F.relu(self.mid(F.relu(self.low(x)))))


def fit(model, optimizer, x, y, epochs):
    for _ in range(epochs):
        for idx in torch.randperm(len(x)).split(30):
            optimizer.zero_grad()
            F.cross_entropy(model(x[idx]), y[idx]).backward()
            optimizer.step()


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
source, rest = y < 6, y >= 6
model = Net(6)
fit(model, torch.optim.Adam(model.parameters(), lr=2e-3), x[source], y[source], 6)

x, y = x[rest], y[rest] - 6
model.head = nn.Linear(48, 4)
for p in model.parameters():
    p.requires_grad = False
lr = 3e-3
for phase, layer in enumerate([model.head, model.mid, model.low]):
    for p in layer.parameters():
        p.requires_grad = True
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    fit(model, optimizer, x[:550], y[:550], 3)
    with torch.no_grad():
        val = F.cross_entropy(model(x[550:]), y[550:]).item()
    print(f"phase {phase}: {val:.4f}")
    lr /= 2

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
