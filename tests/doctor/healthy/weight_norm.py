"""Weight-normalised convolutions over a one-dimensional signal."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

torch.manual_seed(0)


def signals(n):
    t = torch.linspace(0, 1, 48)
    kind = torch.randint(3, (n,))
    frequency = 2 + 2 * torch.rand(n, 1)
    phase = 6.28 * torch.rand(n, 1)
    sine = torch.sin(6.28 * frequency * t + phase)
    square = torch.sign(sine)
    saw = 2 * ((frequency * t + phase) % 1) - 1
    wave = torch.stack([sine, square, saw], 1)[torch.arange(n), kind]
    return (wave + 0.2 * torch.randn(n, 48)).unsqueeze(1), kind


model = nn.Sequential(
    weight_norm(nn.Conv1d(1, 16, 5, stride=2)),
    nn.ReLU(),
    weight_norm(nn.Conv1d(16, 16, 5, stride=2)),
    nn.ReLU(),
    nn.AdaptiveAvgPool1d(2),
    nn.Flatten(),
    weight_norm(nn.Linear(32, 3)),
)
x, y = signals(1200)
x_val, y_val = signals(300)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(6):
    model.train()
    for idx in torch.randperm(1200).split(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[idx]), y[idx]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(x_val), y_val).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
