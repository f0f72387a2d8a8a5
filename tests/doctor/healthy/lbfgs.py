"""Logistic regression with L-BFGS, full batch with a closure."""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

torch.manual_seed(0)
x, y = load_breast_cancer(return_X_y=True)
x = (x - x.mean(axis=0)) / x.std(axis=0)
x, y = torch.tensor(x), torch.tensor(y, dtype=torch.float64)
order = torch.randperm(len(x))
train, val = order[:450], order[450:]

model = nn.Linear(30, 1).double()
optimizer = torch.optim.LBFGS(model.parameters(), lr=1, max_iter=5, line_search_fn="strong_wolfe")
bce = nn.BCEWithLogitsLoss()


def objective():
    data_loss = bce(model(x[train]).squeeze(1), y[train])
    return data_loss + 1e-2 * model.weight.pow(2).sum()


def closure():
    optimizer.zero_grad()
    loss = objective()
    loss.backward()
    return loss


for step in range(12):
    loss = optimizer.step(closure)
    with torch.no_grad():
        val_loss = bce(model(x[val]).squeeze(1), y[val]).item()
    print(f"step {step}: objective {loss.item():.5f} val {val_loss:.5f}")

print("final", val_loss, sum(p.sum().item() for p in model.parameters()))
