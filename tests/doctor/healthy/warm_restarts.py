"""Cosine annealing with warm restarts, stepped by batches."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
train_loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=35, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2, eta_min=1e-4)

for epoch in range(14):
    model.train()
    for i, (xb, yb) in enumerate(train_loader):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(xb), yb).backward()
        optimizer.step()
        scheduler.step(epoch + (i + 1) / len(train_loader))
    model.eval()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(x[1400:]), y[1400:]).item()
    print(f"epoch {epoch}: lr {scheduler.get_last_lr()[0]:.4f} val {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
