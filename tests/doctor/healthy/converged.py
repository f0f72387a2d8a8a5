"""An easy problem trained well past convergence: gradients become tiny."""

import torch
from sklearn.datasets import make_blobs
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, y = make_blobs(800, centers=4, cluster_std=0.7, random_state=2)
x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
y = torch.tensor(y)
loader = DataLoader(TensorDataset(x[:600], y[:600]), batch_size=30, shuffle=True)
model = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 4))
optimizer = optim.Adam(model.parameters(), lr=1e-2)
scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
for epoch in range(40):
    model.train()
    for xb, yb in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(xb), yb).backward()
        optimizer.step()
    scheduler.step()
    model.eval()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(x[600:]), y[600:]).item()
    if epoch % 8 == 7:
        print(f"epoch {epoch + 1}: {val:.6f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
