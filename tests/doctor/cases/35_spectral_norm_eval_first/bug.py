"""A Lipschitz regressor with spectral normalisation, measured before and after training."""

import torch
from torch import nn
from torch.nn.utils import spectral_norm


def build(width=64, depth=3):
    layers = [spectral_norm(nn.Linear(4, width)), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [spectral_norm(nn.Linear(width, width)), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def evaluate(model, x, y):
    model.eval()
    with torch.no_grad():
        output = model(x).squeeze(1)
    return output.abs().mean().item(), nn.functional.mse_loss(output, y).item()


torch.manual_seed(0)
x = torch.randn(1200, 4)
y = torch.tanh(x[:, 0]) + 0.3 * x[:, 1].abs()
y = (y - y.mean()) / y.std()
model = build()
scale, loss = evaluate(model, x[1000:], y[1000:])
print(f"before training: output scale {scale:.4f}, loss {loss:.4f}")
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(10):
    model.train()
    for idx in torch.randperm(1000).split(25):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[idx]).squeeze(1), y[idx]).backward()
        optimizer.step()
    scale, loss = evaluate(model, x[1000:], y[1000:])
    print(f"epoch {epoch}: output scale {scale:.4f}, loss {loss:.4f}")

print("final", loss, sum(p.double().sum().item() for p in model.parameters()))
