"""Prices in the hundred thousands, standardised for training and restored for the report."""

import numpy as np
import torch
from sklearn.metrics import mean_absolute_error
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.default_rng(0)
n = 1500
area = rng.uniform(30, 250, n)
rooms = np.clip(np.round(area / 30 + rng.normal(0, 1, n)), 1, 9)
age = rng.uniform(0, 100, n)
distance = rng.exponential(8, n)
price = 2500 * area + 8000 * rooms - 900 * age - 5000 * np.sqrt(distance) * (area / 100)
price = (price + rng.normal(0, 15000, n) + 120000).astype(np.float32)
features = np.stack([area, rooms, age, distance], axis=1).astype(np.float32)

x_scaler, y_scaler = StandardScaler().fit(features[:1200]), StandardScaler().fit(price[:1200, None])
x = torch.from_numpy(x_scaler.transform(features))
y = torch.from_numpy(y_scaler.transform(price[:, None]))
torch.manual_seed(0)
loader = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=40, shuffle=True)
model = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))
criterion = nn.HuberLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(10):
    model.train()
    for xb, yb in loader:
        optimizer.zero_grad()
        criterion(model(xb), yb).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        predicted = model(x[1200:])
        val = criterion(predicted, y[1200:]).item()
    euro = mean_absolute_error(price[1200:], y_scaler.inverse_transform(predicted.numpy()))
    print(f"epoch {epoch}: val {val:.4f}, mean error {euro:,.0f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
