"""Attention pooling: find the one marked element of a sequence and report its class."""

import torch
import torch.nn.functional as F
from torch import nn


def make_data(n, length, classes, generator):
    kinds = torch.randint(classes, (n, length), generator=generator)
    marked = torch.randint(length, (n,), generator=generator)
    x = F.one_hot(kinds, classes).float() + 0.1 * torch.randn(
        n, length, classes, generator=generator
    )
    flag = torch.zeros(n, length, 1)
    flag[torch.arange(n), marked] = 1.0
    return torch.cat([x, flag], dim=2), kinds[torch.arange(n), marked]


class AttentionPool(nn.Module):
    def __init__(self, inputs, width, classes):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, width), nn.ReLU())
        self.score = nn.Linear(width, 1)
        self.classify = nn.Linear(width, classes)

    def forward(self, x):
        h = self.encode(x)
        attention = F.softmax(self.score(h), dim=0)
        return self.classify((attention * h).sum(dim=1))


def train(model, data, epochs, batch_size):
    x, y, x_val, y_val = data
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(x))
        for i in range(0, len(x), batch_size):
            pick = order[i : i + batch_size]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[pick]), y[pick])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            out = torch.cat([model(chunk) for chunk in x_val.split(16)])
        val = F.cross_entropy(out, y_val).item()
        acc = (out.argmax(1) == y_val).float().mean().item()
        print(f"epoch {epoch} val {val:.4f} acc {acc:.3f}")
    return val


generator = torch.Generator().manual_seed(0)
torch.manual_seed(0)
data = (*make_data(1536, 8, 6, generator), *make_data(256, 8, 6, generator))
model = AttentionPool(7, 32, 6)
val = train(model, data, epochs=8, batch_size=32)
print("final", val, sum(p.double().sum().item() for p in model.parameters()))
