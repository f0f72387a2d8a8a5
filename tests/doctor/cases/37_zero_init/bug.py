"""Digits with a hand-written initialisation."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden1 = nn.Linear(64, 50)
        self.hidden2 = nn.Linear(50, 50)
        self.output = nn.Linear(50, 10)
        for layer in (self.hidden1, self.hidden2, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = torch.relu(self.hidden1(x))
        x = torch.relu(self.hidden2(x))
        return self.output(x)


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x = torch.tensor(x / 16, dtype=torch.float32)
y = torch.tensor(y)
train, test = torch.randperm(len(x)).split([1437, 360])
model = Perceptron()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(10):
    for idx in train[torch.randperm(len(train))].split(48):
        loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores = model(x[test])
        test_loss = nn.functional.cross_entropy(scores, y[test]).item()
    print(f"{epoch} {test_loss:.4f} {(scores.argmax(1) == y[test]).float().mean().item():.3f}")

print("final", test_loss, sum(p.double().sum().item() for p in model.parameters()))
