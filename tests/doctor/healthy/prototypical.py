"""Few-shot metric learning: prototypical networks on digit episodes."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def episode(x, groups, classes, shots, queries):
    chosen = torch.randperm(len(groups))[:classes]
    support, query = [], []
    for c in chosen.tolist():
        idx = groups[c][torch.randperm(len(groups[c]))[: shots + queries]]
        support.append(x[idx[:shots]])
        query.append(x[idx[shots:]])
    labels = torch.arange(classes).repeat_interleave(queries)
    return torch.stack(support), torch.cat(query), labels


def logits_of(model, support, query):
    prototypes = model(support.flatten(0, 1)).view(*support.shape[:2], -1).mean(1)
    return -(torch.cdist(model(query), prototypes) ** 2)


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
train_groups = [torch.nonzero(y == c)[:, 0] for c in range(7)]
test_groups = [torch.nonzero(y == c)[:, 0] for c in range(7, 10)]
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 24))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for round_ in range(4):
    model.train()
    for _ in range(50):
        support, query, labels = episode(x, train_groups, 5, 3, 5)
        loss = F.cross_entropy(logits_of(model, support, query), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        support, query, labels = episode(x, test_groups, 3, 5, 30)
        out = logits_of(model, support, query)
        val, acc = F.cross_entropy(out, labels).item(), (out.argmax(1) == labels).float().mean()
    print(f"round {round_}: new classes {val:.4f} acc {acc:.3f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
