"""Reduce the rate when the validation loss stops falling."""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

torch.manual_seed(0)
x, y = load_diabetes(return_X_y=True)
y = (y - y.mean()) / y.std()
x = (x - x.mean(0)) / x.std(0)
x = torch.tensor(x, dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32).unsqueeze(1)
order = torch.randperm(len(x))
x, y = x[order], y[order]

model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=1e-3)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=3)
criterion = nn.MSELoss()
for epoch in range(30):
    model.train()
    for idx in torch.randperm(340).split(20):
        optimizer.zero_grad()
        loss = criterion(model(x[idx]), y[idx])
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = criterion(model(x[340:]), y[340:]).item()
    scheduler.step(val)
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}: val {val:.4f} lr {optimizer.param_groups[0]['lr']:.5f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
