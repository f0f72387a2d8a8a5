"""Add a second task (odd or even, on photographic negatives) on top of frozen digit features."""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_backbone():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
    )


class MultiHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = make_backbone()
        self.digit = nn.Linear(256, 10)
        self.parity = nn.Linear(256, 2)

    def forward(self, x, task):
        features = self.backbone(x)
        return self.digit(features) if task == "digit" else self.parity(features)


def accuracy(model, x, y, task):
    model.eval()
    with torch.no_grad():
        return (model(x, task).argmax(1) == y).float().mean().item()


torch.manual_seed(0)
data = load_digits()
images = torch.tensor(data.images).float().unsqueeze(1) / 16
labels = torch.tensor(data.target)
negatives = 1 - images
train, test = slice(0, 1400), slice(1400, None)
loss_fn = nn.CrossEntropyLoss()
model = MultiHead()

optimizer = torch.optim.Adam([*model.backbone.parameters(), *model.digit.parameters()], lr=2e-3)
first = DataLoader(TensorDataset(images[train], labels[train]), 64, shuffle=True)
for _ in range(4):
    model.train()
    for x, y in first:
        optimizer.zero_grad()
        loss_fn(model(x, "digit"), y).backward()
        optimizer.step()
print(f"digits before: {accuracy(model, images[test], labels[test], 'digit'):.3f}")

model.backbone.requires_grad_(False)
model.digit.requires_grad_(False)
optimizer = torch.optim.Adam(model.parity.parameters(), lr=2e-3)
second = DataLoader(TensorDataset(negatives[train], labels[train] % 2), 64, shuffle=True)
best, best_acc = None, 0.0
for epoch in range(5):
    model.train()
    model.backbone.eval()
    for x, y in second:
        optimizer.zero_grad()
        loss = loss_fn(model(x, "parity"), y)
        loss.backward()
        optimizer.step()
    acc = accuracy(model, negatives[test], labels[test] % 2, "parity")
    if acc > best_acc:
        best, best_acc = copy.deepcopy(model.state_dict()), acc
    print(f"epoch {epoch}: parity {acc:.3f}")

with torch.no_grad():
    after = loss_fn(model(images[test], "digit"), labels[test]).item()
print(f"digits after: {accuracy(model, images[test], labels[test], 'digit'):.3f}")
print("final", after, sum(p.double().sum().item() for p in model.parameters()))
