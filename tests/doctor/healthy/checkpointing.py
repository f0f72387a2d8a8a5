"""Activation checkpointing without reentrant autograd."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.checkpoint import checkpoint


class ResidualBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        return x + self.inner(x)


class Deep(nn.Module):
    def __init__(self, width=48, depth=5):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.training else block(x)
        return self.head(x)


torch.manual_seed(0)
data, target = load_digits(return_X_y=True)
data, target = torch.tensor(data / 16, dtype=torch.float32), torch.tensor(target)
model = Deep()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loss_fn = nn.CrossEntropyLoss()
for epoch in range(4):
    model.train()
    for idx in torch.randperm(1400).split(40):
        optimizer.zero_grad()
        loss_fn(model(data[idx]), target[idx]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = loss_fn(model(data[1400:]), target[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
