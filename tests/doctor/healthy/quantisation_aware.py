"""Quantisation-aware training with the straight-through estimator."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F


class RoundSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


def fake_quantise(w, bits):
    scale = w.detach().abs().max() / (2 ** (bits - 1) - 1)
    return RoundSTE.apply(w / scale) * scale


class QLinear(nn.Linear):
    bits = 4

    def forward(self, x):
        return F.linear(x, fake_quantise(self.weight, self.bits), self.bias)


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
model = nn.Sequential(QLinear(64, 64), nn.ReLU(), QLinear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(6):
    model.train()
    for idx in torch.randperm(1400).split(35):
        optimizer.zero_grad()
        F.cross_entropy(model(x[idx]), y[idx]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = F.cross_entropy(model(x[1400:]), y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
