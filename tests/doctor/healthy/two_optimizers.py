"""Embeddings with Adam, dense layers with SGD."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Recommender(nn.Module):
    def __init__(self, users, items, dim=12):
        super().__init__()
        self.user = nn.Embedding(users, dim)
        self.item = nn.Embedding(items, dim)
        self.mlp = nn.Sequential(nn.Linear(2 * dim, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, u, i):
        u, i = self.user(u), self.item(i)
        return self.mlp(torch.cat([u, i], 1)).squeeze(1) + (u * i).sum(1)


torch.manual_seed(0)
taste, style = torch.randn(60, 3), torch.randn(50, 3)
u, i = torch.randint(60, (4000,)), torch.randint(50, (4000,))
liked = torch.bernoulli(torch.sigmoid(2 * (taste[u] * style[i]).sum(1)))
train = TensorDataset(u[:3200], i[:3200], liked[:3200])
model = Recommender(60, 50)
nn.init.normal_(model.user.weight, std=0.1)
nn.init.normal_(model.item.weight, std=0.1)
dense = torch.optim.SGD(model.mlp.parameters(), lr=0.05, momentum=0.9)
tables = torch.optim.Adam([model.user.weight, model.item.weight], lr=1e-2, weight_decay=1e-4)
loss_fn = nn.BCEWithLogitsLoss()
for epoch in range(6):
    model.train()
    for ub, ib, yb in DataLoader(train, batch_size=64, shuffle=True):
        loss = loss_fn(model(ub, ib), yb)
        dense.zero_grad()
        tables.zero_grad()
        loss.backward()
        dense.step()
        tables.step()
    model.eval()
    with torch.no_grad():
        val = loss_fn(model(u[3200:], i[3200:]), liked[3200:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
