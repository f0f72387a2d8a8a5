"""A GRU decoder that is fed its own guesses more and more often."""

import random

import torch
from torch import nn
from torch.nn import functional as F

START, SYMBOLS, LENGTH = 8, 9, 6


class Copier(nn.Module):
    """Encodes a string and writes it out, each symbol increased by one."""

    def __init__(self, width=48):
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.cell = nn.GRUCell(width, width)
        self.out = nn.Linear(width, SYMBOLS - 1)

    def forward(self, source, target, teacher):
        _, h = self.encoder(self.embed(source))
        h, token = h[0], torch.full((len(source),), START)
        logits = []
        for t in range(target.shape[1]):
            h = self.cell(self.embed(token), h)
            logits.append(self.out(h))
            token = target[:, t] if random.random() < teacher else logits[-1].argmax(1)
        return torch.stack(logits, dim=1)


random.seed(0)
torch.manual_seed(0)
model = Copier()
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
val_source = torch.randint(8, (200, LENGTH))
val_target = (val_source + 1) % 8
for epoch in range(6):
    model.train()
    for _ in range(50):
        source = torch.randint(8, (32, LENGTH))
        target = (source + 1) % 8
        logits = model(source, target, teacher=1 - epoch / 10)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(val_source, val_target, teacher=0.0)
        val = F.cross_entropy(logits.flatten(0, 1), val_target.flatten()).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
