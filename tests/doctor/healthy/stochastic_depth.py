"""Residual network with stochastic depth: whole blocks are left out in training."""

import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class DropBlock(nn.Module):
    def __init__(self, width, survival):
        super().__init__()
        self.survival = survival
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        if self.training and torch.rand(()) > self.survival:
            return x
        branch = torch.relu(self.fc(self.norm(x)))
        return x + (branch if self.training else self.survival * branch)


class Net(nn.Module):
    def __init__(self, width=64, depth=6):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.Sequential(
            *(DropBlock(width, 1 - 0.5 * i / depth) for i in range(1, depth + 1))
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


torch.manual_seed(0)
digits = load_digits()
x = torch.tensor((digits.data - 4.88) / 6.02, dtype=torch.float32)
y = torch.tensor(digits.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
model, loss_fn = Net(), nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
for epoch in range(6):
    model.train()
    for xb, yb in loader:
        optimizer.zero_grad()
        loss_fn(model(xb), yb).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = loss_fn(model(x[1400:]), y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
