"""Three tasks share a trunk; each batch belongs to one task, so other heads rest."""

import random

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TASKS = {"digit": 10, "parity": 2, "large": 2}


class MultiTask(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(32, n) for name, n in TASKS.items()})

    def forward(self, x, task):
        return self.heads[task](self.trunk(x))


def labels_of(y, task):
    return {"digit": y, "parity": y % 2, "large": (y >= 5).long()}[task]


random.seed(0)
torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=25, shuffle=True)
model = MultiTask()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(8):
    model.train()
    for xb, yb in loader:
        task = random.choice(list(TASKS))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(xb, task), labels_of(yb, task))
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = {
            task: nn.functional.cross_entropy(
                model(x[1400:], task), labels_of(y[1400:], task)
            ).item()
            for task in TASKS
        }
    print(f"epoch {epoch}:", ", ".join(f"{k} {v:.3f}" for k, v in val.items()))

print("final", sum(val.values()), sum(p.double().sum().item() for p in model.parameters()))
