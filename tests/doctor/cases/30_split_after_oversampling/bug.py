"""Rare digits: learn to spot eights among the others after balancing the classes."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def oversample(x, y, rng):
    rare = np.flatnonzero(y == 1)
    extra = rng.choice(rare, size=(y == 0).sum() - len(rare))
    return np.concatenate([x, x[extra]]), np.concatenate([y, y[extra]])


def tensors(x, y):
    return TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y).float())


def main():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x = x / 16 + rng.normal(0, 0.3, x.shape)
    y = (y == 8).astype(np.int64)
    pool, y_pool, fresh, y_fresh = x[:900], y[:900], x[900:], y[900:]
    pool, y_pool = oversample(pool, y_pool, rng)
    x_train, x_val, y_train, y_val = train_test_split(pool, y_pool, random_state=0)
    train_loader = DataLoader(tensors(x_train, y_train), batch_size=32, shuffle=True)
    val_loader = DataLoader(tensors(x_val, y_val), batch_size=256)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 1))
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(10):
        model.train()
        for xb, yb in train_loader:
            optimizer.zero_grad()
            criterion(model(xb).squeeze(1), yb).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            hits = [(yb[model(xb).squeeze(1) > 0].sum() / yb.sum()).item() for xb, yb in val_loader]
        print(f"epoch {epoch}: validation recall {np.mean(hits):.3f}")

    with torch.no_grad():
        logits = model(torch.tensor(fresh, dtype=torch.float32)).squeeze(1)
        truth = torch.tensor(y_fresh).float()
        loss = criterion(logits, truth).item()
        print(f"fresh data: recall {(truth[logits > 0].sum() / truth.sum()).item():.3f}")
    print("final", loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
