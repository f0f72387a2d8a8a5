"""Validate with averaged weights, then put the raw weights back."""

import copy
from contextlib import contextmanager

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F


class WeightAverage:
    def __init__(self, model, decay=0.98):
        self.model, self.decay = model, decay
        self.average = copy.deepcopy(model.state_dict())

    @torch.no_grad()
    def update(self):
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].mul_(self.decay).add_(value, alpha=1 - self.decay)
            else:
                self.average[name].copy_(value)

    @contextmanager
    def swapped(self):
        raw = copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(raw)


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
average = WeightAverage(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(6):
    model.train()
    for idx in torch.randperm(1400).split(40):
        optimizer.zero_grad()
        F.cross_entropy(model(x[idx]), y[idx]).backward()
        optimizer.step()
        average.update()
    model.eval()
    with average.swapped(), torch.no_grad():
        val = F.cross_entropy(model(x[1400:]), y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
