"""Mixture of experts: every input visits its best two experts."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Expert(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class MoE(nn.Module):
    def __init__(self, width, experts=6, k=2):
        super().__init__()
        self.k = k
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, 32) for _ in range(experts))
        self.balance = torch.zeros(())

    def forward(self, x):
        probs = self.router(x).softmax(dim=-1)
        weights, chosen = probs.topk(self.k, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            rows, slot = torch.where(chosen == e)
            if len(rows):
                out = out.index_add(0, rows, weights[rows, slot, None] * expert(x[rows]))
        share = F.one_hot(chosen, len(self.experts)).float().sum(1).mean(0)
        self.balance = len(self.experts) * (share * probs.mean(0)).sum() / self.k
        return out


class Net(nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.layers = nn.ModuleList(MoE(width) for _ in range(2))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        return self.head(x), sum(layer.balance for layer in self.layers)


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
net = Net()
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
for epoch in range(4):
    net.train()
    for idx in torch.randperm(1400).split(16):
        logits, balance = net(x[idx])
        loss = F.cross_entropy(logits, y[idx]) + 0.01 * balance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        logits, _ = net(x[1400:])
        val = F.cross_entropy(logits, y[1400:]).item()
    print(f"epoch {epoch}: val {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in net.parameters()))
