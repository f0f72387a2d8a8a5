"""Search a learning rate with a short sweep, then train from the saved start."""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

criterion = nn.CrossEntropyLoss()


def find_lr(model, loader, start=1e-4, end=3.0, steps=40):
    optimizer = torch.optim.SGD(model.parameters(), lr=start, momentum=0.9)
    factor = (end / start) ** (1 / steps)
    best, lowest, best_lr = None, float("inf"), start
    for _, (x, y) in zip(range(steps), loader, strict=False):
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = loss.item() if best is None else 0.8 * best + 0.2 * loss.item()
        if best < lowest:
            lowest, best_lr = best, optimizer.param_groups[0]["lr"]
        if best > 4 * lowest:
            break
        for group in optimizer.param_groups:
            group["lr"] *= factor
    return best_lr / 10


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=35, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
start = copy.deepcopy(model.state_dict())
lr = find_lr(model, loader)
print(f"rate {lr:.4f}")
model.load_state_dict(start)
optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
for epoch in range(6):
    model.train()
    for xb, yb in loader:
        optimizer.zero_grad()
        criterion(model(xb), yb).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = criterion(model(x[1400:]), y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
