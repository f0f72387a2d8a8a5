"""Fine-tune a whole network with smaller rates for lower layers."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def layer_groups(model, lr, decay):
    layers = [m for m in model if any(True for _ in m.parameters())]
    depth = len(layers)
    return [
        {"params": list(layer.parameters()), "lr": lr * decay ** (depth - 1 - i)}
        for i, layer in enumerate(layers)
    ]


def epoch_of(model, optimizer, x, y, batch=40):
    model.train()
    for idx in torch.randperm(len(x)).split(batch):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[idx]), y[idx]).backward()
        optimizer.step()


torch.manual_seed(0)
data = load_digits()
images, labels = torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)
plain, mirrored = images.flatten(1), images.flip(2).flatten(1)
model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for _ in range(5):
    epoch_of(model, optimizer, plain[:1000], labels[:1000])

optimizer = torch.optim.AdamW(layer_groups(model, lr=2e-3, decay=0.6), weight_decay=0.01)
for epoch in range(6):
    epoch_of(model, optimizer, mirrored[:1000], labels[:1000])
    model.eval()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(mirrored[1000:]), labels[1000:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
