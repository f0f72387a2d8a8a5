"""Gradients are set to zero instead of None; per-epoch exponential decay."""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
X = torch.tensor(digits.data, dtype=torch.float32)
X = (X - X.mean()) / X.std()
Y = torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 80), nn.Tanh(), nn.Linear(80, 40), nn.Tanh(), nn.Linear(40, 10))
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.03)
for epoch in range(7):
    model.train()
    for start in range(0, 1400, 50):
        if start == 0:
            order = torch.randperm(1400)
        batch = order[start : start + 50]
        optimizer.zero_grad(set_to_none=False)
        loss = loss_fn(model(X[batch]), Y[batch])
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = loss_fn(model(X[1400:]), Y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
