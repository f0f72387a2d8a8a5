"""Magnitude pruning with masks, then fine-tuning of what is left."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=35, shuffle=True)
model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))


def train(epochs, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        for xb, yb in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(xb), yb).backward()
            optimizer.step()


def report(when):
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(x[1400:]), y[1400:]).item()
    zeros = sum((layer.weight == 0).sum().item() for layer in (model[0], model[2]))
    print(f"{when}: loss {val:.4f}, {zeros} zero weights")
    return val


train(4, 3e-3)
report("dense")
for amount in (0.4, 0.5):
    prune.global_unstructured(
        [(model[0], "weight"), (model[2], "weight")], prune.L1Unstructured, amount=amount
    )
    report("pruned")
    train(2, 1e-3)
    val = report("fine-tuned")
for layer in (model[0], model[2]):
    prune.remove(layer, "weight")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
