"""Five-fold cross validation of a small regressor."""

import numpy as np
import torch
from sklearn.datasets import make_friedman1
from sklearn.model_selection import KFold
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset


def build():
    return nn.Sequential(nn.Linear(10, 32), nn.SiLU(), nn.Linear(32, 1))


def run_fold(dataset, train_ids, val_ids, epochs=12):
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    criterion = nn.MSELoss()
    train = DataLoader(Subset(dataset, train_ids), batch_size=40, shuffle=True)
    val = DataLoader(Subset(dataset, val_ids), batch_size=200)
    for _ in range(epochs):
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        losses = [criterion(model(x), y).item() for x, y in val]
    return float(np.mean(losses)), model


torch.manual_seed(0)
features, target = make_friedman1(600, random_state=5)
features = features * 2 - 1
target = (target - target.mean()) / target.std()
dataset = TensorDataset(
    torch.tensor(features, dtype=torch.float32), torch.tensor(target[:, None], dtype=torch.float32)
)
scores = []
for fold, (train_ids, val_ids) in enumerate(KFold(5, shuffle=True, random_state=0).split(features)):
    score, model = run_fold(dataset, train_ids.tolist(), val_ids.tolist())
    scores.append(score)
    print(f"fold {fold}: {score:.4f}")

print("final", float(np.mean(scores)), sum(p.double().sum().item() for p in model.parameters()))
