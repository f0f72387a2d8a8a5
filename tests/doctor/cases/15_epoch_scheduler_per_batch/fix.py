"""Digits, SGD with step decay: divide the rate by ten every ten epochs."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
EPOCHS = 25

x, y = load_digits(return_X_y=True)
x = torch.tensor(x / 16, dtype=torch.float32)
y = torch.tensor(y)
train_loader = DataLoader(TensorDataset(x[:1437], y[:1437]), batch_size=64, shuffle=True)
test_loader = DataLoader(TensorDataset(x[1437:], y[1437:]), batch_size=360)

model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scheduler = StepLR(optimizer, step_size=10, gamma=0.1)

for epoch in range(EPOCHS):
    model.train()
    for xb, yb in train_loader:
        optimizer.zero_grad()
        loss = loss_fn(model(xb), yb)
        loss.backward()
        optimizer.step()
    scheduler.step()
    model.eval()
    with torch.no_grad():
        xb, yb = next(iter(test_loader))
        test_loss = loss_fn(model(xb), yb).item()
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}/{EPOCHS} test loss {test_loss:.4f}")

print("final", test_loss, sum(p.double().sum().item() for p in model.parameters()))
