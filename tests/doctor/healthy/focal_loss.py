"""Focal loss on a rare class: one digit against all others."""

import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class FocalLoss(nn.Module):
    def __init__(self, alpha=0.25, gamma=2.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits, targets):
        bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        p = torch.exp(-bce)
        alpha = self.alpha * targets + (1 - self.alpha) * (1 - targets)
        return (alpha * (1 - p) ** self.gamma * bce).mean()


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x = torch.tensor(x / 16, dtype=torch.float32)
y = torch.tensor(y == 3).float()
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 1))
nn.init.constant_(model[-1].bias, -math.log(9))
criterion = FocalLoss(alpha=0.75)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
for epoch in range(8):
    model.train()
    for xb, yb in loader:
        optimizer.zero_grad()
        criterion(model(xb).squeeze(1), yb).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(x[1400:]).squeeze(1)
        val = criterion(logits, y[1400:]).item()
        recall = (logits[y[1400:] == 1] > 0).float().mean().item()
    print(f"epoch {epoch}: {val:.5f} recall {recall:.3f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
