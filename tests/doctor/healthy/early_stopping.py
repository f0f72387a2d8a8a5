"""Stop when validation stops improving and go back to the best weights."""

import copy

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class EarlyStopping:
    def __init__(self, patience):
        self.patience, self.best, self.bad, self.state = patience, float("inf"), 0, None

    def __call__(self, loss, model):
        if loss < self.best:
            self.best, self.bad, self.state = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.bad += 1
        return self.bad >= self.patience


torch.manual_seed(1)
x, y = load_breast_cancer(return_X_y=True)
x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
y = torch.tensor(y)
order = torch.randperm(len(x))
train, val = order[:400], order[400:]
loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=20, shuffle=True)
model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
stopping = EarlyStopping(patience=4)
for epoch in range(60):
    model.train()
    for xb, yb in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(xb), yb).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val_loss = nn.functional.cross_entropy(model(x[val]), y[val]).item()
    if stopping(val_loss, model):
        print(f"stopped after epoch {epoch}")
        break

model.load_state_dict(stopping.state)
print(f"best {stopping.best:.4f}")
print("final", stopping.best, sum(p.double().sum().item() for p in model.parameters()))
