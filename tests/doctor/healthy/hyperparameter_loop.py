"""Try a few widths and rates, keep the best model."""

import itertools

import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine
from torch import nn


def train_model(x, y, width, lr, epochs=15, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(13, width), nn.ReLU(), nn.Linear(width, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        model.train()
        for idx in torch.randperm(len(x)).split(10):
            optimizer.zero_grad()
            F.cross_entropy(model(x[idx]), y[idx]).backward()
            optimizer.step()
    return model.eval()


def main():
    x, y = load_wine(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
    y = torch.tensor(y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    results = {}
    for width, lr in itertools.product((8, 16, 32), (1e-3, 1e-2)):
        model = train_model(x[:130], y[:130], width, lr)
        with torch.no_grad():
            val = F.cross_entropy(model(x[130:]), y[130:]).item()
        results[width, lr] = (val, model)
        print(f"width {width:3d} lr {lr:.0e}: {val:.4f}")
    best = min(results, key=lambda k: results[k][0])
    val, model = results[best]
    print("best", best)
    print("final", val, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
