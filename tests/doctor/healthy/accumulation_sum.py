"""Gradient accumulation with summed losses: divide once by the number of examples."""

import torch
from sklearn.datasets import load_wine
from torch import nn

torch.manual_seed(0)
x, y = load_wine(return_X_y=True)
x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
y = torch.tensor(y)
perm = torch.randperm(len(x))
train, val = perm[:140], perm[140:]
model = nn.Sequential(nn.Linear(13, 24), nn.Tanh(), nn.Linear(24, 3))
loss_sum = nn.CrossEntropyLoss(reduction="sum")
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

for epoch in range(25):
    shuffled = train[torch.randperm(len(train))]
    for big in shuffled.split(28):
        optimizer.zero_grad()
        for small in big.split(7):
            loss_sum(model(x[small]), y[small]).backward()
        for p in model.parameters():
            p.grad /= len(big)
        optimizer.step()
    with torch.no_grad():
        val_loss = loss_sum(model(x[val]), y[val]).item() / len(val)
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}: {val_loss:.4f}")

print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
