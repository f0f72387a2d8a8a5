"""Monte-Carlo dropout: keep dropout on at test time to see the uncertainty."""

import torch
from sklearn.datasets import make_friedman2
from torch import nn


def enable_dropout(model):
    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.train()


torch.manual_seed(0)
x, y = make_friedman2(1200, noise=20.0, random_state=0)
x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)
model = nn.Sequential(
    nn.Linear(4, 64), nn.ReLU(), nn.Dropout(0.1),
    nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1),
    nn.Linear(64, 1), nn.Flatten(0),
)  # fmt: skip
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(10):
    model.train()
    for idx in torch.randperm(900).split(30):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[idx]), y[idx]).backward()
        optimizer.step()
    model.eval()
    enable_dropout(model)
    with torch.no_grad():
        draws = torch.stack([model(x[900:]) for _ in range(10)])
    val = nn.functional.mse_loss(draws.mean(0), y[900:]).item()
    print(f"epoch {epoch}: val {val:.4f} uncertainty {draws.std(0).mean().item():.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
