"""Low-rank adapters on a frozen network that moves to rotated digits."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16):
        super().__init__()
        self.base = base
        for p in self.base.parameters():
            p.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x):
        return self.base(x) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


def fit(model, x, y, parameters, lr, epochs):
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    for _ in range(epochs):
        model.train()
        for idx in torch.randperm(len(x)).split(32):
            loss = F.cross_entropy(model(x[idx]), y[idx])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def evaluate(model, x, y):
    model.eval()
    with torch.no_grad():
        logits = model(x)
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


torch.manual_seed(0)
data = load_digits()
images = torch.tensor(data.images, dtype=torch.float32) / 16
labels = torch.tensor(data.target)
upright, rotated = images.flatten(1), images.rot90(1, (1, 2)).flatten(1)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
fit(model, upright[:1400], labels[:1400], model.parameters(), 2e-3, 8)
print("before:", evaluate(model, rotated[1400:], labels[1400:]))
for i in (0, 2, 4):
    model[i] = LoRALinear(model[i])
trainable = [p for p in model.parameters() if p.requires_grad]
for _ in range(4):
    fit(model, rotated[:1400], labels[:1400], trainable, 5e-3, 2)
    loss, acc = evaluate(model, rotated[1400:], labels[1400:])
    print(f"after: {loss:.4f} {acc:.3f}")
print("final", loss, sum(p.double().sum().item() for p in model.parameters()))
