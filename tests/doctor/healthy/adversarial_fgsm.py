"""Adversarial training with the fast gradient sign method."""

import torch
from sklearn.datasets import load_digits
from torch import nn

criterion = nn.CrossEntropyLoss()


def fgsm(model, x, y, eps):
    x = x.clone().requires_grad_(True)
    loss = criterion(model(x), y)
    (grad,) = torch.autograd.grad(loss, x)
    return (x + eps * grad.sign()).clamp(0, 1).detach()


def robust_accuracy(model, x, y, eps):
    attacked = fgsm(model, x, y, eps)
    with torch.no_grad():
        return (model(attacked).argmax(1) == y).float().mean().item()


torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
y = torch.tensor(digits.target)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3),
    nn.ReLU(),
    nn.Conv2d(16, 16, 3),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(256, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(6):
    model.train()
    for idx in torch.randperm(1400).split(50):
        xb, yb = x[idx], y[idx]
        attacked = fgsm(model, xb, yb, eps=0.05)
        optimizer.zero_grad()
        loss = 0.5 * criterion(model(xb), yb) + 0.5 * criterion(model(attacked), yb)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = criterion(model(x[1400:]), y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f} robust {robust_accuracy(model, x[1400:], y[1400:], 0.05):.3f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
