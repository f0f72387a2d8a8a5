"""Curriculum: from clean digits to noisier ones, phase by phase."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def phase_loader(x, y, noise, n):
    noisy = x[:n] + noise * torch.randn_like(x[:n])
    return DataLoader(TensorDataset(noisy, y[:n]), batch_size=40, shuffle=True)


torch.manual_seed(0)
data, target = load_digits(return_X_y=True)
x, y = torch.tensor(data / 16, dtype=torch.float32), torch.tensor(target)
x_val = x[1400:] + 0.3 * torch.randn_like(x[1400:])
model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for noise, n in ((0.0, 600), (0.1, 1000), (0.2, 1400), (0.3, 1400)):
    for _ in range(3):
        model.train()
        for xb, yb in phase_loader(x, y, noise, n):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(xb), yb).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(x_val), y[1400:]).item()
    print(f"noise {noise}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
